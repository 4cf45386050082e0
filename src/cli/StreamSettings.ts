/**
 * `ksi stream-info`, `stream-keep` and `stream-delete`: how much of a stream is kept, and the end of one.
 *
 * The rule: no command asks back. What cannot be undone says what would be gone, and does it with `--force`. `stream-keep` says
 * what is kept from now on, all of it: a limit that is not named is lifted. What is noted of a stream (`metadata`) stays
 * until something else is noted.
 *
 * **Example**
 *
 * ```ts
 * StreamSettings.lines({ maxCount: 1000, maxAge: 86_400_000 })
 * // ["keeps the newest 1,000 facts", "keeps a fact for 1 day after it was stored"]
 * StreamSettings.lines({})                    // ["keeps everything"]
 * StreamSettings.holding({ version: 7, firstVersion: 5, count: 3, isDeleted: false })   // "version 7, 3 facts from version 5 on"
 * ```
 *
 * **Gotchas** A stream that is not there yet can be set up: `stream-keep` says that there is none, and which is nearest.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Json from "../event/Json.ts"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Setting from "../server/Setting.ts"
import * as Help from "./Help.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

const maxAgeMillis = 36_500 * 86_400_000

const age = Setting.duration(1, maxAgeMillis)

/** What is set for a stream, a line each, for people. */
export const lines = ({ maxAge, maxCount, metadata, truncateBefore }: JsonObject): ReadonlyArray<string> => {
  const kept = [
    ...(maxCount === undefined ? [] : [`keeps the newest ${Output.counted(Number(maxCount), "fact")}`]),
    ...(maxAge === undefined ? [] : [`keeps a fact for ${Setting.durationText(Number(maxAge))} after it was stored`]),
    ...(truncateBefore === undefined ? [] : [`keeps facts from version ${Output.textOf(truncateBefore)} on`])
  ]
  return [...(kept.length === 0 ? ["keeps everything"] : kept), ...(metadata === undefined ? [] : [`notes ${JSON.stringify(metadata)}`])]
}

/** How far a stream is and what it holds, for people. */
export const holding = ({ count, firstVersion, isDeleted, version }: JsonObject): string => {
  const at = `version ${Output.textOf(version)}`
  if (isDeleted === true) return `${at}, deleted: what is left is its tombstone`
  return count === 0 ? `${at}, no facts` : `${at}, ${Output.counted(Number(count), "fact")} from version ${Output.textOf(firstVersion)} on`
}

const streamArgument = Argument.String("streamId").pipe(Argument.withDescription("The stream's id, as ksi streams tells it"))

const settingsOf = ({ settings }: JsonObject): JsonObject => Json.isObject(settings) ? settings : {}

/** A reply without what every reply has. */
const bodyOf = ({ _ksi_context: _, status: __, ...body }: JsonObject): JsonObject => body

// --------------------------------------------------------------------------------------------------------- stream-info

/** `ksi stream-info`. */
export const info = Command.make(
  "stream-info",
  { stream: streamArgument },
  Effect.fnUntraced(function*({ stream }) {
    const remote = yield* Remote.connect
    const found = bodyOf(yield* remote.call("store:stream_info", { stream }))
    yield* Output.documentOr(found, () =>
      [`${stream}: ${holding(found)}`, ...(found["isDeleted"] === true ? [] : lines(settingsOf(found))), ""].join("\n"))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Show what a stream holds and how much of it is kept"),
  Command.annotate(Help.Sections, [Help.exits(0, 2, 3, 4, 5)]),
  Command.withExamples([{ command: "ksi stream-info order-1" }])
)

// --------------------------------------------------------------------------------------------------------- stream-keep

const usage = (message: string) => Effect.fail(new Output.Usage({ message, similar: [], next: "ksi stream-keep --help" }))

const metadataOf = (text: string | undefined): Effect.Effect<JsonObject | undefined, Output.Usage> => {
  if (text === undefined) return Effect.succeed(undefined)
  const value = Result.try(() => Json.parse(text))
  return Result.isSuccess(value) && Json.isObject(value.success)
    ? Effect.succeed(value.success)
    : usage(`--metadata must be a JSON object, not ${text}`)
}

const millisOf = (text: string | undefined): Effect.Effect<number | undefined, Output.Usage> => {
  const millis = text === undefined ? undefined : age.read(text)
  return text !== undefined && millis === undefined
    ? usage(`--max-age must be a time such as 12h or "30 days", not "${text}"`)
    : Effect.succeed(millis)
}

interface Known {
  readonly settings: JsonObject
  /** Why there is no such stream, where there is none. */
  readonly missing: KsiError.NotFound | undefined
}

/** What is set for a stream by now; nothing where there is none yet. */
const known = (remote: Remote.Remote, stream: string): Effect.Effect<Known, Remote.RemoteError> =>
  Effect.matchEffect(remote.call("store:stream_info", { stream }), {
    onSuccess: (found) => Effect.succeed({ settings: settingsOf(found), missing: undefined }),
    onFailure: (error) =>
      KsiError.is(error) && error.reason._tag === "NotFound" ? Effect.succeed({ settings: {}, missing: error.reason }) : Effect.fail(error)
  })

/** `ksi stream-keep`. */
export const keep = Command.make(
  "stream-keep",
  {
    stream: streamArgument,
    maxCount: Flag.Int("max-count").pipe(Flag.withDescription("The newest so many facts"), Flag.optional),
    maxAge: Flag.String("max-age").pipe(
      Flag.withDescription("Facts that were stored at most so long ago: 45s, 12h, 30d, \"2 hours\""), Flag.withMetavar("TIME"), Flag.optional
    ),
    truncateBefore: Flag.Int("truncate-before").pipe(Flag.withDescription("Facts from this version on"), Flag.optional),
    everything: Flag.Boolean("everything").pipe(Flag.withDescription("All facts, as where nothing was ever set"), Flag.withDefault(false)),
    metadata: Flag.String("metadata").pipe(
      Flag.withDescription("Something to note of the stream, in place of what was noted; {} for nothing"), Flag.withMetavar("JSON"), Flag.optional
    )
  },
  Effect.fnUntraced(function*({ everything, maxAge, maxCount, metadata, stream, truncateBefore }) {
    const note = yield* metadataOf(Option.getOrUndefined(metadata))
    const limits = Remote.given({
      maxCount: Option.getOrUndefined(maxCount),
      maxAge: yield* millisOf(Option.getOrUndefined(maxAge)),
      truncateBefore: Option.getOrUndefined(truncateBefore)
    })
    const isLimited = Object.keys(limits).length > 0
    if (everything && isLimited) return yield* usage("--everything is kept, or a part of it: not both")
    if (!everything && !isLimited && note === undefined) {
      return yield* usage("say what is kept: --max-count, --max-age, --truncate-before or --everything")
    }
    const remote = yield* Remote.connect
    const { missing, settings: { metadata: noted, ...before } } = yield* known(remote, stream)
    const wanted = note === undefined ? noted : Object.keys(note).length === 0 ? undefined : note
    const settings = Remote.given({ ...(everything || isLimited ? limits : before), metadata: wanted })
    const reply = yield* remote.call("store:configure_stream", { stream, settings })
    yield* Output.documentOr({ streamId: stream, settings: settingsOf(reply) }, () => `${[`${stream}:`, ...lines(settings)].join("\n")}\n`)
    if (missing === undefined) return
    const near = missing.similar.length === 0 ? "" : `; nearest: ${missing.similar.join(", ")}`
    yield* Output.narrate(`there is no stream "${stream}" yet${near}`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Set how much of a stream is kept, in place of what was set before; what may go, goes for good within a minute or so"),
  Command.annotate(Help.Sections, [Help.exits(0, 2, 4, 5, 6)]),
  Command.withExamples([
    { command: "ksi stream-keep sensor-1 --max-count 1000 --max-age 30d" },
    { command: "ksi stream-keep sensor-1 --everything" },
    { command: "ksi stream-keep sensor-1 --metadata '{\"owner\":\"metering\"}'", description: "Limits stay as they are" }
  ])
)

// ------------------------------------------------------------------------------------------------------- stream-delete

/** Who deletes must have seen what goes. */
const refuse = Effect.fnUntraced(function*(remote: Remote.Remote, stream: string) {
  const { count, isDeleted } = yield* remote.call("store:stream_info", { stream })
  if (isDeleted === true) return
  const message = `${Output.counted(Number(count), "fact")} of ${stream} would be gone for good, and it would take no fact any more; say --force to delete it`
  return yield* Effect.fail(new Output.Usage({ message, similar: [], next: `ksi stream-delete ${stream} --force` }))
})

/** `ksi stream-delete`. */
export const remove = Command.make(
  "stream-delete",
  {
    stream: streamArgument,
    force: Flag.Boolean("force").pipe(Flag.withDescription("Do it; without it, say what would be gone"), Flag.withDefault(false)),
    expectedVersion: Flag.Int("expected-version").pipe(Flag.withDescription("Only while the stream is at this version"), Flag.optional),
    reason: Flag.String("reason").pipe(Flag.withDescription("Why; the tombstone keeps it"), Flag.optional)
  },
  Effect.fnUntraced(function*({ expectedVersion, force, reason, stream }) {
    const remote = yield* Remote.connect
    if (!force) yield* refuse(remote, stream)
    const { already, version } = yield* remote.call("store:delete_stream", {
      stream, ...Remote.given({ expectedVersion: Option.getOrUndefined(expectedVersion), reason: Option.getOrUndefined(reason) })
    })
    yield* Output.documentOr({ streamId: stream, already, version }, () =>
      `${already === true ? `${stream} was deleted before` : `deleted ${stream}`}; its tombstone is version ${Output.textOf(version)}\n`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Remove all facts of a stream but a last one, which says that it is gone: nothing can be appended any more"),
  Command.annotate(Help.Sections, [Help.exits(0, 2, 3, 4, 5, 6)]),
  Command.withExamples([{ command: "ksi stream-delete order-1 --force --reason 'the customer asked for it'" }])
)
