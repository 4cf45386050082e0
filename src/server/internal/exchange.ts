// One request and its answer over node:http: reading a bounded body, writing a document once.
//
// Own code instead of effect's HttpServer, as for the Unix socket: measured bare, without anything of KSI in it, that one
// reaches half to six tenths of node:http and holds fifty megabytes more.
import { Buffer, isUtf8 } from "node:buffer"
import type { IncomingMessage, ServerResponse } from "node:http"
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
