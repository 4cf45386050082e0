// The two readers of lines: what the quick one reads, the other reads alike; everything else is left to the other.
import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventRegistry from "../../src/event/EventRegistry.ts"
import * as Json from "../../src/event/Json.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as Frame from "../../src/wire/Frame.ts"
import * as LineReader from "../../src/wire/internal/LineReader.ts"

const Payload = Schema.Struct({ word: Schema.String, n: Schema.Finite, inner: Schema.Struct({ is: Schema.Boolean }) })
const Ask = Event.make("quiz:ask", { payload: Payload })
const Greet = Event.make("wire:greet", { payload: Payload })

const registry = EventRegistry.make()
for (const event of [Ask, Greet]) registry.register(event)
const read = LineReader.make(registry, Limits.defaults)

const data = { word: "tea", n: 1, inner: { is: true } }
const line = (fields: Readonly<Record<string, unknown>>, spaced = false): string => {
  const text = JSON.stringify(fields)
  return spaced ? text.replaceAll(",\"", ", \"").replaceAll("\":", "\": ") : text
}

const same = (text: string): boolean => {
  const quick = read(text)
  if (quick !== undefined) expect(Result.succeed(quick), text).toStrictEqual(Frame.decode(text))
  return quick !== undefined
}

describe("lines of a registered event", () => {
  it("are read whichever way clients write them", () => {
    for (const spaced of [false, true]) {
      for (
        const fields of [
          { event: Ask.name, data }, { event: Ask.name, data, correlation_id: "c1" }, { event: Ask.name, correlation_id: "c1", data },
          { event: Ask.name, correlation_id: "", data, _client_id: "a client with a long name" },
          { event: Ask.name, correlation_id: "c1", data, bare: true }, { event: Ask.name, data, correlation_id: "c1", _client_id: "c", bare: true },
          { event: Ask.name, data, correlation_id: "0198a1c5-5a2e-7000-8000-123400005678" }
        ]
      ) expect(same(line(fields, spaced)), line(fields, spaced)).toBe(true)
    }
    expect(same(Frame.encodeRequest({ event: Ask.name, dataText: JSON.stringify(data), correlationId: "c1", clientId: "cli" }).trimEnd())).toBe(true)
    // Of two the later one counts.
    expect(same(`{"event":"quiz:ask","correlation_id":"a","data":${JSON.stringify(data)},"correlation_id":"b"}`)).toBe(true)
  })

  it("that are something else are not", () => {
    for (
      const text of [
        line({ event: "quiz:other", data }), line({ event: Greet.name, data }), line({ data, event: Ask.name }), line({ event: Ask.name }),
        line({ event: Ask.name, data, correlation_id: 7 }), line({ event: Ask.name, data, correlation_id: "a\"b" }),
        line({ event: Ask.name, data, deadline_ms: 5 }), line({ event: Ask.name, data, idempotency_key: "k" }),
        line({ event: Ask.name, data, _client_id: "x".repeat(257) }), line({ event: Ask.name, data: { ...data, word: "x".repeat(2000) } }),
        `${line({ event: Ask.name, data })} `, `${line({ event: Ask.name, data })}\r`, line({ event: Ask.name, data }).slice(0, -1), "", "{", "{\"event\":", "{\"event\":\"", "nope"
      ]
    ) expect(read(text), text).toBeUndefined()
  })

  const Text = Schema.Union([Schema.String, Schema.Literals(["c1", "\"", "\\", "\n", "\u2028", "😀", "\ud800", "a longer label of a client"])])
  it.prop("are read alike, or not by the quick one", [Payload, Text, Text, Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 })), Schema.Boolean], ([payload, word, label, shape, spaced]) => {
    const given = { ...payload, word }
    same(line([
      { event: Ask.name, data: given, correlation_id: label }, { event: Ask.name, correlation_id: label, data: given }, { event: Ask.name, data: given, _client_id: label },
      { event: Ask.name, data: given }, { event: Ask.name, data: payload, correlation_id: label, more: 1 }, { event: label, data: given }
    ][shape] ?? {}, spaced))
  }, { arbitrary: { runs: 500 } })

  const Change = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200 }))
  it.prop("are read alike with any character changed, left out or put in", [Change, Schema.Literals(["", "\"", "\\", "{", "}", "0", "-", "9".repeat(16), ",", " ", "\u0000", "é"]), Schema.Boolean], ([at, character, kept]) => {
    const text = line({ event: Ask.name, data, correlation_id: "c1" })
    const changed = text.slice(0, at) + character + text.slice(kept ? at : at + 1)
    const quick = read(changed)
    if (quick === undefined) return
    expect(Result.succeed(quick), changed).toStrictEqual(Frame.decode(changed))
    expect(Json.parse(changed)).toMatchObject({ event: quick.event, data: quick.data })
  }, { arbitrary: { runs: 1000 } })

  it("are read as the definition says that is registered now", () => {
    const changing = EventRegistry.make()
    const reading = LineReader.make(changing, Limits.defaults)
    const text = line({ event: Ask.name, data })
    expect(reading(text)).toBeUndefined()
    changing.register(Ask)
    expect(reading(text)?.data).toEqual(data)
    changing.unregister(Ask.name)
    changing.register(Event.make("quiz:ask", { payload: { other: Schema.Int } }))
    expect(reading(text)).toBeUndefined()
    expect(reading(line({ event: Ask.name, data: { other: 3 } }))?.data).toEqual({ other: 3 })
  })
})
