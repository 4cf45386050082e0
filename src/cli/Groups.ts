/**
 * `ksi consumer`: consumer groups; how far each is, what it has set aside and why, handle that again or give it up.
 *
 * **Example**
 *
 * ```ts
 * Groups.parkedColumns({ position: 7, streamId: "order-1", attempts: 5, error: "no paper", parkedAt: "2018-03-15T12:00:00.000Z" })
 * // ["7", "2018-03-15T12:00:00.000Z", "order-1", "5", "no paper"]
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** A group as columns for people. */
export const columns = ({ group, lag, members, parked, pending, position, problem, status }: JsonObject): ReadonlyArray<string> => [
  Output.textOf(group),
  Output.textOf(status),
  Output.textOf(position),
  ...[lag, pending, parked, members].map((figure) => Output.grouped(Number(figure))),
  problem === undefined ? "" : Output.textOf(problem)
]

/** A fact that is set aside as columns for people. */
export const parkedColumns = ({ attempts, error, parkedAt, position, streamId }: JsonObject): ReadonlyArray<string> => [
  Output.textOf(position),
  Output.textOf(parkedAt),
  Output.textOf(streamId),
  Output.textOf(attempts),
  error === undefined ? "waits behind one that failed" : Output.textOf(error)
]

const lineOf = (item: object): string => JSON.stringify(item)

const groupArgument = Argument.String("group").pipe(Argument.withDescription("The group's name, as ksi consumer ls tells it"))
const streamArgument = Argument.String("stream").pipe(Argument.withDescription("Only facts of this stream"), Argument.optional)

const ls = Command.make("ls", {}, Effect.fnUntraced(function*() {
  const remote = yield* Remote.connect
  let some = false
  const items = Remote.pages(remote, "consumer:list", {}).pipe(Stream.mapArray((page) => {
    some = true
    return page
  }))
  yield* Output.items(items, lineOf, columns, ["group", "status", "position", "behind by", "under way", "parked", "members", "problem"])
  if (!some) yield* Output.narrate("no consumer groups")
}, Effect.scoped)).pipe(
  Command.withDescription("List consumer groups, how far each is, and how much it has set aside"),
  Command.withExamples([{ command: "ksi consumer ls" }])
)

const parked = Command.make(
  "parked",
  { group: groupArgument, stream: streamArgument },
  Effect.fnUntraced(function*({ group, stream }) {
    const remote = yield* Remote.connect
    let some = false
    const items = Remote.pages(remote, "consumer:parked", {
      group, ...Remote.given({ stream: Option.getOrUndefined(stream) })
    }).pipe(Stream.mapArray((page) => {
      some = true
      return page
    }))
    yield* Output.items(items, lineOf, parkedColumns, ["position", "parked at", "stream", "attempts", "error"])
    if (!some) yield* Output.narrate("nothing is parked")
  }, Effect.scoped)
).pipe(
  Command.withDescription("List facts that a group has set aside, and why"),
  Command.withExamples([{ command: "ksi consumer parked billing" }, { command: "ksi consumer parked billing order-1" }])
)

const retry = Command.make(
  "retry",
  { group: groupArgument, stream: streamArgument },
  Effect.fnUntraced(function*({ group, stream }) {
    const remote = yield* Remote.connect
    const reply = yield* remote.call("consumer:retry", { group, ...Remote.given({ stream: Option.getOrUndefined(stream) }) })
    const [handled, parked] = [Number(reply["handled"]), Number(reply["parked"])]
    yield* Output.documentOr({ handled, parked }, () => `handled ${Output.counted(handled, "fact")}, ${Output.grouped(parked)} still parked\n`)
    if (parked > 0) return yield* Effect.fail(new Output.Ended({ code: Output.exitCodes.HandlerFailed }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Handle again what a group has set aside, each stream in its order; exit code 1 where some is left"),
  Command.withExamples([{ command: "ksi consumer retry billing order-1" }])
)

const discard = Command.make(
  "discard",
  {
    group: groupArgument,
    positions: Argument.Int("position").pipe(Argument.withDescription("Positions, as ksi consumer parked tells them"), Argument.atLeast(1))
  },
  Effect.fnUntraced(function*({ group, positions }) {
    const remote = yield* Remote.connect
    const discarded = Number((yield* remote.call("consumer:discard", { group, positions }))["discarded"])
    if (discarded === 0) {
      return yield* KsiError.fail(new KsiError.NotFound({ what: "parked fact", id: positions.join(", "), similar: [] }))
    }
    yield* Output.documentOr({ discarded }, () => `discarded ${Output.counted(discarded, "fact")}\n`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Give up facts that a group has set aside: they count as dealt with"),
  Command.withExamples([{ command: "ksi consumer discard billing 7 9" }])
)

/** `ksi consumer`. */
export const consumer = Command.make("consumer").pipe(
  Command.withDescription("Consumer groups: how far each is; what is parked: look, retry, discard"),
  Command.withSubcommands([ls, parked, retry, discard])
)
