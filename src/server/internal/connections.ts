// The connections of an HTTP server, and what each still owes: the answers to what was asked on it, in that order.
//
// Nothing is written between two answers, or into one: to whoever reads it, it would be the answer to something else.
import * as Effect from "effect/Effect"
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import { STATUS_CODES } from "node:http"
import { Server as NetServer, type Socket } from "node:net"
import type { Duplex } from "node:stream"
import * as KsiError from "../../event/KsiError.ts"
import type { LimitsShape } from "../../event/Limits.ts"
import * as Problem from "../Problem.ts"
import type { Fork } from "./exchange.ts"

/** Ends a connection that is none of HTTP any more, or not yet, with an answer. */
export const endWith = (stream: Duplex, problem: Problem.Problem): void => {
  stream.on("error", () => stream.destroy())
  if (!stream.writable) return void stream.destroy()
  const text = JSON.stringify(Problem.document(problem))
  const length = Buffer.byteLength(text)
  const headers = Object.entries({ ...Problem.headers(problem), connection: "close", "content-type": "application/problem+json", "content-length": length })
  const head = `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status] ?? ""}\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`
  // Not half of it: who never closes its own half would keep the connection.
  stream.end(head + text, () => stream.destroy())
}

const parserProblems: { readonly [code: string]: Problem.Problem } = {
  HPE_HEADER_OVERFLOW: Problem.make("HeadersTooLarge", "the headers are longer than the limit headerBytes"),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: Problem.make("HeadersTooLarge", "the extensions of the chunks are too long"),
  ERR_HTTP_REQUEST_TIMEOUT: Problem.make("RequestTimeout", "the request took longer to arrive than the limits headerMillis and bodyMillis", { retryable: true })
}
const malformed = Problem.make("FrameInvalid", "this is not HTTP/1.1")

interface Open {
  readonly socket: Socket
  /** What is owed, in order. */
  readonly answers: Set<ServerResponse>
  /** Whether it speaks another protocol by now, and ends by itself. */
  left: boolean
}

const isIdle = ({ answers, left }: Open): boolean => answers.size === 0 && !left

/** Whether what is written now can be nothing but the answer to what came last. */
const isFree = ({ answers, left }: Open): boolean => {
  const [first, ...others] = answers
  return !left && (first === undefined || (others.length === 0 && !first.headersSent && !first.req.complete))
}

// How long a client that is told the end may take to read it.
const lingerMillis = 1000
const firstProbeMillis = 20
const lastProbeMillis = 1000

/**
 * Finds out whether one that sends no more still reads: TCP itself tells the two apart only when something is written. What is
 * written is an interim response, which who still reads throws away; who is gone breaks the connection.
 */
const probe = ({ answers, socket }: Open): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let wait = firstProbeMillis; !socket.destroyed; wait = Math.min(2 * wait, lastProbeMillis)) {
      const [first] = answers
      if (first === undefined) return
      // A stream has no end that one could wait for.
      if (first.headersSent && !first.writableEnded) return void socket.destroy()
      // HTTP/1.0 has none: there it shows when the answer is written.
      if (!first.headersSent && first.req.httpVersion === "1.1" && !socket.writableNeedDrain) first.writeContinue()
      yield* Effect.sleep(wait)
    }
  })

/** Keeps `open` as it is; `closed` is told of each connection that is gone. */
const watch = (server: Server, open: Map<Duplex, Open>, max: number, fork: Fork, closed: () => void): void => {
  // Without this, node takes who sends no more for gone. It has no other name for it.
  Object.assign(server, { httpAllowHalfOpen: true })
  server.on("connection", (socket: Socket) => {
    if (open.size >= max) {
      return endWith(socket, Problem.ofReason(new KsiError.LimitExceeded({ limit: "connections", max, retryable: true })))
    }
    const connection: Open = { socket, answers: new Set(), left: false }
    open.set(socket, connection)
    socket.on("end", () => {
      if (connection.answers.size > 0 && !connection.left) fork(probe(connection))
    })
    socket.on("close", () => {
      open.delete(socket)
      closed()
    })
  })
  server.on("clientError", (error: NodeJS.ErrnoException, stream) => {
    const connection = open.get(stream)
    if (connection === undefined || isFree(connection)) endWith(stream, parserProblems[error.code ?? ""] ?? malformed)
    else stream.destroy()
  })
}

/** The connections of a server and the answers owed on them, each within its bound. */
export const make = (server: Server, { connectionRequests, connections }: LimitsShape, fork: Fork) => {
  const open = new Map<Duplex, Open>()
  let closing = false
  const waiting = new Set<() => void>()
  watch(server, open, connections, fork, () => {
    if (open.size === 0) for (const done of waiting) done()
  })

  const empty = Effect.callback<void>((resume) => {
    if (open.size === 0) return resume(Effect.void)
    const done = () => resume(Effect.void)
    waiting.add(done)
    return Effect.sync(() => waiting.delete(done))
  })
  const end = (wanted: (connection: Open) => boolean) => {
    closing = true
    // Not its own: that cuts off whoever still reads an answer that has been given.
    NetServer.prototype.close.call(server)
    for (const connection of open.values()) if (wanted(connection)) connection.socket.destroySoon()
  }
  return {
    count: () => open.size,
    /** Keeps in mind that a request is owed an answer; whether it may be looked at. */
    begin: ({ socket }: IncomingMessage, response: ServerResponse): boolean => {
      const connection = open.get(socket)
      if (connection === undefined || connection.answers.size >= connectionRequests) return false
      connection.answers.add(response)
      response.on("close", () => {
        connection.answers.delete(response)
        if (closing && isIdle(connection)) socket.destroySoon()
      })
      return true
    },
    /** This one speaks another protocol from now on; whether it may, because nothing is owed in this one. */
    leave: (stream: Duplex): boolean => {
      const connection = open.get(stream)
      if (connection === undefined || !isIdle(connection)) return false
      connection.left = true
      return true
    },
    /** Accepts no more, and waits until every connection is closed; each is as soon as it owes no answer. */
    drain: Effect.suspend(() => {
      end(isIdle)
      return empty
    }),
    /** Ends them all, with a moment for those who still read. */
    destroy: Effect.suspend(() => {
      end(() => true)
      return Effect.ignore(Effect.timeout(empty, lingerMillis))
    }).pipe(Effect.ensuring(Effect.sync(() => {
      server.close()
      for (const { socket } of open.values()) socket.destroy()
    })))
  }
}
