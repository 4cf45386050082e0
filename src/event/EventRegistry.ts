/**
 * The events a runtime knows, by name. Registering compiles an event's schemas once; the same definition may be
 * registered again, another one under the same name is refused with both places named.
 *
 * **Example**
 *
 * ```ts
 * const registry = EventRegistry.make()
 * Result.isSuccess(registry.register(Reserve))  // true
 * registry.unknown("stock:resrve").similar      // ["stock:reserve"]
 * ```
 *
 * Source: seed section 4.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Event from "./Event.ts"
import * as EventCodec from "./EventCodec.ts"
import * as EventName from "./EventName.ts"
import type * as EventPattern from "./EventPattern.ts"
import * as KsiError from "./KsiError.ts"

/** A registered event. */
export interface Entry {
  readonly event: Event.Any
  readonly codec: EventCodec.EventCodec
}

/** JSON Schema 2020-12 of an event's sides. */
export interface Schemas {
  readonly payload: object
  readonly success: object | undefined
  readonly error: object | undefined
}

/** The events a runtime knows. */
export interface EventRegistry {
  /** Adds an event; the failure names the other definition of this name. */
  readonly register: (event: Event.Any) => Result.Result<Entry, string>
  /** Forgets an event; nothing where it is not registered. */
  readonly unregister: (name: string) => void
  readonly get: (name: string) => Entry | undefined
  /** All entries whose name the pattern matches, by name. */
  readonly list: (pattern: EventPattern.EventPattern) => ReadonlyArray<Entry>
  /** What to say about a name that is not registered. */
  readonly unknown: (name: string) => KsiError.UnknownEvent
  /** Registered names near this one, without itself. */
  readonly similar: (name: string) => ReadonlyArray<string>
}

const document = (schema: Schema.Top): object => {
  const { definitions, schema: root } = Schema.toJsonSchemaDocument(Schema.toCodecJson(schema))
  return Object.keys(definitions).length === 0 ? root : { ...root, $defs: definitions }
}

/** The JSON Schemas of an event; definitions that several sides share appear in each. */
export const schemas = (event: Event.Any): Schemas => ({
  payload: document(event.payload),
  success: event.kind === "request" ? document(event.success) : undefined,
  error: event.kind === "request" ? document(event.error) : undefined
})

const sameDefinition = (a: Event.Any, b: Event.Any): boolean =>
  a === b ||
  (a.kind === b.kind && (a.kind !== "fact" || b.kind !== "fact" || a.version === b.version) && (a.kind !== "request" || b.kind !== "request" || a.mode === b.mode) &&
    JSON.stringify(schemas(a)) === JSON.stringify(schemas(b)))

/** An empty registry. */
export const make = (): EventRegistry => {
  const entries = new Map<string, Entry>()
  const namespaces = () => [...new Set([...entries.keys()].map(EventName.namespace))].toSorted()
  const similar = (name: string) =>
    EventName.nearest(name, [...entries.keys()].filter((candidate) => candidate !== name))
  return {
    register: (event) => {
      const known = entries.get(event.name)
      if (known === undefined) {
        const entry = { event, codec: EventCodec.compile(event) }
        entries.set(event.name, entry)
        return Result.succeed(entry)
      }
      return sameDefinition(known.event, event)
        ? Result.succeed(known)
        : Result.fail(
          `"${event.name}" is defined twice with different schemas: at ${known.event.definedAt} and at ${event.definedAt}`
        )
    },
    unregister: (name) => void entries.delete(name),
    get: (name) => entries.get(name),
    list: (pattern) =>
      [...entries.values()].filter(({ event }) => pattern.matches(event.name))
        .toSorted((a, b) => (a.event.name < b.event.name ? -1 : 1)),
    unknown: (name) => new KsiError.UnknownEvent({ event: name, similar: similar(name), namespaces: namespaces() }),
    similar
  }
}
