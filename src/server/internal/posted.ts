// What is posted to an event: its data as JSON, or a CloudEvent with it, structured or binary. Pure.
//
// Source: HTTP Protocol Binding for CloudEvents 1.0.2.
import * as Result from "effect/Result"
import { Buffer, isUtf8 } from "node:buffer"
import type { IncomingHttpHeaders } from "node:http"
import * as CloudEvent from "../../event/CloudEvent.ts"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { LimitsShape } from "../../event/Limits.ts"
import * as Frame from "../../wire/Frame.ts"
import * as Problem from "../Problem.ts"

/** What was posted; with the event that it came in, where it did. */
export interface Posted {
  readonly data: unknown
  readonly fact: CloudEvent.NewFact | undefined
}

/** How a body is to be read. */
export type Kind = "data" | "structured" | "binary"

const jsonType = "application/json"
const eventType = "application/cloudevents+json"
const eventHeader = "ce-"

/** How the body of a post is to be read. */
export const kindOf = (headers: IncomingHttpHeaders): Result.Result<Kind, Problem.Problem> => {
  const given = headers["content-type"] ?? ""
  const coding = headers["content-encoding"]
  if (coding !== undefined && coding !== "identity") {
    return Result.fail(Problem.make("MediaTypeUnsupported", `the content-encoding is ${JSON.stringify(coding.slice(0, 80))}, expected none`))
  }
  // Nearly all of them.
  if (given === jsonType && headers["ce-specversion"] === undefined) return Result.succeed("data")
  const [type = "", ...parameters] = given.toLowerCase().split(";").map((part) => part.trim())
  const charset = parameters.find((parameter) => parameter.startsWith("charset="))?.slice("charset=".length).replaceAll("\"", "")
  const isText = charset === undefined || charset === "utf-8" || charset === "utf8"
  if (type === eventType && isText) return Result.succeed("structured")
  if (type === jsonType && isText) return Result.succeed(headers["ce-specversion"] === undefined ? "data" : "binary")
  const found = given === "" ? "the request has no content-type" : `the content-type is ${JSON.stringify(given.slice(0, 80))}`
  const batch = type.startsWith("application/cloudevents-batch") ? "; many events at once are imported: store:import" : ""
  return Result.fail(Problem.make("MediaTypeUnsupported", `${found}, expected ${jsonType} or ${eventType}, in UTF-8${batch}`, { next: `say so: -H 'Content-Type: ${jsonType}'` }))
}

// As older senders write what has a space in it.
const quoted = /^"((?:[^"\\]|\\.)*)"$/

/** The text that a header stands for. Node reads bytes beyond ASCII as if each were a character. */
const decodeHeader = (header: string): string => {
  const text = quoted.exec(header)?.[1]?.replaceAll(/\\(.)/g, "$1") ?? header
  const bytes = Buffer.from(text, "latin1")
  const read = isUtf8(bytes) ? bytes.toString("utf8") : text
  try {
    return decodeURIComponent(read)
  } catch {
    return read
  }
}

/** The attributes that stand in headers. */
const attributesOf = (headers: IncomingHttpHeaders): Record<string, unknown> => {
  const attributes: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(eventHeader) && typeof value === "string") attributes[name.slice(eventHeader.length)] = decodeHeader(value)
  }
  return attributes
}

const invalid = (event: string, path: string, problem: string): Result.Result<never, Problem.Problem> =>
  Result.fail(Problem.ofReason(KsiError.invalidAt(event, path, problem)))

/** Reads the body of a post to the event of this name. */
export const read = (
  kind: Kind,
  headers: IncomingHttpHeaders,
  text: string,
  event: string,
  { idLength, jsonDepth }: Pick<LimitsShape, "idLength" | "jsonDepth">
): Result.Result<Posted, Problem.Problem> => {
  if (Json.isDeeper(text, kind === "structured" ? jsonDepth + 1 : jsonDepth)) {
    return Result.fail(Problem.ofReason(new KsiError.LimitExceeded({ limit: "jsonDepth", max: jsonDepth, retryable: false })))
  }
  // Nothing is the data of an event that needs none.
  const isEmpty = kind !== "structured" && text.trim() === ""
  const parsed = isEmpty ? Result.succeed(undefined) : Json.parseResult(text)
  if (Result.isFailure(parsed)) return invalid(event, "", `the body is not JSON (${parsed.failure})`)
  if (kind === "data") return Result.succeed({ data: parsed.success, fact: undefined })
  // The body is the data, and nothing else is: a header that says so too is overruled.
  const input = kind === "structured" ? parsed.success : { ...attributesOf(headers), data: parsed.success }
  const decoded = CloudEvent.decode(input, idLength)
  if (Result.isFailure(decoded)) return invalid(event, "", `it is no CloudEvent: ${decoded.failure}`)
  const { attributes, data, name } = decoded.success
  // Whoever handles it gets JSON; data that was left out unseen would be lost.
  if (attributes["data_base64"] !== undefined) return invalid(event, "data_base64", "expected the data as JSON, in \"data\"")
  return name === event
    ? Result.succeed({ data, fact: decoded.success })
    : invalid(event, "type", `expected "${event}", as in the path, got "${name}"`)
}

/** The key of the header `Idempotency-Key`, quoted or not; the problem where it is none. */
export const keyOf = (headers: IncomingHttpHeaders): Result.Result<string | undefined, string> => {
  const given = headers["idempotency-key"]
  if (given === undefined) return Result.succeed(undefined)
  const text = String(given)
  const key = text.length > 1 && text.startsWith("\"") && text.endsWith("\"") ? text.slice(1, -1) : text
  return key !== "" && key.length <= Frame.maxKeyLength
    ? Result.succeed(key)
    : Result.fail(`the header Idempotency-Key is not a text of 1 to ${Frame.maxKeyLength} characters`)
}
