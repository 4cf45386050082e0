import { describe, expect, it } from "@effect/vitest"
import { Redacted } from "effect"
import { inspect } from "node:util"
import * as Setting from "../../src/server/Setting.ts"

const odd = [undefined, null, true, {}, [], "", " ", "-1", "1e3", "0x10", "NaN", "Infinity", NaN, Infinity, -1, 1.5, "one", "1 parsec"]

describe("names", () => {
  it("follow from one name", () => {
    const setting = Setting.make({ name: "storeFile", kind: Setting.path("PATH"), default: "x", description: "" })
    expect(setting).toMatchObject({ flag: "store-file", variable: "KSI_STORE_FILE", key: "store_file", table: undefined, otherwise: "x" })
    const limit = Setting.make({ name: "frameBytes", kind: Setting.bytes(1, 10), default: 4, description: "", limit: true })
    expect(limit).toMatchObject({ flag: "limit-frame-bytes", variable: "KSI_LIMIT_FRAME_BYTES", key: "frame_bytes", table: "limits" })
  })
})

describe("choice", () => {
  const kind = Setting.choice("full", "normal")
  it("takes its words, in capitals or not", () => {
    expect(["full", "NORMAL", "Full"].map(kind.read)).toEqual(["full", "normal", "full"])
    for (const given of [...odd, "ful", "full "]) expect(kind.read(given)).toBe(undefined)
    expect(kind.expects).toBe("one of full, normal")
  })
})

describe("path", () => {
  it("is a text that is not empty", () => {
    expect(["a", "/a b/ü", "."].map(Setting.path("DIR").read)).toEqual(["a", "/a b/ü", "."])
    for (const given of ["", "a\0b", 1, true, {}, [], undefined, null]) expect(Setting.path("DIR").read(given)).toBe(undefined)
  })
})

describe("count", () => {
  const kind = Setting.count(1, 1000)
  it("is a whole number in its range", () => {
    expect([1, "1", 1000, "1_000", "0017"].map(kind.read)).toEqual([1, 1, 1000, 1000, 17])
    for (const given of [...odd, 0, 1001, "1001", "1_", "_1", "1__0", "1,000", "9".repeat(400)]) expect(kind.read(given)).toBe(undefined)
    expect(kind.expects).toBe("a whole number from 1 to 1,000")
  })
})

describe("bytes", () => {
  const kind = Setting.bytes(1, 1024 ** 3)
  it("is a size in words or bytes", () => {
    const cases = [["4 MiB", 4 * 1024 ** 2], ["4MiB", 4 * 1024 ** 2], ["1.5 KiB", 1536], ["2 MB", 2_000_000], ["7 B", 7], ["12", 12], [12, 12]] as const
    for (const [given, value] of cases) expect(kind.read(given)).toBe(value)
    for (const given of [...odd, 0, "2 GiB", "1.5 B", "4 mib", "MiB", "4 MiB x", "99999999999999999 GiB"]) expect(kind.read(given)).toBe(undefined)
  })
  it("reads what it shows", () => {
    for (const value of [1, 1023, 1024, 1025, 1536, 1024 ** 2, 4 * 1024 ** 2, 1_000_000, 1024 ** 3]) {
      expect(kind.read(kind.show(value))).toBe(value)
    }
    expect([1024, 4 * 1024 ** 2, 1000].map(kind.show)).toEqual(["1 KiB", "4 MiB", "1000 bytes"])
  })
})

describe("duration", () => {
  const kind = Setting.duration(0, 86_400_000)
  it("is in words", () => {
    const cases = [
      ["20 seconds", 20_000], ["20s", 20_000], ["1 second", 1000], ["1.5 minutes", 90_000], ["250 ms", 250], ["250 millis", 250],
      ["2 H", 7_200_000], ["1 day", 86_400_000], ["0 s", 0], ["0", 0], [0, 0], ["0.1 seconds", 100]
    ] as const
    for (const [given, value] of cases) expect(kind.read(given), String(given)).toBe(value)
  })
  it("must say its unit, and be whole milliseconds in its range", () => {
    for (const given of [...odd, 20, "20", "20 years", "25 hours", "0.1 ms", "1 m", "s", "- 1 s"]) expect(kind.read(given), String(given)).toBe(undefined)
  })
  it("reads what it shows", () => {
    for (const value of [0, 1, 999, 1000, 1001, 20_000, 90_000, 3_600_000, 86_400_000]) expect(kind.read(kind.show(value))).toBe(value)
    expect([0, 1, 1000, 90_000, 60_000, 86_400_000].map(kind.show)).toEqual([
      "0 seconds", "1 millisecond", "1 second", "90 seconds", "1 minute", "1 day"
    ])
  })
  it("millis takes a number as milliseconds", () => {
    const millis = Setting.millis(1, 30_000)
    expect([1, "30000", "30 seconds", 30_000].map(millis.read)).toEqual([1, 30_000, 30_000, 30_000])
    for (const given of [...odd, 0, "0", 30_001, "31 s"]) expect(millis.read(given)).toBe(undefined)
  })
})

describe("endpoint", () => {
  it("is where HTTP can go, or off; nothing that would be a secret", () => {
    expect(["http://c:4318", "https://c/otlp/", "OFF"].map(Setting.endpoint.read)).toEqual(["http://c:4318", "https://c/otlp", "off"])
    for (const given of [...odd, "c:4318", "grpc://c", "http://", "http://user:pass@c", "http://c?token=x", "http://c#x"]) {
      expect(Setting.endpoint.read(given), String(given)).toBe(undefined)
    }
  })
})

describe("pairs", () => {
  it("are names and values, percent-encoded", () => {
    expect(Setting.pairsOf(" a = 1 , b-c.d=x%20y=%C3%BC,,e=, f=Bearer x")).toEqual({ a: "1", "b-c.d": "x y=ü", e: "", f: "Bearer x" })
    expect(["none", "a=1"].map(Setting.pairs.read)).toEqual(["", "a=1"])
    expect(["", "a=1"].map(Setting.pairs.show)).toEqual(["none", "a=1"])
    for (const given of ["a", "=1", "a b=1", "a=%zz", "a=%0d%0aX: y", "a=1;b=2", "a=\"1\"", 1, ""]) expect(Setting.pairs.read(given), String(given)).toBe(undefined)
  })
})

describe("secret", () => {
  const kind = Setting.secret(Setting.pairs)
  it("is shown to nobody", () => {
    const value = kind.read("a=s3cret\n")
    expect(value && Redacted.value(value)).toBe("a=s3cret")
    expect([value === undefined ? "" : kind.show(value), String(value), JSON.stringify(value), inspect(value)].join()).not.toContain("s3cret")
    expect([kind.read("nonsense"), kind.show(undefined), kind.isSecret]).toEqual([undefined, "none", true])
  })
})

describe("share", () => {
  it("is a number from 0 to 1", () => {
    expect([0, 1, 0.25, "0", "1", "0.1", "1.0"].map(Setting.share.read)).toEqual([0, 1, 0.25, 0, 1, 0.1, 1])
    for (const given of [...odd.filter((each) => each !== 0), 1.01, "1.1", "2", "10%", ".5", "1e-1"]) expect(Setting.share.read(given), String(given)).toBe(undefined)
  })
})

describe("text", () => {
  it("is one line", () => {
    const { read } = Setting.text("NAME")
    expect(["a", "a b", "ü".repeat(255)].map(read)).toEqual(["a", "a b", "ü".repeat(255)])
    for (const given of ["", " a", "a ", "a\nb", "a\0", "x".repeat(256), 1]) expect(read(given)).toBe(undefined)
  })
})

it("headers of HTTP are pairs that a request may have", () => {
  const { read } = Setting.headers
  expect(["authorization=Bearer%20x", "a=b,c=d", "none", "x=caf%C3%A9"].map(read)).toEqual(["authorization=Bearer%20x", "a=b,c=d", "", "x=caf%C3%A9"])
  expect(["authorization=Bearer%20%E2%82%AC", "a b=c", "nothing"].map(read)).toEqual([undefined, undefined, undefined])
})
