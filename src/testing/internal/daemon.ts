// A simulated daemon: an app on a runtime of its own, in a process that can die, on a disk that outlives it.
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Builtin from "../../bus/Builtin.ts"
import type { LiveEnvelope } from "../../bus/Causation.ts"
import type { Answer, DeclaredFailure } from "../../bus/KsiService.ts"
import * as Middleware from "../../bus/Middleware.ts"
import { Router } from "../../bus/Router.ts"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Ksi, type Runtime } from "../../Ksi.ts"
import { Disk } from "../../store/Disk.ts"
import type * as World from "../World.ts"
import * as Disks from "./disk.ts"
import { type Answering, answerOf, answerText, type Network, type Question, refusalText } from "./network.ts"

/** What a daemon has around it. */
export interface Around {
  readonly world: World.World
  readonly network: Network
  readonly below: () => number
  readonly faults: () => Disks.Faults
  readonly note: (who: string, text: string) => void
  /** Its database; `undefined` where everything is in memory. */
  readonly filename: string | undefined
  /** Milliseconds after which a daemon that its disk has killed starts again: from and to. */
  readonly restartAfter: readonly [number, number]
}

/** Makes an app that lacks nothing but what a daemon gives; it is told whether its process lives. */
export type App = (isAlive: () => boolean) => Layer.Layer<never, unknown, Runtime>

/** One life of a daemon. */
interface Life {
  /** Its fibers. */
  readonly body: World.Process
  readonly disk: Disks.ProcessDisk
  readonly main: Fiber.Fiber<unknown, unknown>
  /** Told when it ends before they have their answer. */
  readonly owed: Set<() => void>
  /** What it answers with. */
  readonly answering: Set<Fiber.Fiber<unknown, unknown>>
  services: Context.Context<Runtime> | undefined
  /** It takes no questions any more, as a daemon that has closed its socket. */
  isStopping: boolean
}

/** One that takes something on. */
type Up = Life & { readonly services: Context.Context<Runtime> }

const isUp = (life: Life): life is Up => life.services !== undefined && !life.isStopping

const lost = (address: string, problem: string, unsent: boolean) =>
  KsiError.make(new KsiError.ConnectionLost({ address, problem, unsent }))

// A disk that kills it so often before it is up will never let it be.
const mostStillborn = 100

const short = (value: unknown): string => {
  const text = JSON.stringify(value) ?? ""
  return text.length > 120 ? `${text.slice(0, 117)}...` : text
}

/** A daemon. */
export class Daemon {
  readonly name: string
  private readonly app: App
  private readonly around: Around
  private readonly loggers: ReadonlySet<Logger.Logger<unknown, unknown>>
  private life: Life | undefined
  private begun: Deferred.Deferred<void> = Deferred.makeUnsafe()
  private stillborn = 0
  private coming: Fiber.Fiber<void> | undefined

  constructor(name: string, app: App, around: Around) {
    this.name = name
    this.app = app
    this.around = around
    this.loggers = new Set([Logger.make(({ cause, logLevel, message }) => {
      if (logLevel !== "Error" && logLevel !== "Fatal") return
      const why = cause.reasons.length === 0 ? "" : ` (${KsiError.sentenceOf(Cause.squash(cause))})`
      around.note(name, `says: ${Array.isArray(message) ? message.map(String).join(" ") : String(message)}${why}`)
    })])
  }

  /** Whether it answers. */
  get isUp(): boolean {
    return this.taking() !== undefined
  }

  /** What it is at. */
  get state(): "down" | "starting" | "up" | "stopping" {
    const { life } = this
    if (life === undefined) return "down"
    if (life.isStopping) return "stopping"
    return life.services === undefined ? "starting" : "up"
  }

  /** Done when it answers; dies of what its start failed with. */
  get started(): Effect.Effect<void> {
    return Effect.suspend(() => Deferred.await(this.begun))
  }

  /** Begins a life, where there is none. */
  readonly start = (): void => {
    if (this.life !== undefined) return
    const { below, faults, note, world } = this.around
    const body = world.process()
    // What does not start is not found out about: only one that is up has a full disk.
    const mayFail = () => life.services !== undefined ? faults() : { ...faults(), full: 0 }
    const disk = Disks.make({ below, faults: mayFail, now: world.now, die: (where) => this.dies(life, where), note: (text) => note(this.name, text) })
    const owed = new Set<() => void>()
    const building = Effect.flatMap(Layer.build(Layer.fresh(this.runtime(disk, body.isAlive))), (services) => Effect.sync(() => this.isBorn(life, services)))
    // The last to be added, the first to run: what it answers with ends before anything that it stands on.
    const up = Effect.andThen(building, Effect.addFinalizer(() => Fiber.interruptAll(life.answering)))
    // A process begins in a step of its own: its life is known by then.
    const main = this.fork(body, Effect.andThen(Effect.yieldNow, Effect.scoped(Effect.andThen(up, Effect.never))))
    const life: Life = { body, disk, main, owed, answering: new Set(), services: undefined, isStopping: false }
    this.life = life
    main.addObserver((exit) => this.ended(life, exit))
  }

  /** Ends it as SIGKILL does. */
  readonly kill = (): void => {
    this.coming?.interruptUnsafe()
    if (this.life !== undefined) this.end(this.life, "is killed")
  }

  /** Ends it as SIGTERM does: its finalizers run. */
  get stop(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { coming, life } = this
      coming?.interruptUnsafe()
      if (life === undefined) return Effect.void
      life.isStopping = true
      return Effect.callback<void>((resume) => {
        life.owed.add(() => resume(Effect.void))
        life.main.interruptUnsafe()
      })
    })
  }

  /** Runs something in it. Fails with `ConnectionLost` where it is not up, or dies meanwhile. */
  readonly use = <A, E>(effect: Effect.Effect<A, E, Runtime>): Effect.Effect<A, E | KsiError.KsiError> =>
    Effect.callback((resume) => {
      const life = this.taking()
      if (life === undefined) return resume(Effect.fail(lost(this.name, "it is not up", true)))
      const broken = () => resume(Effect.fail(lost(this.name, "it has ended", false)))
      // First: it may die before the fiber has given way for the first time.
      life.owed.add(broken)
      const fiber = this.fork(life.body, Effect.provideContext(effect, life.services))
      fiber.addObserver((exit) => {
        life.owed.delete(broken)
        resume(exit)
      })
      return Effect.sync(() => fiber.interruptUnsafe())
    })

  /** How somebody asks it over the network; one who is dead sends nothing. */
  readonly asked = (from: string, isAlive: () => boolean) => (question: Question): Answering =>
    Effect.callback<Answer, KsiError.KsiError | DeclaredFailure>((resume) => {
      if (!isAlive()) return
      const { network } = this.around
      const text = JSON.stringify(question)
      const reply = (answer: string) => network.send(this.name, from, `answers ${short(Json.parse(answer))}`, () => resume(answerOf(answer)))
      network.send(from, this.name, `${question.event} ${short(question.data)}`, () => this.receive(text, reply))
    }).pipe(Effect.timeoutOrElse({
      duration: question.millis,
      orElse: () => Effect.fail(lost(this.name, `no answer within ${question.millis} ms`, false))
    }))

  /** Takes a question in; `reply` is told the answer, or that there is none. */
  private receive(question: string, reply: (text: string) => void): void {
    const life = this.taking()
    if (life === undefined) return reply(refusalText(lost(this.name, "it is not up", true)))
    const { data, event, idempotencyKey } = Json.parse(question) as Question // as `asked` wrote it
    const router = Context.get(life.services, Router)
    // What comes of it is the process's: the envelope is made and dispatched in there.
    let envelope: LiveEnvelope | undefined
    const broken = () => reply(refusalText(lost(this.name, "it has ended", false)))
    life.owed.add(broken)
    const fiber = this.fork(life.body, Effect.provideContext(
      Effect.suspend(() => router.dispatch(envelope = router.envelope(event, data, { idempotencyKey }))), life.services))
    life.answering.add(fiber)
    fiber.addObserver((exit) => {
      life.owed.delete(broken)
      life.answering.delete(fiber)
      if (life.isStopping) return broken()
      if (life.body.isAlive() && envelope !== undefined) reply(answerText(exit, envelope))
    })
  }

  /** Its life, where that takes something on. */
  private taking(): Up | undefined {
    const { life } = this
    return life !== undefined && isUp(life) ? life : undefined
  }

  /** Whether nothing is under way in it; one that is not up has nothing. */
  get settled(): Effect.Effect<void> {
    return Effect.ignore(this.use(Effect.flatMap(Router, (router) => router.settled)))
  }

  /** Forks what is to die with the process, and to say what goes wrong in the log of the run. */
  private fork<A, E>(body: World.Process, effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return body.fork(Effect.provideService(effect, Logger.CurrentLoggers, this.loggers))
  }

  private runtime(disk: Disks.ProcessDisk, isAlive: () => boolean): Layer.Layer<Runtime, unknown> {
    const { filename } = this.around
    const runtime = filename === undefined
      ? Ksi.layerMemory
      : Layer.provide(Ksi.layerSqlite({ filename, sync: "normal" }), Layer.succeed(Disk, disk.open))
    // As in a daemon: a key makes the same question the same, however often it comes.
    const served = Layer.merge(this.app(isAlive), Middleware.use(Builtin.idempotency))
    return served.pipe(Layer.provideMerge(runtime))
  }

  private isBorn(life: Life, services: Context.Context<Runtime>): void {
    life.services = services
    this.stillborn = 0
    this.around.note(this.name, "is up")
    Deferred.doneUnsafe(this.begun, Exit.void)
  }

  /** Its main fiber has ended: it was stopped, or could not start. */
  private ended(life: Life, exit: Exit.Exit<unknown, unknown>): void {
    if (!life.body.isAlive()) return
    const isStopped = Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
    const how = isStopped ? "has stopped" : "does not start"
    const why = Exit.isFailure(exit) ? KsiError.sentenceOf(Cause.squash(exit.cause)) : ""
    if (!isStopped) Deferred.doneUnsafe(this.begun, Exit.die(new Error(`${this.name} ${how}: ${why}`)))
    this.end(life, how)
  }

  /** Its disk kills it; it comes back by itself, but not if it is killed or stopped meanwhile. */
  private dies(life: Life, where: string): void {
    const { below, restartAfter: [least, most], world } = this.around
    const isHopeless = life.services === undefined && ++this.stillborn === mostStillborn
    if (isHopeless) {
      this.stillborn = 0
      Deferred.doneUnsafe(this.begun, Exit.die(new Error(`${this.name} does not start: its disk has killed it ${mostStillborn} times before it was up`)))
    }
    this.end(life, `dies ${where}`)
    if (isHopeless || life.isStopping) return
    this.coming = world.fork(Effect.andThen(Effect.sleep(least + below() * (most - least)), Effect.sync(this.start)))
  }

  private end(life: Life, how: string): void {
    if (!life.body.isAlive()) return
    this.around.note(this.name, how)
    life.body.kill()
    life.disk.pull()
    this.life = undefined
    if (this.begun.effect !== undefined) this.begun = Deferred.makeUnsafe()
    for (const broken of life.owed) broken()
    life.owed.clear()
  }
}
