/**
 * A whole system in one seed: daemons with their real handlers, bus and store, the network between them, their disks, the clock
 * and the order of everything. The seed decides what goes wrong; the same seed makes the same run, message for message.
 *
 * The rule: nothing happens that could not happen. Messages are late, overtaken, lost or come twice; partitions cut; a
 * process dies between any two writes, with its SQLite file as the last commit left it; a disk is full for a while. What is
 * acknowledged all the same must be so.
 *
 * **Example**
 *
 * ```ts
 * const run = Simulation.run({
 *   seed: 1,
 *   nodes: { shop: Ksi.serve(Stock).pipe(Layer.provide(StockHandlers)) },
 *   network: { loss: 0.2 },
 *   program: ({ calm, nodes: { shop } }) => Effect.gen(function*() {
 *     const reserve = shop.call(Reserve, { sku: "tea", quantity: 1 })
 *     const told = yield* Effect.result(reserve)
 *     yield* calm
 *     const facts = yield* shop.use(Effect.flatMap(EventStore.EventStore, (store) => Effect.sync(() => store.head())))
 *     return Result.isFailure(told) || facts === 1
 *   })
 * })
 * const { value } = yield* run
 * value                                       // true
 * ```
 *
 * `explore` tries many seeds and fails with the first in which the program fails; its message begins with what replays it.
 *
 * **Gotchas** What waits for something outside of the world (a file, a socket, a timer of node) is not simulated: it gets a turn of
 * the event loop whenever nobody else can go on, and when it comes is not the seed's to say: hours may have passed on the clock, and
 * whoever has waited with a timeout is told so. Nor is what node itself makes up (`Date.now`, `Math.random`, `crypto`, so the secret
 * of a token too). Without `disk` a daemon keeps everything in memory, and has lost it when it starts again. A handler that `stop` cannot
 * interrupt keeps its daemon stopping; `kill` ends that.
 *
 * Source: seed section 11; FoundationDB's and TigerBeetle's simulators.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as KsiError from "../event/KsiError.ts"
import type { Runtime } from "../Ksi.ts"
import { chance } from "./internal/chance.ts"
import { Daemon } from "./internal/daemon.ts"
import { type AskOptions, Network as Messages, type Remote, remote } from "./internal/network.ts"
import { checkChance, checkMillis, checkWhole, mostSeed, refuse } from "./internal/options.ts"
import * as World from "./World.ts"

export type { AskOptions, Remote }

// ------------------------------------------------------------------------------------------------------------- models

/** What the network does to messages. Times in milliseconds, chances from 0 to 1. */
export interface NetworkOptions {
  /** How long a message takes, from and to: where these differ, messages overtake one another. Default: 1 to 10. */
  readonly delayMillis?: readonly [number, number] | undefined
  /** How often a message (a question or an answer) is lost. Default: 0. */
  readonly loss?: number | undefined
  /** How often one comes twice. Default: 0. */
  readonly duplication?: number | undefined
}

/** What disks do, at each write. Chances from 0 to 1. */
export interface DiskOptions {
  /** How often the process dies: before the write or commit, or just after the commit. Default: 0. */
  readonly crash?: number | undefined
  /** How often the disk is full from there on, for up to a second. Default: 0. */
  readonly full?: number | undefined
  /** When a process that has died at a write starts again, in milliseconds, from and to. Default: 10 to 1,000. */
  readonly restartAfterMillis?: readonly [number, number] | undefined
}

/** What an app is served with besides the runtime: the other daemons. */
export class Network extends Context.Service<Network, {
  /** Its own name. */
  readonly self: string
  /** Another daemon; asking one that does not exist is a defect. */
  readonly to: (name: string) => Remote
}>()("ksi/testing/Simulation/Network") {}

/** A daemon as the program has it in its hands. The words go over the network, as those of a client: the owner. */
export interface Node extends Remote {
  readonly name: string
  /** Runs something inside of it, past the network. Fails with `ConnectionLost` where it is not up, or ends meanwhile. */
  readonly use: <A, E>(effect: Effect.Effect<A, E, Runtime>) => Effect.Effect<A, E | KsiError.KsiError>
  readonly isUp: () => boolean
  /** Ends it as SIGKILL does: nothing of it takes another step. It does not come back before `start` or `calm`. */
  readonly kill: Effect.Effect<void>
  /**
   * Ends it as SIGTERM does: it takes nothing on any more, what it answers with is interrupted, and its finalizers run. Done when they
   * have. It does not come back before `start` or `calm`.
   */
  readonly stop: Effect.Effect<void>
  /** Starts it where it is not up; done when it is. Dies of what its start failed with. */
  readonly start: Effect.Effect<void>
}

/** What a program has in its hands. */
export interface Simulation<Name extends string> {
  readonly nodes: { readonly [N in Name]: Node }
  /** Cuts the network: who is in one group does not reach who is in another; who is in none reaches all. The program is `client`. */
  readonly partition: (...groups: ReadonlyArray<ReadonlyArray<Name | "client">>) => Effect.Effect<void>
  /** Ends partitions. */
  readonly heal: Effect.Effect<void>
  /**
   * From here on nothing goes wrong any more: partitions end, no message is lost, disks work, who is down starts. Done when nothing
   * is under way: what should come true in the end must have, now. Dies where that takes more than an hour.
   */
  readonly calm: Effect.Effect<void>
}

/** What is simulated. */
export interface Options<Name extends string, A, E> {
  /** The apps, by the name of their daemon; `client` is the program's. Each may need the runtime and `Network`. */
  readonly nodes?: { readonly [N in Name]: Layer.Layer<never, unknown, Runtime | Network> } | undefined
  readonly network?: NetworkOptions | undefined
  /** Without it daemons keep everything in memory. With it, in SQLite files in a directory that is removed in the end. */
  readonly disk?: DiskOptions | undefined
  /** What the clock says at the beginning, in milliseconds since 1970. Default: the beginning of 2020. */
  readonly startAt?: number | undefined
  /**
   * `seeded` (the default): who of those that could go on goes on next is the seed's choice, and a fiber gives way between any two steps.
   * `arrival`: as in production, first come, first served; random numbers, network and disks are the seed's all the same.
   */
  readonly order?: "seeded" | "arrival" | undefined
  /** How often a fiber gives way between two steps where the order is seeded, from 0 to 0.5. Default: 0.1. */
  readonly preemption?: number | undefined
  /** Steps of all fibers after which a run that has not ended fails. Default: 1,000,000. */
  readonly maxSteps?: number | undefined
  /** What is done, and what must hold: where it fails, so does the run. */
  readonly program: (simulation: Simulation<Name>) => Effect.Effect<A, E>
}

/** How a run went. */
export interface Report<out A> {
  readonly seed: number
  readonly value: A
  /** Steps of all fibers. */
  readonly steps: number
  /** Milliseconds that have passed on the simulated clock. */
  readonly millis: number
  /** What happened, a line each; of many the last. */
  readonly log: ReadonlyArray<string>
}

/** A run in which the program failed; the message begins with what replays it. */
export class SimulationFailed extends Data.TaggedError("SimulationFailed")<{
  readonly message: string
  readonly seed: number
  readonly cause: Cause.Cause<unknown>
  readonly log: ReadonlyArray<string>
}> {}

// ---------------------------------------------------------------------------------------------------------------- log

const keptLines = 10_000
const shownLines = 40

/** What happened, with its time. */
class Log {
  readonly lines: Array<string> = []
  private readonly world: World.World
  private readonly startAt: number

  constructor(world: World.World, startAt: number) {
    this.world = world
    this.startAt = startAt
  }

  readonly note = (who: string, text: string): void => {
    // Half is forgotten at once: forgetting one for each would cost a move of all.
    if (this.lines.length >= keptLines) this.lines.splice(0, keptLines / 2)
    this.lines.push(`${((this.world.now() - this.startAt) / 1000).toFixed(3)} s  ${who} ${text}`)
  }
}

// -------------------------------------------------------------------------------------------------------------- checking

/** What cannot be simulated is said before anything is: a chance that is never taken would find nothing. */
const check = ({ disk = {}, maxSteps = 1, network = {}, nodes = {}, preemption, seed, startAt = 0 }: Omit<Options<string, unknown, unknown>, "program"> & { readonly seed: number }): void => {
  checkWhole("seed", seed, 0, mostSeed)
  checkWhole("maxSteps", maxSteps, 1, Number.MAX_SAFE_INTEGER)
  checkWhole("startAt", startAt, 0, 8.64e15)
  checkChance("preemption", preemption, 0.5)
  checkMillis("network.delayMillis", network.delayMillis)
  checkChance("network.loss", network.loss)
  checkChance("network.duplication", network.duplication)
  checkChance("disk.crash", disk.crash)
  checkChance("disk.full", disk.full)
  checkMillis("disk.restartAfterMillis", disk.restartAfterMillis)
  for (const name of Object.keys(nodes)) if (name === "" || name === client) refuse("the name of a daemon", `"${name}"`, `it is not empty, and "${client}" is the program`)
}

// -------------------------------------------------------------------------------------------------------------- driving

const client = "client"
const turns = 10
const pauses = 100

const turn: Effect.Effect<void> = Effect.callback((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})
const pause = Context.get(Context.empty(), Clock.Clock).sleep(Duration.millis(1))

/** Why a run goes no further. */
type Stopped = "done" | "stuck" | "endless"

/** Runs the world until this is done. Time passes when nobody can go on; before it does, promises that are resolved have their turn. */
const drive = Effect.fnUntraced(function*(world: World.World, maxSteps: number, isDone: () => boolean) {
  for (let idle = 0;;) {
    const before = world.steps()
    if (world.settle(maxSteps - before) === "steps") return "endless"
    if (isDone()) return "done"
    if (world.steps() > before) idle = 0
    const due = world.due()
    if (idle > 0 && due !== undefined) {
      world.advance(due - world.now(), maxSteps - world.steps())
      idle = 0
    } else if (idle > turns + pauses) return "stuck"
    else yield* idle++ < turns ? turn : pause
  }
})

// -------------------------------------------------------------------------------------------------------------- making

const year2020 = 1_577_836_800_000
// Numbers of one seed for each who draws some: what the network draws does not move what the disks do.
const drawn = { network: 1, disk: 2 } as const
const hour = 3_600_000
const leastPauseMillis = 10
const mostPauseMillis = 1000

const directoryOf = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "ksi-simulation-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

interface Made<Name extends string> {
  readonly daemons: ReadonlyArray<Daemon>
  readonly messages: Messages
  readonly simulation: Simulation<Name>
}

/** Everything at rest, and looked at twice: what ends last may have sent a message. */
const resting = (world: World.World, daemons: ReadonlyArray<Daemon>, messages: Messages): Effect.Effect<void> =>
  Effect.gen(function*() {
    const last = world.now() + hour
    let pauseMillis = leastPauseMillis
    for (let quiet = 0; quiet < 2;) {
      for (const daemon of daemons) {
        daemon.start()
        yield* daemon.started
        yield* daemon.settled
      }
      const isQuiet = messages.underWay === 0 && daemons.every(({ isUp }) => isUp)
      quiet = isQuiet ? quiet + 1 : 0
      pauseMillis = isQuiet ? leastPauseMillis : Math.min(2 * pauseMillis, mostPauseMillis)
      if (world.now() > last) return yield* Effect.die(new Error("it does not come to rest within an hour"))
      yield* Effect.sleep(pauseMillis)
    }
  })

const nodeOf = (daemon: Daemon): Node => ({
  ...remote(daemon.asked(client, () => true)),
  name: daemon.name,
  use: daemon.use,
  isUp: () => daemon.isUp,
  kill: Effect.sync(daemon.kill),
  stop: daemon.stop,
  start: Effect.suspend(() => {
    daemon.start()
    return daemon.started
  })
})

/** Makes the daemons and what is between them. */
const make = <Name extends string>(
  { disk, network = {}, nodes }: Pick<Options<Name, unknown, unknown>, "disk" | "network" | "nodes">,
  seed: number,
  world: World.World,
  note: Log["note"]
): Effect.Effect<Made<Name>, never, Scope.Scope> =>
  Effect.gen(function*() {
    let isCalm = false
    const { delayMillis: delay = [1, 10], duplication = 0, loss = 0 } = network
    const { crash = 0, full = 0, restartAfterMillis: restartAfter = [10, 1000] } = disk ?? {}
    const weather = () => isCalm ? { delay, loss: 0, duplication: 0 } : { delay, loss, duplication }
    const messages = new Messages(world, chance(seed ^ (drawn.network << 24)), weather, note)
    const around = {
      world, note, network: messages, restartAfter,
      below: chance(seed ^ (drawn.disk << 24)),
      faults: () => isCalm ? { crash: 0, full: 0 } : { crash, full },
    }
    const directory = disk === undefined ? undefined : yield* directoryOf
    const daemons: Array<Daemon> = []
    const to = (self: string, isAlive: () => boolean) => (name: string): Remote => {
      const daemon = daemons.find((each) => each.name === name)
      if (daemon === undefined) throw new Error(`there is no daemon "${name}": there are ${daemons.map((each) => each.name).join(", ")}`)
      return remote(daemon.asked(self, isAlive))
    }
    // An object's own entries have its own types.
    for (const [name, app] of Object.entries(nodes ?? {}) as Array<[Name, Layer.Layer<never, unknown, Runtime | Network>]>) {
      const daemon: Daemon = new Daemon(name, (isAlive) => Layer.provide(app, Layer.succeed(Network, { self: name, to: to(name, isAlive) })), {
        ...around,
        // Any name will do for a daemon, not so for a file.
        filename: directory === undefined ? undefined : Path.join(directory, `${daemons.length}.db`)
      })
      daemons.push(daemon)
    }
    const heal = Effect.sync(() => messages.partition([]))
    const simulation: Simulation<Name> = {
      nodes: Object.fromEntries(daemons.map((daemon) => [daemon.name, nodeOf(daemon)])) as Simulation<Name>["nodes"], // one for each name
      partition: (...groups) => Effect.sync(() => {
        const names = groups.flat()
        for (const [index, name] of names.entries()) {
          if (name !== client && !daemons.some((daemon) => daemon.name === name)) refuse("partition", name, "there is no such daemon")
          if (names.indexOf(name) < index) refuse("partition", name, "it is in two groups")
        }
        note(client, `cuts the network: ${groups.map((group) => group.join(" ")).join(" | ")}`)
        messages.partition(groups)
      }),
      heal,
      calm: Effect.suspend(() => {
        note(client, "asks for calm")
        isCalm = true
        return Effect.andThen(heal, resting(world, daemons, messages))
      })
    }
    return { daemons, messages, simulation }
  })

// -------------------------------------------------------------------------------------------------------------- running

const defaultMaxSteps = 1_000_000

/** Why there is no answer, with who is not up: it may be one of them that is waited for. */
const whyNot = (stopped: Stopped, maxSteps: number, daemons: ReadonlyArray<Daemon>): string => {
  if (stopped === "endless") return `it has not ended after ${maxSteps} steps (maxSteps)`
  const others = daemons.flatMap(({ name, state }) => state === "up" ? [] : [`${name} is ${state}`])
  return `it waits for something that does not come${others.length === 0 ? "" : `; ${others.join(", ")}`}`
}

const failedRun = (seed: number, cause: Cause.Cause<unknown>, log: ReadonlyArray<string>): SimulationFailed => {
  const hidden = log.length - shownLines
  const message = [
    `Simulation.run({ seed: ${seed}, … }) fails: ${KsiError.sentenceOf(Cause.squash(cause))}`,
    "",
    hidden > 0 ? `what happened (${hidden} lines before these):` : "what happened:",
    ...log.slice(-shownLines).map((line) => `  ${line}`),
    ""
  ].join("\n")
  const failed = new SimulationFailed({ message, seed, cause, log })
  // Who prints the error has the end of it in the message already.
  return Object.defineProperty(failed, "log", { value: log, enumerable: false })
}

/** Runs the program in the world that a seed makes. Fails where the program fails, does not end, or a daemon does not start. */
export const run = <Name extends string = never, A = void, E = never>(
  { maxSteps = defaultMaxSteps, order = "seeded", preemption, program, seed, startAt = year2020, ...options }: Options<Name, A, E> & {
    /** Decides everything that is left open. */
    readonly seed: number
  }
): Effect.Effect<Report<A>, SimulationFailed> =>
  Effect.scoped(Effect.gen(function*() {
    check({ ...options, maxSteps, preemption, seed, startAt })
    const world = World.make({ seed, startAt, preemption, order })
    const log = new Log(world, startAt)
    const { daemons, simulation } = yield* make(options, seed, world, log.note)
    // However it ends, no connection stays open.
    yield* Effect.addFinalizer(() => Effect.sync(() => {
      for (const daemon of daemons) daemon.kill()
    }))
    const main = world.fork(Effect.gen(function*() {
      for (const daemon of daemons) daemon.start()
      for (const daemon of daemons) yield* daemon.started
      return yield* program(simulation)
    }))
    const stopped: Stopped = yield* drive(world, maxSteps, () => main.pollUnsafe() !== undefined)
    const exit = main.pollUnsafe() ?? Exit.die(new Error(whyNot(stopped, maxSteps, daemons)))
    if (Exit.isFailure(exit)) return yield* Effect.fail(failedRun(seed, exit.cause, [...log.lines]))
    return { seed, value: exit.value, steps: world.steps(), millis: world.now() - startAt, log: [...log.lines] }
  }))

/**
 * Runs the program for many seeds, one after another; fails with the first run that fails. Answers with how many there were.
 */
export const explore = <Name extends string = never, A = void, E = never>(
  { from = 0, seeds = 100, ...options }: Options<Name, A, E> & {
    /** How many seeds. Default: 100. */
    readonly seeds?: number | undefined
    /** The first one. Default: 0. */
    readonly from?: number | undefined
  }
): Effect.Effect<number, SimulationFailed> =>
  Effect.gen(function*() {
    checkWhole("seeds", seeds, 1, mostSeed + 1)
    for (let seed = from; seed < from + seeds; seed++) yield* run({ ...options, seed })
    return seeds
  })
