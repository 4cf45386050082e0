import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as FactQuery from "../../src/event/FactQuery.ts"

const labels = (name: string, streamId: string, ksitags?: string): FactQuery.Labels => ({ name, streamId, attributes: ksitags === undefined ? {} : { ksitags } })
const matches = (selection: FactQuery.Selection, fact: FactQuery.Labels) => Result.getOrThrow(FactQuery.compile(selection)).matches(fact)

/** Why it is refused: the reason, and what is wrong where. */
const refused = (selection: object, max?: number) => {
  // Not every program has a compiler behind it.
  const result = FactQuery.compile(selection as FactQuery.Selection, max)
  if (Result.isSuccess(result)) return "taken"
  const reason = result.failure
  return reason._tag === "PayloadInvalid" ? reason.problems.map(({ path }) => path).join() : reason._tag
}

describe("a query", () => {
  const placed = labels("order:placed", "order-1", "shop:1,vip")
  const rows: ReadonlyArray<readonly [FactQuery.Item, boolean]> = [
    [{}, true],
    [{ names: ["order:placed"] }, true],
    [{ names: ["order"] }, false],
    [{ names: ["order:*"] }, true],
    [{ names: ["*:placed"] }, true],
    [{ names: ["stock:*", "order:placed"] }, true],
    [{ names: ["order:*:more"] }, false],
    [{ streamIds: ["order-2", "order-1"] }, true],
    [{ streamIds: ["order-"] }, false],
    [{ tags: ["vip"] }, true],
    [{ tags: ["vip", "shop:1"] }, true],
    [{ tags: ["vip", "shop:2"] }, false],
    [{ names: ["order:*"], streamIds: ["order-1"], tags: ["shop:1"] }, true],
    [{ names: ["stock:*"], streamIds: ["order-1"], tags: ["shop:1"] }, false],
    [{ names: ["order:*"], streamIds: ["order-2"], tags: ["shop:1"] }, false],
    [{ names: ["order:*"], streamIds: ["order-1"], tags: ["shop:2"] }, false]
  ]
  for (const [item, expected] of rows) it(`${JSON.stringify(item)} ${expected ? "matches" : "does not match"}`, () => expect(matches({ query: [item] }, placed)).toBe(expected))

  it("matches where one of its items does", () => {
    expect(matches({ query: [{ names: ["a:b"] }, { tags: ["vip"] }] }, placed)).toBe(true)
    expect(matches({ query: [{ names: ["a:b"] }, { tags: ["none"] }] }, placed)).toBe(false)
  })

  it("and a pattern must both match; without a query the pattern alone", () => {
    expect(matches({ pattern: "order:*" }, placed)).toBe(true)
    expect(matches({ pattern: "stock:*", query: [{ tags: ["vip"] }] }, placed)).toBe(false)
    expect(matches({ pattern: "order:*", query: [{ names: ["order:paid"] }] }, placed)).toBe(false)
    expect(matches({ pattern: "*", query: [{ names: ["order:placed"] }] }, placed)).toBe(true)
    expect(matches({}, placed)).toBe(true)
  })

  it("takes names of other systems as they are", () => {
    expect(matches({ query: [{ names: ["com.example..odd::one"] }] }, labels("com.example..odd::one", "s"))).toBe(true)
  })
})

describe("compile", () => {
  it("refuses what is no query, and says where", () => {
    expect([
      refused({ query: [] }), refused({ query: "x" }), refused({ query: [5] }), refused({ query: [{ names: [] }] }), refused({ query: [{}, { tags: [] }] }),
      refused({ query: [{ streamIds: "a" }] }), refused({ query: [{ streamIds: ["a", ""] }] }), refused({ query: [{ tags: ["\ud800"] }] }),
      refused({ query: [{ types: ["a"] }] }), refused({ query: [{ names: ["a*"] }] }), refused({ pattern: "" }), refused({ query: [{ names: [5] }] })
    ]).toEqual([
      "query", "query", "query.0", "query.0.names", "query.1.tags", "query.0.streamIds", "query.0.streamIds.1", "query.0.tags.0", "query.0.types",
      "PatternInvalid", "PatternInvalid", "query.0.names.0"
    ])
  })

  it("counts every word, and every item", () => {
    const query = [{ names: ["a:b", "c:d"], tags: ["t"] }, { streamIds: ["s"] }]
    expect([refused({ query }, 6), refused({ query }, 5)]).toEqual(["taken", "LimitExceeded"])
  })
})
