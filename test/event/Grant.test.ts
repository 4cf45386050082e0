import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as Grant from "../../src/event/Grant.ts"

const parsed = (text: string) => Result.getOrThrow(EventPattern.parse(text))

// ------------------------------------------------------------------------------------- a reference without any cleverness

/** How specific a pattern is, segment by segment: a name, one `*`, `*` at the end. */
const ranks = (pattern: string) =>
  pattern.split(":").map((part, at, parts) => part !== "*" ? 2 : at < parts.length - 1 ? 1 : 0)

const moreSpecific = (a: string, b: string): number => {
  const [mine, other] = [ranks(a), ranks(b)]
  for (const [at, rank] of mine.entries()) {
    const difference = rank - (other[at] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

const decided = (rules: ReadonlyArray<Grant.Rule>, action: Grant.Action, name: string): boolean | undefined => {
  const matching = rules.filter((rule) => rule.actions.includes(action) && parsed(rule.pattern).matches(name))
  const [first] = matching.toSorted((a, b) => moreSpecific(b.pattern, a.pattern))
  if (first === undefined) return undefined
  return matching.filter(({ pattern }) => pattern === first.pattern).every(({ allow }) => allow)
}

const allowed = (own: ReadonlyArray<Grant.Rule>, profiles: ReadonlyArray<ReadonlyArray<Grant.Rule>>, action: Grant.Action, name: string) =>
  decided(own, action, name) ?? profiles.some((profile) => decided(profile, action, name) === true)

// A small alphabet, so that patterns and names meet often.
const textOf = (parts: ReadonlyArray<string>) => parts.join(":")
const Name = Schema.Array(Schema.Literals(["a", "b", "c"])).check(Schema.isBetweenLength(1, 4))
const Pattern = Schema.Array(Schema.Literals(["a", "b", "*"])).check(Schema.isBetweenLength(1, 4))
const Rules = Schema.Array(Schema.Struct({ parts: Pattern, actions: Schema.Array(Grant.Action), allow: Schema.Boolean }))
  .check(Schema.isMaxLength(8))
const Profiles = Schema.Array(Rules).check(Schema.isMaxLength(3))
const rulesOf = (given: typeof Rules.Type): ReadonlyArray<Grant.Rule> =>
  given.map(({ actions, allow, parts }) => ({ pattern: textOf(parts), actions, allow }))
const profilesOf = (given: typeof Profiles.Type) => given.map(rulesOf)
const runs = { arbitrary: { runs: 500 } }
/** Every name of up to five segments over an alphabet that is larger than that of the rules. */
const universe = (() => {
  let names: ReadonlyArray<string> = [""]
  const all: Array<string> = []
  for (let length = 1; length <= 5; length++) {
    names = names.flatMap((prefix) => ["a", "b", "z"].map((part) => prefix === "" ? part : `${prefix}:${part}`))
    all.push(...names)
  }
  return all
})()

describe("rights", () => {
  it.prop("are what a naive reference says, also when asked again", {
    rules: Rules, profiles: Profiles, questions: Schema.Array(Schema.Struct({ action: Grant.Action, name: Name }))
  }, ({ profiles, questions, rules }) => {
    const rights = Grant.rights(Grant.rules(rulesOf(rules)), profilesOf(profiles).map(Grant.rules))
    for (const { action, name } of [...questions, ...questions]) {
      expect(rights.allows(action, textOf(name)), `${action} ${textOf(name)}`).toBe(allowed(rulesOf(rules), profilesOf(profiles), action, textOf(name)))
    }
  }, runs)

  const oneQuestion = { rules: Rules, profiles: Profiles, action: Grant.Action, parts: Pattern }

  it.prop("what is passed on is never more than what one has", oneQuestion, ({ action, parts, profiles, rules }) => {
    const rights = Grant.rights(Grant.rules(rulesOf(rules)), profilesOf(profiles).map(Grant.rules))
    const pattern = parsed(textOf(parts))
    if (!rights.covers(action, pattern)) return
    for (const name of universe) if (pattern.matches(name)) expect(rights.allows(action, name), `${pattern.text} ${name}`).toBe(true)
  }, runs)

  it.prop("a pattern is out of reach exactly where nothing that it matches is allowed", oneQuestion, ({ action, parts, profiles, rules }) => {
    const rights = Grant.rights(Grant.rules(rulesOf(rules)), profilesOf(profiles).map(Grant.rules))
    const pattern = parsed(textOf(parts))
    expect(rights.reaches(action, pattern)).toBe(universe.some((name) => pattern.matches(name) && rights.allows(action, name)))
  }, runs)

  it.prop("which rule decided is what decided", { rules: Rules, action: Grant.Action, name: Name }, ({ action, name, rules }) => {
    const deciding = Grant.rules(rulesOf(rules)).deciding(textOf(name), action)
    expect(deciding?.allow).toBe(decided(rulesOf(rules), action, textOf(name)))
    if (deciding !== undefined) expect(parsed(deciding.pattern).matches(textOf(name))).toBe(true)
  }, runs)

  it("names that nobody could have meant are denied, and break nothing", () => {
    const rights = Grant.rights(Grant.rules(Grant.profiles.restricted), [])
    for (const name of ["", ":", "*", "system:*", "system:health:", ":system:health", "system:health\u0000", "SYSTEM:HEALTH", "__proto__", "constructor"]) {
      for (const action of Grant.actions) expect(rights.allows(action, name), name).toBe(false)
    }
    expect(rights.allows("call", "system:health")).toBe(true)
    expect(rights.allows("emit", "system:health")).toBe(false)
  })

  it("a flood of foreign names is forgotten again, and decided alike", () => {
    const rights = Grant.rights(Grant.rules(Grant.profiles.standard), [])
    for (let n = 0; n < 25_000; n++) expect(rights.allows("subscribe", `order:n${n}`)).toBe(true)
    expect(rights.allows("call", "system:shutdown")).toBe(false)
  })
})

describe("profiles", () => {
  it("each allows what the one before does", () => {
    const rights = Grant.profileNames.map((profile) => Grant.rights(Grant.rules(Grant.profiles[profile]), []))
    for (const [at, less] of rights.entries()) {
      const more = rights[at + 1]
      if (more === undefined) break
      for (const name of [...Object.keys(Grant.builtins), "order:placed", "com.example.thing", "node:join"]) {
        for (const action of Grant.actions) if (less.allows(action, name)) expect(more.allows(action, name), `${at} ${action} ${name}`).toBe(true)
      }
    }
  })

  it("their patterns are patterns; what is missing in the table is for the owner alone", () => {
    for (const rules of [...Object.values(Grant.profiles), Grant.known]) for (const { pattern } of rules) expect(Grant.isPattern(pattern)).toBe(true)
    for (const profile of ["restricted", "standard", "trusted"] as const) {
      const rights = Grant.rights(Grant.rules(Grant.profiles[profile]), [])
      for (const action of ["call", "emit", "stream"] as const) expect(rights.allows(action, "node:drain"), `${profile} ${action}`).toBe(false)
    }
  })
})

describe("principals", () => {
  it("are words of a few signs", () => {
    for (const text of ["local-http", "token:till-1a2b3c4d", "node:a.b", "ann_2"]) expect(Grant.isPrincipal(text), text).toBe(true)
    for (const text of ["", "Ann", "a b", "a;rm -rf", "-a", "a:", "é", "a\n", "a".repeat(129), "__proto__"]) expect(Grant.isPrincipal(text), text).toBe(false)
  })
})
