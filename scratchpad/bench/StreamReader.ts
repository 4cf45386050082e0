/**
 * A program with a daemon elsewhere (`Ksi.layerRemote`), in a process of its own: what it reads, calls and follows is counted.
 *
 * `StreamReader.ts <url> <token or nothing> <characters that a stream may hold>`.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Net from "node:net"
import * as Limits from "../../src/event/Limits.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as Client from "../../src/wire/Client.ts"
import type { Amount } from "./Bench.ts"
import * as Child from "./Child.ts"
import { Hold } from "./Hold.ts"
import { checked, counted, type Reader } from "./Items.ts"
import { Happened, Items } from "./StreamDaemon.ts"

/** What the program is asked for. */
export type Order =
  | { readonly do: "memory" }
  /** Reads a new stream for so long, perhaps beside one that nobody reads. */
  | { readonly do: "read"; readonly chunk: number; readonly millis: number; readonly besides: boolean }
  /** Opens a stream that stays. */
  | { readonly do: "open"; readonly chunk: number; readonly buffer: number }
  /** Reads the one that stays: for so long what is not counted, then what is. Then nobody reads it until the next time. */
  | { readonly do: "go on"; readonly skip: number; readonly millis: number }
  /** Ends the one that stays. */
  | { readonly do: "leave" }
  /** Calls for so long. */
  | { readonly do: "call"; readonly inFlight: number; readonly millis: number }
  /** Follows the facts, and the times that are said at a bare socket; answers when it has heard a fact. */
  | { readonly do: "follow"; readonly bare: string }
  /** What it has heard so far, once it has heard so many facts. */
  | { readonly do: "heard"; readonly count: number }
  /** Opens subscriptions on which little happens. */
  | { readonly do: "subscribe"; readonly count: number }
  /** How many of them have been told something. */
  | { readonly do: "told" }

/** What came of opening them. */
export interface Opened {
  readonly live: number
  readonly problem: string | undefined
}

/** What was heard. */
export interface Heard {
  /** When each fact came. */
  readonly facts: ReadonlyArray<readonly [position: number, at: number]>
  /** Milliseconds that each time said at the bare socket was under way. */
  readonly bare: ReadonlyArray<number>
}

/** What the program knows. */
class Program {
  private readonly ksi: Ksi["Service"]
  private readonly client: Client.Client["Service"]
  private readonly heard: Array<Heard["facts"][number]> = []
  private readonly bare: Array<number> = []
  private waiting: { readonly count: number; readonly resume: () => void } | undefined
  private told = 0
  private staying: { readonly scope: Scope.Closeable; readonly pull: Pull.Pull<ReadonlyArray<unknown>, unknown>; taken: number } | undefined

  constructor(ksi: Ksi["Service"], client: Client.Client["Service"]) {
    this.ksi = ksi
    this.client = client
  }

  async obey(order: Order): Promise<unknown> {
    switch (order.do) {
      case "memory": return Child.memory()
      case "read": return Effect.runPromise(order.besides ? this.besides(order.chunk, order.millis) : counted(this.items(order.chunk), order.millis))
      case "open": return Effect.runPromise(this.open(order.chunk, order.buffer))
      case "go on": return Effect.runPromise(this.goOn(order.skip, order.millis))
      case "leave": return this.leave()
      case "call": return Effect.runPromise(this.call(order.inFlight, order.millis))
      case "follow": return this.follow(order.bare)
      case "heard": return this.have(order.count)
      case "subscribe": return this.subscribe(order.count)
      case "told": return this.told
    }
  }

  items(chunk: number, bufferSize?: number): Stream.Stream<unknown, unknown> {
    return this.ksi.stream(Items, { chunk }, { bufferSize })
  }

  /** As `counted`, with a stream of which the first chunk was taken and nothing more. */
  private besides(chunk: number, millis: number): Effect.Effect<Amount, unknown> {
    return Effect.scoped(Effect.gen({ self: this }, function*() {
      yield* yield* Stream.toPull(this.items(chunk))
      return yield* counted(this.items(chunk), millis)
    }))
  }

  private open(chunk: number, buffer: number): Effect.Effect<void, unknown> {
    return Effect.gen({ self: this }, function*() {
      const scope = Scope.makeUnsafe()
      this.staying = { scope, pull: yield* Scope.provide(Stream.toPull(this.items(chunk, buffer)), scope), taken: 0 }
    })
  }

  /** Answers also with how many were taken altogether: all but the last chunk, which it has in its hands. */
  private goOn(skip: number, millis: number): Effect.Effect<Amount & { readonly taken: number }, unknown> {
    const { staying } = this
    if (staying === undefined) return Effect.die("there is none")
    return Effect.gen(function*() {
      let last = 0
      const pulling = Effect.fnUntraced(function*(from: number, millis: number) {
        let count = 0
        do {
          const { length } = yield* staying.pull
          staying.taken += last
          last = length
          count += length
        } while (performance.now() - from < millis)
        return count
      })
      yield* pulling(performance.now(), skip)
      const start = performance.now()
      const count = yield* pulling(start, millis)
      const took = performance.now() - start
      const { taken } = staying
      staying.taken += last
      return { count, millis: took, taken }
    })
  }

  private async leave(): Promise<void> {
    if (this.staying !== undefined) await Effect.runPromise(Scope.close(this.staying.scope, Exit.void))
    this.staying = undefined
  }

  private call(inFlight: number, millis: number): Effect.Effect<Amount, unknown> {
    const { ksi } = this
    const start = performance.now()
    let sent = 0
    const one = Effect.gen(function*() {
      while (performance.now() - start < millis) {
        const n = sent++
        yield* ksi.call(Hold, { sku: "tea", quantity: n % 100, customer: { id: `customer-${n % 1000}`, vip: true } })
      }
    })
    return Effect.map(Effect.replicateEffect(one, inFlight, { concurrency: "unbounded", discard: true }), () => ({ count: sent, millis: performance.now() - start }))
  }

  private async follow(bare: string): Promise<void> {
    // Each in a write of its own, some milliseconds apart.
    Net.connect(bare).setEncoding("utf8").on("data", (times: string) => this.bare.push(Child.sharedNow() - Number.parseFloat(times)))
    // From the start: nothing is missed, whenever it is live.
    Effect.runFork(Stream.runForEach(this.ksi.subscribe(Happened, { from: "start" }), ({ position }) => Effect.sync(() => {
      this.heard.push([Number(position), Child.sharedNow()])
      if (this.heard.length >= (this.waiting?.count ?? Infinity)) this.waiting?.resume()
    })))
    await this.have(1)
  }

  private async have(count: number): Promise<Heard> {
    if (this.heard.length < count) await new Promise<void>((resume) => (this.waiting = { count, resume }))
    return { facts: this.heard, bare: this.bare }
  }

  private async subscribe(count: number): Promise<Opened> {
    // Opened at once: fewer than a listener keeps waiting.
    const atOnce = 200
    let live = 0
    let problem: string | undefined
    let changed = () => {}
    const one = Stream.runForEach(this.client.subscribe({ pattern: Happened.name, onSubscribed: () => { live++; changed() } }), () => Effect.sync(() => this.told++)).pipe(
      Effect.onExit((exit) => Effect.sync(() => {
        problem ??= Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "it ended"
        changed()
      })),
      Effect.ignore
    )
    while (live < count && problem === undefined) {
      const wanted = Math.min(count, live + atOnce)
      for (let n = live; n < wanted; n++) Effect.runFork(one)
      while (live < wanted && problem === undefined) await new Promise<void>((resolve) => (changed = resolve))
    }
    return { live, problem }
  }
}

const run = async (url: string, token: string, streamBytes: number): Promise<void> => {
  const options = token === "" ? { url } : { url, token }
  const limits = Layer.succeed(Limits.Limits, { ...Limits.defaults, streamBytes })
  const main = Layer.merge(Ksi.layerRemote(options), Client.layer(options)).pipe(Layer.provide(limits))
  const context = await Effect.runPromise(Layer.buildWithScope(main, Scope.makeUnsafe()))
  const ksi = Context.get(context, Ksi)
  const program = new Program(ksi, Context.get(context, Client.Client))
  checked("ksi", await Effect.runPromise(Stream.runCollect(Stream.take(program.items(2), 3))))
  Child.obey<Order>("ready", (order) => program.obey(order))
}

// This file is also the program.
const [, program, place = "", token = "", characters] = process.argv
if (program === import.meta.filename) await run(place, token, Number(characters))

/** How the program is to be connected. */
export interface Options {
  readonly url: string
  readonly token?: string
  /** Characters of frames that a stream may hold. Default: the limit `streamBytes`. */
  readonly streamBytes?: number
}

/** A program that is connected. */
export interface Connected extends Reader {
  /** Asks for anything else; the caller says what the answer is. */
  readonly ask: <A = void>(order: Order) => Promise<A>
}

/** Starts one. */
export const start = async ({ streamBytes = Limits.defaults.streamBytes, token = "", url }: Options): Promise<Connected> => {
  const child = await Child.start(import.meta.filename, url, token, String(streamBytes))
  // The other end is above.
  const ask = <A>(order: Order) => child.ask(order) as Promise<A>
  return { ask, read: (chunk, millis) => ask({ do: "read", chunk, millis, besides: false }), stop: child.stop }
}
