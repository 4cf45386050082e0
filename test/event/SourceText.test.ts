import { describe, expect, it } from "@effect/vitest"
import { Option } from "effect"
import { isIdentifier, literal, variables, words } from "../../src/event/SourceText.ts"

describe("SourceText", () => {
  it("values are written as a programmer writes them, or not at all", () => {
    const cases: ReadonlyArray<readonly [value: unknown, text: string | undefined]> = [
      [{ a: 1, "b-c": [true, null, undefined] }, "{ a: 1, \"b-c\": [true, null, undefined] }"],
      [-0, "-0"], [Infinity, "Infinity"], [NaN, "NaN"], [12n, "12n"], ["a\"\n\u2028\ud800", "\"a\\\"\\n\u2028\\ud800\""],
      [new Date(5), "new Date(\"1970-01-01T00:00:00.005Z\")"], [new Date(NaN), "new Date(NaN)"],
      [new Map([[1, 2]]), undefined], [{ deep: [new Uint8Array(2)] }, undefined], [JSON.parse("{\"__proto__\":1}"), undefined], [() => 1, undefined]
    ]
    for (const [value, text] of cases) expect(literal(value)).toBe(text)
  })

  it("events are called by their last part, or by all of it where that is taken", () => {
    expect([...variables(["stock:reserve", "pay:charge", "card:charge", "a:put-in_it"]).values()]).toEqual(["Reserve", "PayCharge", "CardCharge", "PutInIt"])
    // `b:date` must not stand in for the `Date` of what else is written, and nothing is called the same as something else.
    expect([...variables(["a:put", "b:date", "x:pay-charge", "pay:charge", "card:charge", "a-b:c", "a:b-c", "b:c", "2nd \"total\"", "€"]).values()])
      .toEqual(["Put", "BDate", "PayCharge", "PayCharge2", "CardCharge", "ABC", "BC", "BC2", "_2ndTotal", "_"])
  })

  it("what an option holds is written as one, and a leaf may be written in its own way", () => {
    expect([literal(Option.some({ a: 1 })), literal(Option.none()), literal(Option.some(new Map()))]).toEqual(["Option.some({ a: 1 })", "Option.none()", undefined])
    expect(literal(["x", { y: "z" }], (text) => text === "z" ? "ref" : undefined)).toBe("[\"x\", { y: ref }]")
  })

  it("names are words, and keys are quoted where they must be", () => {
    expect(["stock", "order-line", "pay_out", "2nd"].map(words)).toEqual(["Stock", "OrderLine", "PayOut", "_2nd"])
    expect(["a", "$a_1", "a-b", "1a", ""].map(isIdentifier)).toEqual([true, true, false, false, false])
    // `Effect` is what a test speaks of.
    expect([...variables(["a:effect", "a:ksi-test"]).values()]).toEqual(["AEffect", "AKsiTest"])
  })
})
