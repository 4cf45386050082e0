// One request and its answer over node:http: reading a bounded body, writing a document once.
//
// Own code instead of effect's HttpServer, as for the Unix socket: measured bare, without anything of KSI in it, that one
// reaches half to six tenths of node:http and holds fifty megabytes more.
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { Buffer, isUtf8 } from "node:buffer"
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Causation from "../../bus/Causation.ts"
import * as TraceContext from "../../event/TraceContext.ts"
import { letGo } from "../../wire/Lines.ts"
import * as Problem from "../Problem.ts"

/** One request, and its answer. */
export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Without the query. */
  readonly path: string
  /** What follows the path, from its question mark on. */
  readonly search: string
  /** Who asks. */
  readonly principal: string
}

/** Runs an effect in a fiber of its own, in the surroundings of the server. */
export type Fork = <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>

const jsonType = "application/json"
const problemType = "application/problem+json"

/** Writes an answer, with what every answer has. Does nothing where there is one already, or nobody any more. */
export const write = (response: ServerResponse, status: number, type: string, text: string, more: ReadonlyArray<string> = []): void => {
  if (response.headersSent || response.destroyed) return
  const headers = [
    "content-type", type,
    "content-length", String(Buffer.byteLength(text)),
    "cache-control", "no-store",
    "x-content-type-options", "nosniff"
  ]
  response.writeHead(status, more.length === 0 ? headers : [...headers, ...more])
  response.end(text)
}

/** Answers with a value as JSON. */
export const answer = (response: ServerResponse, status: number, value: unknown, more?: ReadonlyArray<string>): void =>
  write(response, status, jsonType, JSON.stringify(value) ?? "null", more)

/** Answers with what went wrong. */
export const refuse = (response: ServerResponse, problem: Problem.Problem, more: ReadonlyArray<string> = []): void =>
  write(response, problem.status, problemType, JSON.stringify(Problem.document(problem)), [...Object.entries(Problem.headers(problem)).flat(), ...more])

const headerText = /^[\x20-\x7e]*$/

/** As a header: the id of an event that was made elsewhere may be any text. */
const textOf = (id: string): string => headerText.test(id) ? id : encodeURIComponent(id.toWellFormed())

/** What goes with every answer of an event: the id that the daemon knows it by, and the span that it was, where it was traced. */
export const labelsOf = (envelope: Causation.LiveEnvelope): ReadonlyArray<string> => {
  const labels = ["x-correlation-id", textOf(envelope.metadata.correlationId)]
  const span = Causation.spanOf(envelope)
  const { traceparent } = (span && TraceContext.ofSpan(span)) ?? TraceContext.none
  return traceparent === undefined ? labels : [...labels, "traceparent", traceparent]
}

/** Why a body could not be read. */
export type Unread = "too long" | "not UTF-8"

// A longer body than this is read a piece in each turn of the event loop.
const turnBytes = 64 * 1024

const letOthersRead = (request: IncomingMessage): void => {
  request.pause()
  setImmediate(() => request.resume())
}

/** Reads a body of at most `max` bytes; the rest of a longer one is thrown away as it comes. Of a broken one nothing is told. */
export const readText = (request: IncomingMessage, max: number, done: (text: string, problem?: Unread) => void): void => {
  const chunks: Array<Buffer> = []
  let length = 0
  let over = false
  const tooLong = () => {
    over = true
    for (const chunk of chunks) letGo(chunk)
    chunks.length = 0
    done("", "too long")
  }
  if (Number(request.headers["content-length"]) > max) tooLong()
  request.on("data", (chunk: Buffer) => {
    length += chunk.length
    // Of what is at hand the system reads megabytes before it looks at anybody else.
    if (length > turnBytes) letOthersRead(request)
    if (over) return letGo(chunk)
    if (length > max) {
      letGo(chunk)
      return tooLong()
    }
    chunks.push(chunk)
  })
  request.on("end", () => {
    if (over) return
    const [first] = chunks
    const body = chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks, length)
    for (const chunk of chunks) if (chunk !== body) letGo(chunk)
    const text = isUtf8(body) ? body.toString("utf8") : undefined
    letGo(body)
    if (text === undefined) done("", "not UTF-8")
    else done(text)
  })
}
