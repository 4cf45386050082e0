// Reads the requests that nearly all lines are: a name, data as the event's schema has it, labels that are plain texts. One
// regular expression, made for the event, tells such a line and takes it apart, in a third of the time that parsing and
// looking through it take. No other line is read here: those go to `Frame.decode`, which is the reference; a property test
// holds both equal.
import type { EventCodec } from "../../event/EventCodec.ts"
import type { EventRegistry } from "../../event/EventRegistry.ts"
import * as Json from "../../event/Json.ts"
import type { LimitsShape } from "../../event/Limits.ts"
import * as Frame from "../Frame.ts"

type Read = (line: string) => Frame.Request | undefined

// A long line is no common one, and what is read of a line may keep the text that it came in.
const maxLength = 1024
const text = "([^\"\\\\\\u0000-\\u001f]*)"
const word = /^[\w:-]+$/

const compile = (name: string, codec: EventCodec): Read | undefined => {
  // Control frames carry their fields elsewhere.
  const data = word.test(name) && !Frame.isFlat(name) ? codec.payloadPattern(2) : undefined
  if (data === undefined) return undefined
  const { end, source, value } = data
  // KSI's own clients write the label first, others last.
  const label = `(?:, ?"correlation_id": ?"${text}")?`
  const line = new RegExp(`^\\{"event": ?"${name}"${label}, ?"data": ?${source}${label}(?:, ?"_client_id": ?"${text}")?(?:, ?"bare": ?(true))?\\}$`)
  return (given) => {
    const parts = line.exec(given)
    return parts === null ? undefined : {
      event: name,
      data: value(parts),
      correlationId: detached(parts[end] ?? parts[1]),
      clientId: detached(parts[end + 1]),
      deadlineMillis: undefined,
      idempotencyKey: undefined,
      traceparent: undefined,
      tracestate: undefined,
      stream: undefined,
      bare: parts[end + 2] !== undefined,
      expects: undefined
    }
  }
}

const detached = (part: string | undefined): string | undefined => part && Json.detached(part)

// Shared by all connections, and forgotten with the event.
const readers = new WeakMap<EventCodec, Read>()

const none: Read = () => undefined

const readerOf = (name: string, codec: EventCodec): Read => {
  const known = readers.get(codec)
  if (known !== undefined) return known
  const read = compile(name, codec) ?? none
  readers.set(codec, read)
  return read
}

const beginning = "{\"event\":"
const quote = 0x22

/** Reads lines of the events that are registered; `undefined` for a line that is for `Frame.decode` to read. */
export const make = ({ get }: EventRegistry, { idLength }: Pick<LimitsShape, "idLength">): Read => (line) => {
  if (line.length > maxLength || !line.startsWith(beginning)) return undefined
  const from = line.charCodeAt(beginning.length) === quote ? beginning.length + 1 : beginning.length + 2
  const entry = get(line.slice(from, line.indexOf("\"", from)))
  const request = entry && readerOf(entry.event.name, entry.codec)(line)
  // What is wrong with it is for the other to say.
  return request?.clientId !== undefined && request.clientId.length > idLength ? undefined : request
}
