/**
 * `ksi projection`: projections; which of them time travel knows, how far each read model is, what it says, build one anew.
 *
 * **Example**
 *
 * ```ts
 * Models.columns({ projection: "totals", timeTravel: false, mode: "async", status: "failed", position: 1204, lag: 3, failedPosition: 1205, problem: "no such sku" })
 * // ["totals", "no", "async", "failed", "1204", "3", "-", "at 1205: no such sku"]
 * Models.stateColumns({ key: "ann", state: { sum: 4 }, position: 7 })        // ["ann", "7", "{\"sum\":4}"]
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** A projection as columns for people; what is no read model follows nothing. */
export const columns = (
  { failedPosition: at, lag, mode, position, problem, projection, rebuiltPosition, status, timeTravel }: JsonObject
): ReadonlyArray<string> => [
  Output.textOf(projection),
  timeTravel === true ? "yes" : "no",
  ...[mode, status, position].map((field) => field === undefined ? "-" : Output.textOf(field)),
  lag === undefined ? "-" : Output.grouped(Number(lag)),
  rebuiltPosition === undefined ? "-" : Output.textOf(rebuiltPosition),
  problem === undefined ? "" : `${at === undefined ? "" : `at ${Output.textOf(at)}: `}${Output.textOf(problem)}`
]

/** The state of a key as columns for people. */
export const stateColumns = ({ key, position, state }: JsonObject): ReadonlyArray<string> => [
  Output.textOf(key), Output.textOf(position), JSON.stringify(state)
]

const lineOf = (item: object): string => JSON.stringify(item)

const nameArgument = Argument.String("name").pipe(Argument.withDescription("The projection's name, as ksi projection ls tells it"))

const ls = Command.make("ls", {}, Effect.fnUntraced(function*() {
  const remote = yield* Remote.connect
  const heads = ["projection", "time travel", "mode", "status", "position", "behind by", "rebuilt", "problem"]
  yield* Output.items(Remote.pages(remote, "projection:list", {}), lineOf, columns, heads)
}, Effect.scoped)).pipe(
  Command.withDescription("List projections: which time travel knows (--projection), and how far each read model is"),
  Command.withExamples([{ command: "ksi projection ls" }])
)

const get = Command.make(
  "get",
  {
    name: nameArgument,
    key: Argument.String("key").pipe(Argument.withDescription("Only the state of this key, in full"), Argument.optional),
    prefix: Flag.String("prefix").pipe(Flag.withDescription("Only keys that begin so"), Flag.optional)
  },
  Effect.fnUntraced(function*({ key, name, prefix }) {
    const remote = yield* Remote.connect
    if (Option.isSome(key)) {
      const [entry] = yield* Stream.runCollect(Remote.pages(remote, "projection:get", { projection: name, key: key.value }))
      if (entry === undefined) return yield* KsiError.fail(new KsiError.NotFound({ what: "key", id: key.value, similar: [] }))
      return yield* Output.document(entry)
    }
    let some = false
    const items = Remote.pages(remote, "projection:get", {
      projection: name, ...Remote.given({ prefix: Option.getOrUndefined(prefix) })
    }).pipe(Stream.mapArray((page) => {
      some = true
      return page
    }))
    yield* Output.items(items, lineOf, stateColumns, ["key", "position", "state"])
    if (!some) yield* Output.narrate(Option.match(prefix, { onNone: () => "no states", onSome: (text) => `no keys that start with "${text}"` }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Print the states of a read model, or of one key"),
  Command.withExamples([
    { command: "ksi projection get totals ann" },
    { command: "ksi projection get totals --prefix a --json | jq .state" }
  ])
)

const rebuild = Command.make(
  "rebuild",
  { name: nameArgument },
  Effect.fnUntraced(function*({ name }) {
    const remote = yield* Remote.connect
    const reply = yield* remote.call("projection:rebuild", { projection: name })
    const { projection, status } = reply
    yield* Output.documentOr({ projection, status }, () => `${name} is being rebuilt; the version that is asked goes on (ksi projection ls)\n`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Fold a read model from the first fact once more, beside the version that is asked"),
  Command.withExamples([{ command: "ksi projection rebuild totals" }])
)

/** `ksi projection`. */
export const projection = Command.make("projection").pipe(
  Command.withDescription("Projections: which there are, how far each read model is, its states, build one anew"),
  Command.withSubcommands([ls, get, rebuild])
)
