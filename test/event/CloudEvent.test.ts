import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as CloudEvent from "../../src/event/CloudEvent.ts"
import * as Json from "../../src/event/Json.ts"

const least = { specversion: "1.0", id: "1", source: "/a", type: "order:placed" }
const decode = (event: unknown) => Result.getOrThrow(CloudEvent.decode(event))
const problem = (event: unknown) => {
  const result = CloudEvent.decode(event)
  return Result.isFailure(result) ? result.failure : "none"
}
const stored = (fact: CloudEvent.NewFact): CloudEvent.StoredFact => ({ ...fact, position: 7, version: 2, timestamp: 0, recordedAt: 0 })

describe("attributeProblem", () => {
  it.each([
    [{}, undefined],
    [{ tenant: "x", shard: 3, hot: true, gone: null, data_base64: "AA==" }, undefined],
    [{ subject: null }, "\"subject\" is not an extension attribute"],
    [{ tenant: "x", id: "1" }, "\"id\" is not an extension attribute"],
    [{ "Not-One": 1 }, "the attribute \"Not-One\" must be lower-case letters and digits"],
    [{ list: ["x"] }, "the attribute \"list\" must be a text, a number or a boolean"],
    [{ nested: {} }, "the attribute \"nested\" must be a text, a number or a boolean"],
    [{ big: Json.parse("12345678901234567890") }, undefined]
  ])("%j: %s", (attributes, expected) => {
    expect(CloudEvent.attributeProblem(attributes)).toBe(expected)
  })
})

describe("decode", () => {
  it("reads the least and the most that an event may be", () => {
    expect(decode(least)).toEqual({
      id: "1", source: "/a", name: "order:placed", streamId: "/a", data: undefined, time: undefined, attributes: { subject: null }
    })
    expect(decode({ ...least, subject: "o-1", time: "2018-04-05T17:31:00Z", datacontenttype: "application/json", traceparent: "00-1", n: 3, flag: true, data: { a: null } })).toEqual({
      id: "1", source: "/a", name: "order:placed", streamId: "o-1", data: { a: null }, time: "2018-04-05T17:31:00Z",
      attributes: { datacontenttype: "application/json", traceparent: "00-1", n: 3, flag: true }
    })
  })

  it("names the attribute that is wrong", () => {
    for (const input of [null, undefined, 1, "{}", [least]]) expect(problem(input)).toContain("JSON object")
    expect(problem({ ...least, specversion: "0.3" })).toContain("\"specversion\"")
    expect(problem({ ...least, specversion: undefined })).toContain("\"specversion\"")
    for (const key of ["id", "source", "type"]) {
      expect(problem({ ...least, [key]: undefined })).toBe(`"${key}" is missing`)
      for (const value of ["", 1, null, {}]) expect(problem({ ...least, [key]: value })).toContain(`"${key}" must be a non-empty text`)
      expect(problem({ ...least, [key]: "x".repeat(257) })).toContain(`"${key}" has 257 characters, at most 256`)
    }
    expect(problem({ ...least, subject: "" })).toContain("\"subject\"")
    expect(problem({ ...least, subject: 1 })).toContain("\"subject\"")
    expect(problem({ ...least, data: 1, data_base64: "AA==" })).toContain("exclude each other")
    expect(problem({ ...least, Bad: 1 })).toContain("\"Bad\"")
    expect(problem({ ...least, a_b: 1 })).toContain("\"a_b\"")
    expect(problem({ ...least, extra: { a: 1 } })).toContain("\"extra\"")
  })

  it("takes null for absent, as the JSON format says", () => {
    expect(decode({ ...least, subject: null, time: null, extra: null })).toEqual(decode(least))
  })

  it("an export can be imported again, but the words position and version stay free", () => {
    const fact = decode({ ...least, subject: "s" })
    expect(decode(CloudEvent.encode(stored(fact)))).toEqual(fact)
    expect(decode({ ...least, position: "left" }).attributes["position"]).toBe("left")
    expect(decode({ ...least, version: 3 }).attributes["version"]).toBe(3)
    expect(CloudEvent.encode(stored(fact))).toMatchObject({ position: 7, version: 2 })
    for (const own of [{ version: "v1" }, { position: 5 }, { position: 0, version: 1 }]) {
      const event = { ...least, ...own }
      expect(CloudEvent.encode(stored(decode(event)))).toEqual(event)
    }
  })
})

describe("parseTime", () => {
  it("reads RFC 3339", () => {
    const at = CloudEvent.parseTime
    expect(at("1970-01-01T00:00:01Z")).toBe(1000)
    expect(at("1970-01-01t00:00:01z")).toBe(1000)
    expect(at("1970-01-01T01:00:00.5+01:00")).toBe(500)
    expect(at("1969-12-31T23:30:00-00:30")).toBe(0)
    expect(at("2018-04-05T17:31:00.123456789Z")).toBe(Date.UTC(2018, 3, 5, 17, 31, 0, 123))
    expect(at("2016-12-31T23:59:60Z")).toBe(Date.UTC(2017, 0, 1))
    expect(at("2024-02-29T00:00:00Z")).toBe(Date.UTC(2024, 1, 29))
  })

  it.each([
    "", "2018", "2018-04-05", "2018-04-05T17:31:00", "2018-04-05 17:31:00Z", "2018-13-01T00:00:00Z", "2018-00-01T00:00:00Z",
    "2023-02-29T00:00:00Z", "2018-02-31T00:00:00Z", "2018-04-00T00:00:00Z", "2018-01-01T24:00:00Z", "2018-01-01T23:60:00Z",
    "2018-01-01T23:59:61Z", "2018-01-01T00:00:00+0100", "2018-01-01T00:00:00+24:00", "Thu, 01 Jan 1970 00:00:00 GMT", "2018-01-01T00:00:00Z "
  ])("refuses %j", (text) => {
    expect(CloudEvent.parseTime(text)).toBe(undefined)
    expect(problem({ ...least, time: text })).toContain("\"time\"")
  })

  it.prop("keeps the text and finds the moment", [Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4e12 }))], ([millis]) => {
    const time = new Date(millis).toISOString()
    expect(decode({ ...least, time }).time).toBe(time)
    expect(CloudEvent.parseTime(time)).toBe(millis)
  })
})

const Text = Schema.String.check(Schema.isBetweenLength(1, 20))
const Extension = Schema.Union([Schema.String, Schema.Finite, Schema.Boolean])
const Generated = Schema.Struct({
  id: Text,
  source: Text,
  type: Text,
  subject: Schema.optionalKey(Text),
  time: Schema.optionalKey(Schema.Literals(["2018-04-05T17:31:00Z", "2018-04-05t17:31:00.123456789+02:00", "2016-12-31T23:59:60Z"])),
  datacontenttype: Schema.optionalKey(Text),
  traceparent: Schema.optionalKey(Text),
  ext1: Schema.optionalKey(Extension),
  position: Schema.optionalKey(Schema.Union([Schema.String, Schema.Literals([0, 1])])),
  version: Schema.optionalKey(Schema.Literals(["", -1, 1.5])),
  content: Schema.Union([
    Schema.Struct({}),
    Schema.Struct({ data: Schema.Json }),
    Schema.Struct({ data_base64: Schema.String })
  ])
})

describe("encode", () => {
  it.prop("gives back what decode was given, attribute for attribute", [Generated], ([{ content, ...rest }]) => {
    const event = { specversion: "1.0", ...rest, ...content }
    const fact = decode(event)
    expect(CloudEvent.encode(fact)).toEqual(event)
    // And once more through bytes, as an export and an import do.
    expect(decode(Json.parse(JSON.stringify(CloudEvent.encode(stored(fact)))))).toEqual(
      decode(Json.parse(JSON.stringify(event)))
    )
    expect(CloudEvent.sameContent(fact, decode(structuredClone(event)))).toBe(true)
  }, { arbitrary: { runs: 500 } })

  it("keeps null apart from nothing, and large numbers digit for digit", () => {
    const text = "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/a\",\"type\":\"t\",\"big\":12345678901234567890,\"data\":{\"n\":0.12345678901234567890123}}"
    expect(JSON.stringify(CloudEvent.encode(decode(Json.parse(text))))).toBe(text)
    expect(CloudEvent.encode(decode({ ...least, data: null }))).toEqual({ ...least, data: null })
    expect(Object.hasOwn(CloudEvent.encode(decode(least)), "data")).toBe(false)
  })
})

describe("sameContent", () => {
  const event = { ...least, subject: "s", time: "2018-04-05T17:31:00Z", ext: "e", data: { a: 1, b: [1, 2] } }

  it("does not mind the order of keys", () => {
    expect(CloudEvent.sameContent(decode(event), decode({ ...event, data: { b: [1, 2], a: 1 } }))).toBe(true)
  })

  it.each([
    { type: "t2" }, { subject: "s2" }, { subject: undefined }, { time: "2018-04-05T17:31:00.0Z" }, { time: undefined }, { ext: "f" },
    { ext: undefined }, { more: 1 }, { data: { a: 1, b: [2, 1] } }, { data: undefined }, { data: null }
  ])("sees a change: %j", (change) => {
    expect(CloudEvent.sameContent(decode(event), decode({ ...event, ...change }))).toBe(false)
  })

  it("tells a subject that is the source from no subject", () => {
    expect(CloudEvent.sameContent(decode(least), decode({ ...least, subject: "/a" }))).toBe(false)
  })
})
