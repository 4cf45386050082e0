// Scenarios that were recorded, as the text of a test file.
import type { ActivityRecord } from "../../bus/Activity.ts"
import type * as Event from "../../event/Event.ts"
import * as EventName from "../../event/EventName.ts"
import * as EventRegistry from "../../event/EventRegistry.ts"
import * as Grant from "../../event/Grant.ts"
import * as Json from "../../event/Json.ts"
import { isIdentifier, literal, variables, words } from "../../event/SourceText.ts"

/** A fact: as the payload that it has today, and as JSON. */
export interface Fact {
  readonly event: Event.AnyFact
  readonly payload: unknown
  readonly data: unknown
  readonly id: string
}

/** What began it all. */
export interface Root {
  readonly event: Event.Any
  readonly payload: unknown
  readonly data: unknown
  readonly id: string
  /** Whether the payload is one. What its schema does not take is asked as it was. */
  readonly isValid: boolean
  /** Milliseconds since 1970. */
  readonly timestamp: number
  readonly principal: string
  /** Of a request. */
  readonly record: ActivityRecord | undefined
}

/** What was there, what was asked, what came of it. */
export interface Scenario {
  readonly root: Root
  readonly given: ReadonlyArray<Fact>
  readonly emitted: ReadonlyArray<Fact>
  /** Names of facts that are left out, for nobody here knows them. */
  readonly unknown: ReadonlyArray<string>
  /** Whether all that came of it is among `emitted`. */
  readonly isWhole: boolean
  /** Everything that was asked or said in it. */
  readonly names: ReadonlyArray<string>
  /** Ids of it all, which will be others the next time. */
  readonly ids: ReadonlySet<string>
  /** When it had ended, in milliseconds since 1970. */
  readonly until: number
}

/** What the file imports. */
interface Imports {
  readonly app: string
  readonly groups: ReadonlyArray<string> | undefined
  /** Chains of causes that are left out, for what began them is not recorded. */
  readonly left: number
}

const comment = (text: string): string => `// ${text.replaceAll(/[\p{Cc}\u2028\u2029]/gu, " ")}`

// ------------------------------------------------------------------------------------------------------ what is made up

const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/i
// A clock of somebody else may be a little off.
const slackMillis = 2000

/** Whether a value has something in it that a handler made up: an id, or the time at which it ran. */
const isMadeUp = (value: unknown, scenario: Scenario, known: string): boolean => {
  const { ids, root, until } = scenario
  if (typeof value === "object" && value !== null) return Object.values(value).some((each) => isMadeUp(each, scenario, known))
  if (typeof value !== "string" && typeof value !== "number") return false
  if (known.includes(JSON.stringify(value))) return false
  const moment = typeof value === "number" ? value : /^\d{4}-\d\d-\d\dT/.test(value) ? Date.parse(value) : NaN
  if (moment >= root.timestamp - slackMillis && moment <= until + slackMillis) return true
  return typeof value === "string" && (uuid.test(value) || ids.has(value))
}

// ------------------------------------------------------------------------------------------------------------- writing

/** Tags of the errors that an event, or its middleware, declares. */
const declares = (event: Event.AnyRequest, tag: string): boolean =>
  [event.error, ...event.middleware.map(({ error }) => error)].some((error) =>
    JSON.stringify(EventRegistry.schemas({ ...event, error }).error).includes(JSON.stringify(tag)))

class Writer {
  readonly used = new Set<string>()
  usesSchema = false
  private readonly called: ReadonlyMap<string, string>

  constructor(names: ReadonlyArray<string>) {
    this.called = variables(names)
  }

  private name({ name }: Event.Any): string {
    this.used.add(name)
    return this.called.get(name) ?? words(name)
  }

  private value(event: Event.Any, payload: unknown, data: unknown): string {
    const text = literal(payload)
    if (text !== undefined) return text
    this.usesSchema = true
    return `Schema.decodeSync(Schema.toCodecJson(${this.name(event)}.payload))(${JSON.stringify(data)})`
  }

  fact({ data, event, payload }: Fact): string {
    return `${this.name(event)}.of(${this.value(event, payload, data)})`
  }

  /** What came of it: without the fields that will be others the next time. */
  private emitted(fact: Fact, scenario: Scenario, known: string): readonly [text: string, madeUp: ReadonlyArray<string>] {
    const { data, event, payload } = fact
    const isStruct = Json.isObject(data) && Json.isObject(payload) && "fields" in event.payload
    const madeUp = isStruct ? Object.keys(data).filter((key) => isMadeUp(data[key], scenario, known)) : []
    if (!isStruct || madeUp.length === 0) return [this.fact(fact), []]
    const rest = Object.fromEntries(Object.entries(payload).filter(([key]) => !madeUp.includes(key)))
    const text = literal(rest)
    // Of what has no words of its own all of it is told; it will be another.
    return text === undefined ? [this.fact(fact), madeUp] : [`KsiTest.like(${this.name(event)}, ${text})`, madeUp]
  }

  /** Facts as arguments: one in the line, several in lines of their own. */
  private call(word: string, args: ReadonlyArray<string>): ReadonlyArray<string> {
    const [only = ""] = args
    return args.length < 2 ? [`.${word}(${only})`] : [`.${word}(`, ...args.map((text, nth) => `  ${text}${nth === args.length - 1 ? "" : ","}`), ")"]
  }

  private asked({ data, event, isValid, payload }: Root): string {
    if (event.kind === "fact") return `.when(${this.name(event)}.of(${this.value(event, payload, data)}))`
    const text = isValid ? this.value(event, payload, data) : `(${literal(data) ?? JSON.stringify(data)}) as never`
    return `.when(${this.name(event)}, ${text})`
  }

  private outcome({ event, record }: Root): ReadonlyArray<string> {
    if (record === undefined || event.kind === "fact" || record.outcome === "success") return []
    const { error = "", outcome, reason } = record
    if (outcome !== "failure") return [comment(`when it was recorded, it ${outcome === "defect" ? "died" : "was interrupted"}: ${error}`)]
    if (reason === undefined) return [comment(`when it was recorded, it failed: ${error}`)]
    return [declares(event, reason) ? `.thenFails(${JSON.stringify(reason)})` : `.thenRefused(${JSON.stringify(reason)})`]
  }

  private who({ names, root: { principal, record } }: Scenario): ReadonlyArray<string> {
    if (principal === Grant.owner) return []
    const grants = record?.reason === "PermissionDenied" ? "" : `, { grants: [${names.map((name) => JSON.stringify(name)).join(", ")}] }`
    return [`.as(${JSON.stringify(principal)}${grants})`]
  }

  test(scenario: Scenario): ReadonlyArray<string> {
    const { emitted, given, isWhole, root, unknown } = scenario
    const known = JSON.stringify([root.data, given.map(({ data }) => data)])
    const facts = emitted.map((fact) => this.emitted(fact, scenario, known))
    const madeUp = [...new Set(facts.flatMap(([, fields]) => fields))]
    const at = new Date(root.timestamp).toISOString()
    return [
      `it.effect(${JSON.stringify(`${root.event.name} as recorded at ${at}`)}, () =>`,
      "  KsiTest.scenario",
      ...[
        ...(unknown.length === 0 ? [] : [comment(`left out, for the app does not know them: ${unknown.join(", ")}`)]),
        ...(given.length === 0 ? [] : this.call("given", given.map((fact) => this.fact(fact)))),
        ...this.who(scenario),
        this.asked(root),
        ...this.outcome(root),
        ...(madeUp.length === 0 ? [] : [comment(`made up by a handler, and another the next time: ${madeUp.join(", ")}`)]),
        ...this.call(isWhole ? "thenEmits" : "thenEmitsAmongOthers", facts.map(([text]) => text)),
        `.pipe(Effect.provide(KsiTest.layer(app, { startAt: Date.parse(${JSON.stringify(at)}) }))))`
      ].map((line) => `    ${line}`)
    ]
  }
}

const keyOf = (name: string): string => isIdentifier(name) ? name : JSON.stringify(name)

/** The text of a test file. */
export const write = (scenarios: ReadonlyArray<Scenario>, { app, groups, left }: Imports): string => {
  const names = [...new Set(scenarios.flatMap(({ emitted, given, root }) => [root, ...given, ...emitted].map(({ event }) => event.name)))].toSorted()
  const writer = new Writer(names)
  const tests = scenarios.map((scenario) => writer.test(scenario).join("\n"))
  const used = names.filter((name) => writer.used.has(name))
  const exported = groups ?? [...new Set(used.map(EventName.namespace))].map(words)
  const called = variables(names)
  // A group may be called like one of its events.
  const local = (group: string) => `${group}Events`
  return [
    "// Made of what was recorded: the facts that were there, what was asked, and what came of it.",
    ...(left === 0 ? [] : [`// Left out: what ${left} ${left === 1 ? "request" : "requests"} caused that ${left === 1 ? "is" : "are"} not recorded any more.`]),
    "import { it } from \"@effect/vitest\"",
    `import { Effect${tests.some((text) => text.includes("Option.")) ? ", Option" : ""}${writer.usesSchema ? ", Schema" : ""} } from "effect"`,
    "import { KsiTest } from \"ksi/testing\"",
    `import app, { ${exported.map((group) => `${group} as ${local(group)}`).join(", ")} } from ${JSON.stringify(app)}`,
    "",
    `const events = { ${exported.map((group) => `...${local(group)}.events`).join(", ")} }`,
    `const { ${used.map((name) => `${keyOf(name)}: ${called.get(name) ?? words(name)}`).join(", ")} } = events`,
    "",
    tests.join("\n\n"),
    ""
  ].join("\n")
}
