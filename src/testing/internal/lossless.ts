/**
 * The promises of an event store about what it keeps: data, times, attributes, and isolation from its callers.
 */
import * as assert from "node:assert/strict"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as CloudEvent from "../../event/CloudEvent.ts"
import * as Json from "../../event/Json.ts"
import type { JsonObject } from "../../event/Json.ts"
import { type Case, everything, fact, invalidAt, kinds, promise } from "./promise.ts"

const documents: ReadonlyArray<string> = [
  `{"text":"Grüße, 世界, 👩‍🚀, \\u0001, \\u0000, \\ud800, \\\\, \\"","":"empty key"}`,
  `{"n":12345678901234567890,"f":1.0000000000000000001,"big":1e400,"small":5e-324,"zero":0,"max":9007199254740993}`,
  `{"__proto__":{"admin":true},"constructor":1,"toString":null,"hasOwnProperty":false}`,
  `{"z":1,"a":2,"m":{"deep":[[[[[[[[[[1]]]]]]]]]]}}`,
  `null`, `false`, `0`, `""`, `"text"`, `[]`, `{}`, `[null,[],{}]`, `12345678901234567890`
]

const times: ReadonlyArray<string | undefined> = [
  undefined,
  "2018-03-15T12:00:00Z",
  "2018-03-15T12:00:00.000000001Z",
  "2018-03-15t14:30:00.5+02:30",
  "1960-01-01T00:00:00-11:00",
  "2016-12-31T23:59:60Z"
]

const attributes: ReadonlyArray<JsonObject> = [
  {},
  { subject: null },
  { datacontenttype: "application/json", dataschema: "https://example.com/s", traceparent: "00-ab-cd-01" },
  { flag: false, count: -1, text: "ü ' \" \\ 世", depth: 3, correlationid: "c" },
  { subject: null, data_base64: "aGVsbG8=" }
]

/** A clock that is behind by `millis`. */
const behind = (clock: Clock.Clock, millis: number): Clock.Clock =>
  Object.create(clock, {
    currentTimeMillisUnsafe: { value: () => clock.currentTimeMillisUnsafe() - millis },
    currentTimeMillis: { value: Effect.map(clock.currentTimeMillis, (now) => now - millis) }
  })

/** That nothing is lost between appending and reading. */
export const cases: ReadonlyArray<Case> = [
  promise("data comes out as it went in: to the digit, null is not absent, in every way of reading", (store) =>
    Effect.gen(function*() {
      const given = documents.map((text, index) => fact(`${index}`, { data: Json.parse(text) }))
      yield* store.append({ facts: [...given, fact("absent", { data: undefined })] })
      const texts = [...documents.map((text) => JSON.stringify(Json.parse(text))), undefined]
      const stream = yield* store.readStream({ streamId: "a", from: 1, limit: 100 })
      const single = yield* Effect.forEach([...documents.keys(), "absent"], (id) => store.byId(`${id}`))
      for (const list of [yield* everything(store), stream, single.flat()]) {
        assert.deepEqual(list.map((f) => JSON.stringify(f.data)), texts)
        assert.deepEqual(list.map((f) => f.data === undefined), texts.map((text) => text === undefined))
      }
      const again = yield* store.append({ facts: given })
      assert.deepEqual(new Set(kinds(again)), new Set(["duplicate"]))
    })),
  promise("the text of `time` is verbatim, and `timestamp` is its instant or else the commit", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: times.map((time, index) => fact(`${index}`, { time })) })
      const read = yield* everything(store)
      assert.deepEqual(read.map((f) => f.time), times)
      for (const { recordedAt, time, timestamp } of read) {
        assert.equal(timestamp, time === undefined ? recordedAt : CloudEvent.parseTime(time))
      }
    })),
  promise("attributes are kept: extensions, the marker of an absent subject, ids of any characters", (store) =>
    Effect.gen(function*() {
      const base = { data: undefined, source: "urn:ü/世?q='%_", streamId: "urn:ü/世?q='%_" }
      const given = attributes.map((own, index) => fact(`${index} 👩‍🚀 '"\\%_`, { ...base, attributes: own }))
      yield* store.append({ facts: given })
      const read = yield* everything(store)
      assert.deepEqual(read.map(CloudEvent.encode), given.map((f, index) => ({
        ...CloudEvent.encode(f), position: index + 1, version: index + 1
      })))
      assert.deepEqual(read.map((f) => f.attributes), attributes)
      assert.deepEqual(new Set(kinds(yield* store.append({ facts: given }))), new Set(["duplicate"]))
    })),
  promise("who changes what was appended, or what was read, changes nothing in the store", (store) =>
    Effect.gen(function*() {
      const heard: Array<CloudEvent.StoredFact> = []
      yield* store.listen((list) => heard.push(...list))
      const data = { list: [1], nested: { x: 1 } }
      const own: Record<string, unknown> = { tenant: "x" }
      yield* store.append({ facts: [fact("1", { data, attributes: own })] })
      data.list.push(2)
      data.nested.x = 2
      own["tenant"] = "y"
      for (const seen of [...heard, ...(yield* everything(store))]) {
        assert.deepEqual([seen.data, seen.attributes], [{ list: [1], nested: { x: 1 } }, { tenant: "x" }])
        // Refused (frozen) or done to a copy: either is fine.
        Reflect.set(Object(Reflect.get(Object(seen.data), "nested")), "x", 3)
      }
      assert.deepEqual((yield* store.byId("1"))[0]?.data, { list: [1], nested: { x: 1 } })
    })),
  promise("data that JSON writes otherwise is kept as JSON writes it; what JSON cannot write is refused", (store) =>
    Effect.gen(function*() {
      const loose = [fact("1", { data: { at: new Date(0), gone: undefined, list: [undefined], nan: Number.NaN } })]
      yield* store.append({ facts: loose })
      const [read] = yield* everything(store)
      assert.deepEqual(read?.data, { at: "1970-01-01T00:00:00.000Z", list: [null], nan: null })
      assert.deepEqual(kinds(yield* store.append({ facts: loose })), ["duplicate"])
      const absent = [fact("0", { data: { kept: 1, gone: undefined } })]
      yield* store.append({ facts: absent })
      assert.deepEqual(kinds(yield* store.append({ facts: absent })), ["duplicate"])
      const cycle: { self?: unknown } = {}
      cycle.self = cycle
      for (const data of [{ n: 1n }, cycle, () => 1, Symbol("s")]) {
        yield* invalidAt("data", store.append({ facts: [fact("2"), fact("3", { data })] }))
      }
      assert.equal(store.head(), 2)
    })),
  promise("commit time never decreases with position, even when the clock goes back", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1")] })
      const back = Effect.clockWith((clock) =>
        Effect.provideService(store.append({ facts: [fact("2")] }), Clock.Clock, behind(clock, 60_000)))
      yield* back
      yield* store.append({ facts: [fact("3")] })
      const recorded = (yield* everything(store)).map((f) => f.recordedAt)
      assert.deepEqual(recorded, recorded.toSorted((a, b) => a - b))
    }))
]
