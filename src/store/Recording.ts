/**
 * What has really happened, as a test: for each request that was recorded, the facts before it, the request, and the facts that
 * came of it, as the text of a file that runs.
 *
 * The rule: the text says only what is recorded. Facts come from the store, requests from the activity journal; what is not
 * there any more, or never was (`KSI_AUDIT=outline` keeps no payloads), is an error that names it, and never a test that passes
 * because nothing is in it.
 *
 * **Example**
 *
 * ```ts
 * const { holdId } = yield* program
 * const text = yield* Recording.test({ trace: holdId }, { app: "./stock.ts" })
 * text.split("\n").filter((line) => line.includes("Reserve"))
 * // => ["const { \"stock:reserve\": Reserve, \"stock:reserved\": Reserved } = events", "    .when(Reserve, { sku: \"tea\", quantity: 1 })", "    .thenEmits(Reserved.of({ sku: \"tea\", quantity: 1 }))"]
 * ```
 *
 * The file imports the app's layer as the default of a module, and groups of events by the names of their namespaces (`stock:…` is
 * of `Stock`); both can be told.
 *
 * **Gotchas** What was given is what stood in the streams that the request wrote to; what its handler read elsewhere is told in
 * `given`. Replies are not recorded: a request that succeeded is expected to succeed, and to say the same facts. A field of a
 * fact that a handler seems to have made up (an id, a time) is left out, with a comment. What a handler did only after a while
 * (`Effect.sleep`) needs a `thenAfter`, which is for you to add.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { Activity, type ActivityRecord } from "../bus/Activity.ts"
import { Router } from "../bus/Router.ts"
import { type StoredFact, versionAttribute } from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import type * as EventRegistry from "../event/EventRegistry.ts"
import * as EventName from "../event/EventName.ts"
import * as KsiError from "../event/KsiError.ts"
import { EventStore } from "./EventStore.ts"
import { type Root, type Scenario, write } from "./internal/recorded.ts"
import * as Trace from "./Trace.ts"

/** Which requests: those of a trace, or those that led to facts of a stream, or at some positions. */
export interface Selection {
  /** The id of a request or fact, or the label of a client. */
  readonly trace?: string | undefined
  readonly stream?: string | undefined
  /** Positions, inclusive. */
  readonly from?: number | undefined
  readonly to?: number | undefined
}

/** What the text says beside what happened. */
export interface Options {
  /** The module whose default export is the app's layer. Default: `./app.ts`. */
  readonly app?: string | undefined
  /** Exports of it that are groups of events. Default: one for each namespace, `Stock` for `stock:…`. */
  readonly groups?: ReadonlyArray<string> | undefined
  /** Streams whose facts are given besides those that a request wrote to. */
  readonly given?: ReadonlyArray<string> | undefined
}

type Services = EventStore | Activity | Router
type Failing<A> = Effect.Effect<A, KsiError.KsiError, Services>

/** Tests of one file, at most; each has what was given before it. */
const mostTests = 50
/** Facts that are looked at for one selection, and that are given to one test. */
const mostFacts = 1000

const tooMany = (actual: number, max: number) =>
  KsiError.fail(new KsiError.LimitExceeded({ limit: "pageItems", max, actual, retryable: false }))

const missing = (what: string, id: string, detail: string) => KsiError.fail(new KsiError.NotFound({ what, id, similar: [], detail }))

const isOwn = (name: string): boolean => EventName.reserved.has(EventName.namespace(name))

/** Facts at some positions, of one stream or of all; more than are looked at where there are more. */
const selected = Effect.fnUntraced(function*({ from = 1, stream, to }: Selection): Effect.fn.Return<ReadonlyArray<StoredFact>, KsiError.KsiError, Services> {
  const store = yield* EventStore
  const last = Math.min(to ?? store.head(), store.head())
  const limit = mostFacts + 1
  const facts: Array<StoredFact> = []
  for (let next = stream === undefined ? from : 1; facts.length <= mostFacts;) {
    const page = stream === undefined
      ? yield* store.read({ from: next, to: last, limit })
      : yield* store.readStream({ streamId: stream, from: next, limit })
    const end = page.at(-1)
    if (end === undefined) break
    facts.push(...page.filter(({ position }) => position >= from && position <= last))
    if (end.position >= last) break
    next = stream === undefined ? end.position + 1 : end.version + 1
  }
  return facts
})

/** The correlation ids of what was selected, in order. */
const chainsOf = Effect.fnUntraced(function*(selection: Selection): Effect.fn.Return<ReadonlySet<string>, KsiError.KsiError, Services> {
  const { from = 1, stream, to = "the last", trace } = selection
  if (trace !== undefined) {
    const { facts, requests } = yield* Trace.gather(trace)
    const all = [
      ...requests.filter(({ depth }) => depth === 0).map(({ correlationId }) => correlationId),
      ...facts.map((fact) => Envelope.metadataOf(fact, 0).correlationId)
    ]
    return all.length === 0 ? yield* missing("request or fact", trace, "in the store or the activity journal") : new Set(all)
  }
  const facts = yield* selected(selection)
  if (facts.length > mostFacts) return yield* tooMany(facts.length, mostFacts)
  if (facts.length === 0) return yield* missing(stream === undefined ? "fact at the positions" : "fact of the stream", stream ?? `${from} to ${to}`, "to make a test of")
  return new Set(facts.map((fact) => Envelope.metadataOf(fact, 0).correlationId))
})

/** The facts of a stream, oldest first; none where it does not exist. */
const factsOf = (streamId: string, limit: number): Failing<ReadonlyArray<StoredFact>> =>
  Effect.gen(function*() {
    const store = yield* EventStore
    const facts: Array<StoredFact> = []
    for (let from = 1; facts.length < limit;) {
      const page = yield* store.readStream({ streamId, from, limit: limit - facts.length })
      const last = page.at(-1)
      if (last === undefined) break
      facts.push(...page)
      from = last.version + 1
    }
    return facts
  })

/** Facts of these streams before a position, and stored by a time, in their order. */
const before = Effect.fnUntraced(function*(streams: ReadonlySet<string>, position: number, millis: number): Effect.fn.Return<ReadonlyArray<StoredFact>, KsiError.KsiError, Services> {
  const facts: Array<StoredFact> = []
  for (const streamId of streams) {
    const all = yield* factsOf(streamId, mostFacts + 1)
    facts.push(...all.filter((fact) => fact.position < position && fact.recordedAt <= millis))
  }
  if (facts.length > mostFacts) return yield* tooMany(facts.length, mostFacts)
  return facts.toSorted((a, b) => a.position - b.position)
})

/** A fact of today's shape; `undefined` of an event that this runtime does not know. */
const readable = (registry: EventRegistry.EventRegistry, fact: StoredFact) => {
  const entry = registry.get(fact.name)
  if (entry?.event.kind !== "fact") return Effect.succeed(undefined)
  const { codec, event } = entry
  return Effect.map(codec.decodeFact(fact, fact.attributes[versionAttribute]), (payload) => ({
    event, payload, data: codec.encodePayload(payload), id: fact.id
  }))
}

/** What began the chain: a request with its payload, or a fact that was said by itself. */
const rootOf = Effect.fnUntraced(function*(
  registry: EventRegistry.EventRegistry,
  chain: string,
  record: ActivityRecord | undefined,
  fact: StoredFact | undefined
): Effect.fn.Return<Root | undefined, KsiError.KsiError> {
  if (record === undefined) {
    if (fact === undefined || fact.source !== Envelope.ownSource || isOwn(fact.name)) return undefined
    const said = yield* readable(registry, fact)
    const { principal } = Envelope.metadataOf(fact, 0)
    return said === undefined ? undefined : { ...said, payload: said.payload, isValid: true, timestamp: fact.recordedAt, principal, record: undefined }
  }
  const entry = registry.get(record.name)
  if (isOwn(record.name)) return undefined
  if (entry?.event.kind !== "request") return yield* KsiError.fail(registry.unknown(record.name))
  const { codec, event } = entry
  if (event.mode === "stream") return yield* KsiError.fail(KsiError.invalidAt("time:test", "trace", `${event.name} is a stream, which a scenario has no word for`))
  const payload = codec.decodePayload(record.data ?? {})
  if (record.data === null && (Exit.isFailure(payload) || event.annotations.audit === "outline")) {
    return yield* missing("payload of the request", chain, `(${event.name}) in the activity journal, which keeps none with KSI_AUDIT=outline`)
  }
  const { data, principal, timestamp } = record
  return { event, payload: Exit.isSuccess(payload) ? payload.value : data, data, isValid: Exit.isSuccess(payload), timestamp, principal, record, id: chain }
})

/** One chain of causes as a scenario; `undefined` where nobody here began it: an import, or what KSI does itself. */
const scenarioOf = Effect.fnUntraced(function*(chain: string, streams: ReadonlyArray<string>): Effect.fn.Return<Scenario | undefined, KsiError.KsiError, Services> {
  const { registry } = yield* Router
  const { facts: all, more, requests } = yield* Trace.gather(chain, mostFacts)
  if (more) return yield* tooMany(mostFacts + 1, mostFacts)
  const facts = all.filter((fact) => Envelope.metadataOf(fact, 0).correlationId === chain)
  const record = requests.find(({ id }) => id === chain)
  const own = facts.find(({ id }) => id === chain)
  if (record === undefined && own === undefined) {
    return yield* missing("request", chain, "in the activity journal (any more): all that is known of it is the facts that it caused")
  }
  const root = yield* rootOf(registry, chain, record, own)
  if (root === undefined) return undefined
  const touched = new Set([...streams, ...facts.map(({ streamId }) => streamId)])
  const [first] = facts
  const history = yield* before(touched, first?.position ?? Infinity, first === undefined ? root.timestamp : Infinity)
  const given = yield* Effect.forEach(history, (fact) => readable(registry, fact))
  const emitted = yield* Effect.forEach(facts, (fact) => readable(registry, fact))
  return {
    root,
    given: given.filter((fact) => fact !== undefined),
    emitted: emitted.filter((fact) => fact !== undefined),
    unknown: [...new Set([...history, ...facts].filter(({ name }) => registry.get(name)?.event.kind !== "fact").map(({ name }) => name))],
    isWhole: emitted.every((fact) => fact !== undefined),
    names: [...new Set([root.event.name, ...requests.map(({ name }) => name), ...facts.map(({ name }) => name)])],
    ids: new Set([...facts.map(({ id }) => id), ...requests.map(({ id }) => id)]),
    until: Math.max(root.timestamp, ...facts.map(({ recordedAt }) => recordedAt), ...requests.map(({ duration, timestamp }) => timestamp + duration))
  }
})

/**
 * A test for each request (or fact that was said by itself) of a selection, in their order: the text of a file for vitest.
 *
 * Fails with `NotFound` where nothing is selected, or something is not recorded; with `LimitExceeded` where it would be more than 50
 * tests, or one of more than 1,000 facts; with `UnknownEvent` where this runtime does not have a request's definition.
 */
export const test = Effect.fnUntraced(function*(
  selection: Selection,
  { app = "./app.ts", given = [], groups }: Options = {}
): Effect.fn.Return<string, KsiError.KsiError, Services> {
  const chains = yield* chainsOf(selection)
  if (chains.size > mostTests) return yield* tooMany(chains.size, mostTests)
  const scenarios: Array<Scenario> = []
  // Of many, those are told of which enough is known.
  const isLeft = ({ reason }: KsiError.KsiError) => selection.trace === undefined && reason._tag === "NotFound" && reason.what === "request"
  let left = 0
  for (const chain of chains) {
    const told = yield* Effect.result(scenarioOf(chain, given))
    if (Result.isSuccess(told)) {
      if (told.success !== undefined) scenarios.push(told.success)
    } else if (isLeft(told.failure)) left++
    else return yield* Effect.fail(told.failure)
  }
  if (scenarios.length === 0) {
    return yield* missing("request", selection.trace ?? selection.stream ?? `${selection.from ?? 1} to ${selection.to ?? "the last"}`, left > 0 ? "in the activity journal (any more)" : "that began here: these facts were imported, or are KSI's own")
  }
  return write(scenarios, { app, groups, left })
})
