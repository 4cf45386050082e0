import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventName from "../../src/event/EventName.ts"

const ok = (name: string) => Result.isSuccess(EventName.parse(name))
const problem = (name: string) => {
  const result = EventName.parse(name)
  return Result.isFailure(result) ? result.failure.message : "none"
}

describe("parse", () => {
  it("accepts the grammar", () => {
    for (const name of ["a:b", "stock:reserve", "event_log:query", "a1:b-c", "a:b_c_d-e:f2", "a:b:c:d:e:f:g:h"]) {
      expect(EventName.parse(name)).toEqual(Result.succeed(name))
    }
  })

  it("refuses everything else and says why", () => {
    expect(problem("stock")).toContain("needs a namespace")
    expect(problem("a:b:c:d:e:f:g:h:i")).toContain("9 segments")
    for (const name of ["", ":", "a:", ":b", "a::b", "A:b", "a:B", "1a:b", "a:1b", "a_:b", "a:_b", "a--b:c", "a:b-", "a:b c", "a:b.c", "ä:b", "a:*", "a:b\n"]) {
      expect(ok(name), name).toBe(false)
    }
    expect(problem("stock:Reserve")).toBe(
      "\"stock:Reserve\" is not an event name: the segment \"Reserve\" must be lower-case letters, digits, \"_\" or \"-\", and start with a letter"
    )
  })

  it("allows sixty characters and no more", () => {
    expect(ok(`a:${"b".repeat(58)}`)).toBe(true)
    expect(problem(`a:${"b".repeat(59)}`)).toContain("61 characters, at most 60")
  })

  it("throws where a wrong name is defined", () => {
    expect(() => Event.make("Stock:reserve")).toThrow(TypeError)
    expect(() => Event.fact("stock:Reserved", { payload: {}, streamId: () => "s" })).toThrow("stock:Reserved")
  })

  it.prop("never throws, and what it accepts has the grammar", [Schema.String], ([text]) => {
    const accepted = ok(text)
    const oracle = text.length <= 60 && /^[a-z][a-z0-9]*([_-][a-z0-9]+)*(:[a-z][a-z0-9]*([_-][a-z0-9]+)*){1,7}$/.test(text)
    expect(accepted).toBe(oracle && !text.endsWith("\n"))
  })
})

describe("namespace", () => {
  it("is what stands before the first colon", () => {
    expect(EventName.namespace("stock:level:changed")).toBe("stock")
    expect(EventName.namespace("com.example.order")).toBe("com.example.order")
  })

  it("has sixteen names of its own", () => {
    expect(EventName.reserved.size).toBe(18)
    for (const name of EventName.reserved) expect(ok(`${name}:x`), name).toBe(true)
  })
})

describe("nearest", () => {
  const names = ["stock:reserve", "stock:reserved", "stock:release", "order:place", "order:placed", "a:b"]

  it("finds a swap, a missing, an additional and a wrong character, nearest first", () => {
    expect(EventName.nearest("stock:resevre", names)[0]).toBe("stock:reserve")
    expect(EventName.nearest("stock:resrve", names)).toEqual(["stock:reserve", "stock:reserved", "stock:release"])
    expect(EventName.nearest("order:placeed", names).slice(0, 2).toSorted()).toEqual(["order:place", "order:placed"])
    expect(EventName.nearest("orter:place", names)[0]).toBe("order:place")
  })

  it("counts a swap of neighbours as one edit, and breaks ties by name", () => {
    expect(EventName.nearest("xyab", ["aaab", "xyba"])).toEqual(["xyba", "aaab"])
    expect(EventName.nearest("abc", ["abd", "abb"])).toEqual(["abb", "abd"])
  })

  it("takes a beginning for near, and a stranger for nothing", () => {
    expect(EventName.nearest("stock", names)).toEqual(["stock:release", "stock:reserve", "stock:reserved"])
    expect(EventName.nearest("completely:different", names)).toEqual([])
    expect(EventName.nearest("stock:reserve", [])).toEqual([])
  })

  it("takes capitals for small letters, and answers with the candidates as they are", () => {
    expect(EventName.nearest("Stock:Reserve", names)[0]).toBe("stock:reserve")
    expect(EventName.nearest("ksi_hom", ["KSI_HOME", "PATH"])).toEqual(["KSI_HOME"])
  })

  it("answers with as many as are asked for", () => {
    expect(EventName.nearest("stock:reserve", names, 1)).toEqual(["stock:reserve"])
  })

  it.prop("one edit is always found", [Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 12 }))], ([at]) => {
    const name = "stock:reserve"
    expect(EventName.nearest(name.slice(0, at) + name.slice(at + 1), [name])).toEqual([name])
    expect(EventName.nearest(`${name.slice(0, at)}q${name.slice(at)}`, [name])).toEqual([name])
  })
})
