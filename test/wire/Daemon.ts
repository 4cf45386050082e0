/** What the tests of the wire talk to: a runtime in memory with a few events, behind a real socket in a folder of its own. */
import { Deferred, Effect, Layer, Schema } from "effect"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"

export class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {}

export const Echo = Event.make("t:echo", { payload: { value: Schema.Unknown }, success: Schema.Unknown })
/** Answers in the next turn of the event loop. */
export const Later = Event.make("t:later", { payload: { value: Schema.Unknown }, success: Schema.Unknown })
export const Nothing = Event.make("t:nothing")
export const Refuse = Event.make("t:refuse", { payload: { why: Schema.String }, error: Refused })
export const Die = Event.make("t:die")
export const Forever = Event.make("t:forever")
export const Items = Event.make("t:items", { success: Schema.Int, stream: true })
export const When = Event.make("t:when", { payload: { at: Schema.Date }, success: Schema.Date })
export const Happened = Event.fact("t:happened", { payload: { n: Schema.Int }, streamId: () => "t" })
export const Big = Event.make("t:big", { payload: { size: Schema.Int }, success: Schema.String })
export const Group = EventGroup.make(Echo, Later, Nothing, Refuse, Die, Forever, Items, When, Big, Happened)

/** How many `t:forever` are running, and how many were interrupted. */
export interface Counts {
  running: number
  interrupted: number
  readonly some: Deferred.Deferred<void>
}

export const handlers = (counts: Counts) =>
  Group.toLayer({
    "t:echo": ({ value }) => Effect.succeed(value),
    "t:later": ({ value }) => Effect.as(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), value),
    "t:nothing": () => Effect.void,
    "t:refuse": ({ why }) => Effect.fail(new Refused({ why })),
    "t:die": () => Effect.die(new Error("a secret")),
    *"t:forever"() {
      counts.running++
      Deferred.doneUnsafe(counts.some, Effect.void)
      yield* Effect.onInterrupt(Effect.never, () => Effect.sync(() => {
        counts.running--
        counts.interrupted++
      }))
    },
    "t:items": () => { throw new Error("not over this wire") },
    "t:big": ({ size }) => Effect.succeed("x".repeat(size)),
    "t:when": ({ at }) => Effect.succeed(at)
  })

export const makeCounts = (): Counts => ({ running: 0, interrupted: 0, some: Deferred.makeUnsafe() })

/** The runtime without a socket. */
export const runtime = (counts: Counts = makeCounts()) =>
  Layer.mergeAll(serve(Group).pipe(Layer.provide(handlers(counts))), Control.layer).pipe(
    Layer.provideMerge(Router.layer),
    Layer.provideMerge(Subscriptions.layer),
    Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, DeadLetters.layerOff))
  )

/** A folder that is gone after the test. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-wire-"))),
  (place) => Effect.sync(() => Fs.rmSync(place, { recursive: true, force: true }))
)

/** A daemon in the scope of the test. */
export const start = Effect.fnUntraced(function*(options: { readonly path?: string; readonly drain?: number; readonly counts?: Counts } = {}) {
  const path = options.path ?? Path.join(yield* folder, "run", "daemon.sock")
  const counts = options.counts ?? makeCounts()
  const context = yield* Layer.build(Listener.layerUnix({ path, drain: options.drain }).pipe(Layer.provideMerge(runtime(counts))))
  return { path, counts, context }
})

/** A client that knows nothing of KSI. */
export class Plain {
  readonly socket: Net.Socket
  readonly lines: Array<string> = []
  /** Chunks that came. */
  chunks = 0
  closed = false
  private rest = ""
  private readonly waiting = new Set<() => void>()

  private constructor(socket: Net.Socket) {
    this.socket = socket
    socket.on("error", () => {})
    socket.on("data", (chunk) => {
      this.chunks++
      const lines = (this.rest + chunk.toString("utf8")).split("\n")
      this.rest = lines.pop() ?? ""
      this.lines.push(...lines)
      for (const look of this.waiting) look()
    })
    const close = () => {
      this.closed = true
      for (const look of this.waiting) look()
    }
    socket.on("end", close)
    socket.on("close", close)
  }

  /** To a path, or a port of this machine. */
  static connect(place: string | number) {
    return Effect.acquireRelease(
      Effect.callback<Plain>((resume) => {
        const socket = Net.connect({ ...typeof place === "string" ? { path: place } : { host: "127.0.0.1", port: place }, allowHalfOpen: true }, () => resume(Effect.succeed(new Plain(socket))))
      }),
      ({ socket }) => Effect.sync(() => socket.destroy())
    )
  }

  send(...frames: ReadonlyArray<unknown>): void {
    this.socket.write(frames.map((frame) => `${typeof frame === "string" ? frame : JSON.stringify(frame)}\n`).join(""))
  }

  /** Waits for so many lines in all, parsed. */
  received(count: number): Effect.Effect<ReadonlyArray<Reply>> {
    return Effect.map(this.until(() => this.lines.length >= count), () => this.lines.slice(0, count).map((line) => JSON.parse(line)))
  }

  /** Waits until the other side has closed. */
  get ended(): Effect.Effect<void> {
    return this.until(() => this.closed)
  }

  ask(frame: unknown): Effect.Effect<Reply> {
    return Effect.suspend(() => {
      const at = this.lines.length
      this.send(frame)
      return Effect.map(this.received(at + 1), (replies) => replies[at] as Reply)
    })
  }

  private until(condition: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const look = () => {
        if (condition() && this.waiting.delete(look)) resume(Effect.void)
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }
}

/** A line as it is read here: anything may be in it. */
export interface Reply {
  readonly event: string | null
  readonly ok: boolean
  // The tests look into replies of many shapes.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly data: any
  readonly correlation_id: unknown
  readonly timestamp: number
  readonly [key: string]: unknown
}

/** Waits for a condition that only the event loop can make true. */
export const eventually = (condition: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() =>
    condition() ? Effect.void : Effect.andThen(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), eventually(condition))
  )
