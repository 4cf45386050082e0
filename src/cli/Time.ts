/**
 * `ksi time`: the state of every stream, or of one, at a position or an instant; what changed between two of them; the
 * first fact after which something holds; which fact gave a field its value; what would have been; where two projections
 * part.
 *
 * **Example**
 *
 * ```ts
 * Time.momentOf("41")                         // 41
 * Time.momentOf("2018-03-15T12:00:00Z")       // "2018-03-15T12:00:00Z"
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as EventPattern from "../event/EventPattern.ts"
import * as Json from "../event/Json.ts"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Cel from "../store/Cel.ts"
import * as TimeTravel from "../store/TimeTravel.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"
import * as TimeText from "./TimeText.ts"

/** Digits are a position; everything else is an instant, which the daemon reads. */
export const momentOf = (text: string): string | number => /^\d{1,15}$/.test(text) ? Number(text) : text

/** A stream's state as columns for people. */
export const columns = (item: JsonObject): ReadonlyArray<string> => [
  Output.textOf(item["streamId"]),
  `v${Output.textOf(item["version"])}`,
  Output.textOf(item["lastEvent"]),
  Output.textOf(item["timestamp"] ?? "-"),
  JSON.stringify(item["state"] ?? null)
]

/** Exactly the promised fields, in their order. */
const lineOf = (item: JsonObject): string => {
  const { lastEvent, lastEventId, state, streamId, timestamp, version } = item
  return JSON.stringify({ streamId, version, lastEvent, lastEventId, timestamp, state })
}

/** A moment in words; of a position beyond the last one, the last one. */
const momentText = Effect.fnUntraced(function*(remote: Remote.Remote, moment: string, recorded: boolean) {
  const position = momentOf(moment)
  if (typeof position === "string") return recorded ? `${moment}, by when facts were recorded` : moment
  const { position: last } = yield* remote.call("system:health", {})
  return typeof last === "number" && position >= last ? `position ${last} (the last)` : `position ${position}`
})

/** Refuses a moment that is none before anybody is asked. */
const check = (moment: string, command: string): Effect.Effect<void, Output.Usage> => {
  const parsed = TimeTravel.parseMoment(moment)
  return Result.isSuccess(parsed)
    ? Effect.void
    : Effect.fail(new Output.Usage({ message: parsed.failure, similar: [], next: `ksi time ${command} --help` }))
}

const streamFlag = Flag.String("stream").pipe(Flag.withDescription("Only this stream"))
const projection = Flag.String("projection").pipe(Flag.withDescription("How facts become state; default latest"), Flag.optional)
const recorded = Flag.Boolean("recorded").pipe(
  Flag.withDescription("With an instant: go by when facts were recorded here, not by when they happened"),
  Flag.withDefault(false)
)
const all = Flag.Boolean("all").pipe(Flag.withDescription("Also KSI's own streams (ksi-…)"), Flag.withDefault(false))
/** Says where the history of a stream begins, if that is not its beginning. */
const narrateBeginning = Effect.fnUntraced(function*(remote: Remote.Remote, stream: string) {
  if (yield* Output.Json) return
  const { firstVersion: first, isDeleted } = yield* remote.call("store:stream_info", { stream })
  if (isDeleted === true) yield* Output.narrate(`${stream} was deleted: its tombstone is all that is left`)
  else if (typeof first === "number" && first > 1) yield* Output.narrate(`facts of ${stream} before v${first} were removed: this is what those left say`)
})

const asOf = Flag.String("at").pipe(Flag.withDescription("As of this instant or position, or start; default now"), Flag.withMetavar("MOMENT"), Flag.optional)
const from = Flag.Int("from").pipe(Flag.withDescription("First position that may be found"), Flag.optional)
const to = Flag.Int("to").pipe(Flag.withDescription("Last position that may be found"), Flag.optional)

/** The fields that are given, of options and of switches that are on. */
const given = (fields: { readonly [name: string]: Option.Option<unknown> | boolean }): JsonObject =>
  Remote.given(Object.fromEntries(Object.entries(fields).map(([name, value]) =>
    [name, typeof value === "boolean" ? (value ? true : undefined) : Option.getOrUndefined(value)])))

/** How it is shown to whoever looks. */
const lookOf = ({ coloured, interactive, width }: Io["Service"]): TimeText.Look => ({ coloured: interactive && coloured, width })

/** Prints a text for each item, or a line of JSON; says how many there were. */
const tell = Effect.fnUntraced(function*<E, R>(
  items: Stream.Stream<JsonObject, E, R>,
  lineOf: (item: JsonObject) => string,
  toText: (item: JsonObject, look: TimeText.Look) => string
) {
  const io = yield* Io
  const json = yield* Output.Json
  const look = lookOf(io)
  let count = 0
  yield* Stream.runForEachArray(items, (page) => {
    count += page.length
    return io.write(page.map((item) => json ? `${lineOf(item)}\n` : toText(item, look)).join(""))
  })
  return count
})

const at = Command.make(
  "at",
  {
    moment: Argument.String("instant|position").pipe(
      Argument.withDescription("An RFC 3339 instant, as 2018-03-15T12:00:00Z, a date, a position, now or start")
    ),
    stream: streamFlag.pipe(Flag.optional),
    projection, recorded, all
  },
  Effect.fnUntraced(function*({ all, moment, projection, recorded, stream }) {
    yield* check(moment, "at")
    const remote = yield* Remote.connect
    let count = 0
    const items = Remote.pages(remote, "time:at", { at: momentOf(moment), ...given({ stream, projection, recorded, all }) }).pipe(
      Stream.mapArray((page) => {
        count += page.length
        return page
      })
    )
    // A line for each stream is for other programs; on a terminal most of its state would be cut off.
    if ((yield* Io).interactive) yield* tell(items, lineOf, TimeText.at(Option.isSome(stream)))
    else yield* Output.items(items, lineOf, columns)
    if (Option.isSome(stream)) yield* narrateBeginning(remote, stream.value)
    if (yield* Output.Json) return
    yield* Output.narrate(`${Output.counted(count, "stream")} as of ${yield* momentText(remote, moment, recorded)}`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("The state of every stream at a moment"),
  Command.withExamples([{ command: "ksi time at 2018-03-15T12:00:00Z --stream order-1" }])
)

// -------------------------------------------------------------------------------------------------------------- diff

const diff = Command.make(
  "diff",
  {
    a: Argument.String("a").pipe(Argument.withDescription("The first moment: an instant or a position")),
    b: Argument.String("b").pipe(Argument.withDescription("The second moment")),
    stream: streamFlag.pipe(Flag.optional),
    projection, recorded, all
  },
  Effect.fnUntraced(function*({ a, all, b, projection, recorded, stream }) {
    yield* check(a, "diff")
    yield* check(b, "diff")
    const remote = yield* Remote.connect
    const items = Remote.pages(remote, "time:diff", {
      from: momentOf(a), to: momentOf(b), ...given({ stream, projection, recorded, all })
    })
    // Of one stream it is a JSON Patch as it is; of many, a line says whose.
    const lineOf = ({ patch, streamId }: JsonObject) => JSON.stringify(Option.isSome(stream) ? patch : { streamId, patch })
    const count = yield* tell(items, lineOf, TimeText.diff)
    if (yield* Output.Json) return
    const moments = `${yield* momentText(remote, a, recorded)} and ${yield* momentText(remote, b, recorded)}`
    yield* Output.narrate(Option.isSome(stream) ? `between ${moments}` : `${Output.counted(count, "stream")} changed between ${moments}`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("What changed between two moments, as a JSON Patch with --json"),
  Command.withExamples([
    { command: "ksi time diff 40 60 --stream order-1" },
    { command: "ksi time diff 2018-03-01 2018-04-01", description: "of every stream" }
  ])
)

// -------------------------------------------------------------------------------------------------------------- find

/** Exactly the promised fields, in their order; of all streams also whose it is. */
const foundLine = (isOfOne: boolean) => (item: JsonObject): string => {
  const { after, before, event, id, position, streamId, timestamp, version } = item
  return JSON.stringify({ ...(isOfOne ? {} : { streamId }), position, id, event, version, timestamp, before, after })
}

const compiles = (where: string): Effect.Effect<void, Output.Usage> =>
  Cel.compile(where).pipe(
    Effect.mapError((problem) =>
      new Output.Usage({ message: `--where: ${Cel.problemText(problem)}${TimeText.pointed(where, problem.at)}`, similar: [], next: "ksi time find --help" })),
    Effect.asVoid
  )

/** An expression that cannot be decided for some fact, with the place in it: the daemon says it in one line. */
const undecided = (where: string) => (error: Remote.RemoteError): Remote.RemoteError | Output.Usage => {
  if (!KsiError.is(error) || error.reason._tag !== "PayloadInvalid") return error
  const problem = error.reason.problems.find(({ path }) => path === "where")?.problem
  if (problem === undefined) return error
  const [, column] = /at column (\d+)$/.exec(problem) ?? []
  const place = TimeText.pointed(where, column === undefined ? undefined : Number(column) - 1)
  const next = problem.includes("no such key: ")
    ? "say which are meant with --stream, --prefix or --pattern, or ask first, as in has(state.total) && state.total > 100"
    : "ksi time find --help"
  return new Output.Usage({ message: `--where: ${problem}${place}`, similar: [], next })
}

const find = Command.make(
  "find",
  {
    where: Flag.String("where").pipe(
      Flag.withDescription("A condition in CEL over state (after the fact), event (name, id, time, position, version) and data"),
      Flag.withMetavar("CEL")
    ),
    stream: streamFlag.pipe(Flag.optional),
    monotone: Flag.Boolean("monotone").pipe(
      Flag.withDescription("Once it holds it goes on holding: found by bisecting; it may ask for state only"),
      Flag.withDefault(false)
    ),
    prefix: Flag.String("prefix").pipe(Flag.withDescription("Only streams whose id starts like this"), Flag.optional),
    pattern: Flag.String("pattern").pipe(
      Flag.withDescription("Only facts of events of this pattern may be found, as 'order:*'"), Flag.optional
    ),
    from, to, projection
  },
  Effect.fnUntraced(function*({ from, monotone, pattern, prefix, projection, stream, to, where }) {
    yield* compiles(where)
    const remote = yield* Remote.connect
    const named = Option.map(pattern, EventPattern.said)
    const items = Remote.pages(remote, "time:find", { where, ...given({ stream, prefix, pattern: named, monotone, from, to, projection }) }).pipe(
      Stream.mapError(undecided(where))
    )
    const count = yield* tell(items, foundLine(Option.isSome(stream)), TimeText.found)
    if (count > 0) return
    const streams = Option.match(prefix, { onNone: () => "any stream", onSome: (text) => `any stream ${text}…` })
    const place = Option.getOrElse(stream, () => streams)
    const of = Option.match(named, { onNone: () => "", onSome: (text) => ` of ${text}` })
    return yield* KsiError.fail(new KsiError.NotFound({ what: `fact${of} after which`, id: where, similar: [], detail: `holds in ${place}` }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("The first fact after which something holds; exit code 3 when nothing does"),
  Command.withExamples([
    { command: "ksi time find --stream order-1 --where 'state.total > 100'" },
    { command: "ksi time find --where 'has(data.coupon)' --pattern order:paid", description: "in any stream" },
    { command: "ksi time find --where 'state.total > 100' --prefix order-", description: "in those of one kind" }
  ])
)

// ------------------------------------------------------------------------------------------------------------- blame

const blameLine = (item: JsonObject): string => {
  const { event, field, id, position, timestamp, value } = item
  return JSON.stringify({ field, position, id, event, timestamp, value })
}

const blame = Command.make(
  "blame",
  {
    field: Argument.String("field").pipe(
      Argument.withDescription("This field and what is in it, as lines[1].sku or /lines/1/sku"), Argument.optional
    ),
    stream: streamFlag.pipe(Flag.withDescription("The stream's id")),
    at: asOf,
    projection, recorded
  },
  Effect.fnUntraced(function*({ at, field, projection, recorded, stream }) {
    if (Option.isSome(at)) yield* check(at.value, "blame")
    const remote = yield* Remote.connect
    const items = Remote.pages(remote, "time:blame", { stream, ...given({ at: Option.map(at, momentOf), field, projection, recorded }) })
    const io = yield* Io
    if (!io.interactive || (yield* Output.Json)) yield* Output.items(items, blameLine, TimeText.blamed, ["field", "value", "position", "event", "time"])
    else yield* io.write(TimeText.blame(yield* Stream.runCollect(items), lookOf(io)))
    yield* narrateBeginning(remote, stream)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Which fact gave each field of a stream's state its value"),
  Command.withExamples([{ command: "ksi time blame --stream order-1" }, { command: "ksi time blame --stream order-1 total" }])
)

// ------------------------------------------------------------------------------------------------------------ branch

const wrongEdit = (message: string) => Effect.fail(new Output.Usage({ message, similar: [], next: "ksi time branch --help" }))

/** Digits are a position; everything else is an id. */
const targetOf = (word: string): string | number => /^\d{1,15}$/.test(word) ? Number(word) : word

const jsonOf = (flag: string, text: string): Effect.Effect<unknown, Output.Usage> => {
  const parsed = Json.parseResult(text)
  return Result.isSuccess(parsed) ? Effect.succeed(parsed.success) : wrongEdit(`--${flag}: ${JSON.stringify(text)} is no JSON: ${parsed.failure}`)
}

/** The edits that a command line says, drops first. */
export const editsOf = Effect.fnUntraced(function*(said: {
  readonly drop: ReadonlyArray<string>
  readonly replace: ReadonlyArray<string>
  readonly insert: ReadonlyArray<string>
}): Effect.fn.Return<ReadonlyArray<JsonObject>, Output.Usage> {
  const edits: Array<JsonObject> = said.drop.map((word) => ({ drop: targetOf(word) }))
  for (const text of said.replace) {
    const [, target, data] = /^(\S+)\s+(.+)$/s.exec(text) ?? []
    if (target === undefined || data === undefined) return yield* wrongEdit("--replace takes a position or an id, and data: --replace '41 {\"total\":5}'")
    edits.push({ replace: targetOf(target), data: yield* jsonOf("replace", data) })
  }
  for (const text of said.insert) {
    const [, after, name, data] = /^(\d{1,15})\s+(\S+)(?:\s+(.+))?$/s.exec(text) ?? []
    if (after === undefined || name === undefined) return yield* wrongEdit("--insert takes a position, a name, and data: --insert '40 order:noted {\"text\":\"x\"}'")
    edits.push({ insert: { name, ...(data === undefined ? {} : { data: yield* jsonOf("insert", data) }) }, after: Number(after) })
  }
  return edits
})

const many = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(`${description}; may be repeated`), Flag.withMetavar(metavar), Flag.atLeast(0))

const branch = Command.make(
  "branch",
  {
    drop: many("drop", "FACT", "A fact that did not happen: its position or id"),
    replace: many("replace", "'FACT DATA'", "A fact that had other data, as '41 {\"total\":5}'"),
    insert: many("insert", "'POSITION NAME DATA'", "A fact that happened right after a position, as '40 order:noted {}'; needs --stream"),
    at: asOf,
    stream: streamFlag.pipe(Flag.optional),
    projection,
    with: Flag.String("with").pipe(Flag.withDescription("The projection that reads the branch; default the same"), Flag.optional),
    recorded
  },
  Effect.fnUntraced(function*({ at, drop, insert, projection, recorded, replace, stream, with: code }) {
    if (Option.isSome(at)) yield* check(at.value, "branch")
    const edits = yield* editsOf({ drop, replace, insert })
    if (edits.length === 0 && Option.isNone(code)) {
      return yield* wrongEdit("what would have been otherwise? Say --drop, --replace or --insert, or --with another projection")
    }
    const remote = yield* Remote.connect
    const items = Remote.pages(remote, "time:branch", {
      edits, ...given({ at: Option.map(at, momentOf), stream, projection, with: code, recorded })
    })
    let differ = 0
    const count = yield* tell(Stream.tap(items, ({ patch }) => Effect.sync(() => void (differ += Array.isArray(patch) && patch.length > 0 ? 1 : 0))), JSON.stringify, TimeText.branched)
    yield* Output.narrate(`${Output.grouped(differ)} of ${Output.counted(count, "stream")} would have another state; nothing was written`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("What would have been, with facts dropped, replaced or inserted; nothing is written"),
  Command.withExamples([
    { command: "ksi time branch --drop 41" },
    { command: "ksi time branch --stream order-1 --replace '41 {\"total\":5}' --insert '42 order:noted {\"text\":\"x\"}'" }
  ])
)

// ----------------------------------------------------------------------------------------------------------- compare

const compare = Command.make(
  "compare",
  {
    a: Argument.String("a").pipe(Argument.withDescription("Name of a projection")),
    b: Argument.String("b").pipe(Argument.withDescription("Name of another one")),
    stream: streamFlag.pipe(Flag.optional),
    from, to
  },
  Effect.fnUntraced(function*({ a, b, from, stream, to }) {
    const remote = yield* Remote.connect
    const items = Remote.pages(remote, "time:compare", { a, b, ...given({ stream, from, to }) })
    const count = yield* tell(items, JSON.stringify, (item, look) => TimeText.compared(item, [a, b], look))
    if (count > 0) {
      yield* Output.narrate(`the first fact after which they differ; the marks lead from ${a} to ${b}`)
      return yield* Effect.fail(new Output.Ended({ code: Output.exitCodes.CheckFailed }))
    }
    yield* Output.narrate(`${a} and ${b} say the same after every fact`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("The first fact after which two projections differ; exit code 7 where they do"),
  Command.withExamples([{ command: "ksi time compare latest totals --stream order-1" }])
)

/** `ksi time`. */
export const time = Command.make("time").pipe(
  Command.withDescription("Look back: what was, what changed, why, and what would have been"),
  Command.withSubcommands([at, diff, find, blame, branch, compare])
)
