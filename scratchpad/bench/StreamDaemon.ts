/**
 * A daemon for the benchmark of streams, at a Unix socket and on TCP, in a process of its own: `StreamDaemon.ts <socket> [<SQLite file>]`.
 * Without a file everything is in memory.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { setTimeout as wait } from "node:timers/promises"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as Limits from "../../src/event/Limits.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import * as Child from "./Child.ts"
import * as Hold from "./Hold.ts"
import { chunked, Item } from "./Items.ts"

/** Items without end. */
export const Items = Event.make("bench:items", { payload: { chunk: Schema.Int }, success: Item, stream: true })
/** A fact to follow. */
export const Happened = Event.fact("bench:happened", { payload: { n: Schema.Int }, streamId: () => "bench" })

/** One fact: its place, when it was about to be said, and when whoever said it knew that it is durable. */
export type Said = readonly [position: number, before: number, after: number]

/** What the daemon is asked for. */
export type Order =
  | { readonly do: "memory" }
  /** How many items were made. */
  | { readonly do: "made" }
  /** Says so many facts, so many milliseconds apart, and half-way between them when it is, on the bare socket. */
  | { readonly do: "emit"; readonly count: number; readonly every: number }

let made = 0

const group = EventGroup.make(Items, Happened)
const handlers = group.toLayer({
  "bench:items": ({ chunk }) => chunked(chunk, (count) => (made += count)),
  "bench:happened": () => Effect.void
})

// As a user would raise them who has so many subscriptions in one program.
const limits = Layer.succeed(Limits.Limits, { ...Limits.defaults, connections: 10_100, connectionSubscriptions: 10_100 })

/** Who hears what goes past KSI. */
const bare = new Set<Net.Socket>()

const listenBare = async (path: string): Promise<void> => {
  const server = Net.createServer((socket) => {
    bare.add(socket.on("error", () => socket.destroy()).on("close", () => bare.delete(socket)))
  }).listen(path)
  await once(server, "listening")
}

const emit = Effect.fnUntraced(function*(ksi: Ksi["Service"], count: number, every: number) {
  const all: Array<Said> = []
  // However long one took: facts that were late are not said all at once.
  const half = Effect.promise(() => wait(every / 2))
  for (let n = 0; n < count; n++) {
    const before = Child.sharedNow()
    const { position } = yield* ksi.emit(Happened, { n })
    all.push([Number(position), before, Child.sharedNow()])
    yield* half
    for (const socket of bare) socket.write(`${Child.sharedNow()}\n`)
    yield* half
  }
  return all
})

/** Where times are said to whoever connects, with nothing of KSI between. */
export const bareOf = (socket: string): string => `${socket}-bare`

const serve = async (path: string, filename: string | undefined): Promise<void> => {
  const store: Layer.Layer<Runtime, unknown> = filename === undefined ? Ksi.layerMemory : Ksi.layerSqlite({ filename })
  const served = Layer.mergeAll(Ksi.serve(group).pipe(Layer.provide(handlers)), Hold.layer, Control.layer, Listener.layerUnix({ path }))
  const app = served.pipe(Layer.provideMerge(store), Layer.provide(limits))
  const started = await Effect.runPromise(Effect.gen(function*() {
    const context = yield* Layer.buildWithScope(app, Scope.makeUnsafe())
    const tcp = yield* Layer.buildWithScope(Layer.provide(Listener.layerTcp({ port: 0 }), limits), Scope.makeUnsafe()).pipe(Effect.provideContext(context))
    const { token } = yield* Context.get(context, Permissions).createToken({ by: "owner", profile: "trusted" })
    return { ksi: Context.get(context, Ksi), token, url: Context.get(tcp, Listener.Listener).address }
  }))
  const { ksi, token, url } = started
  await listenBare(bareOf(path))
  Child.obey<Order>({ token, url }, async (order) => {
    switch (order.do) {
      case "memory": return Child.memory()
      case "made": return made
      case "emit": return Effect.runPromise(emit(ksi, order.count, order.every))
    }
  })
}

// This file is also the program that serves.
const [, program, place = "", file] = process.argv
if (program === import.meta.filename) await serve(place, file)

/** A daemon that is ready. */
export interface Daemon {
  readonly socket: string
  /** Where it is on TCP, and who may come. */
  readonly tcp: { readonly url: string; readonly token: string }
  readonly memory: () => Promise<Child.Memory>
  readonly made: () => Promise<number>
  readonly emit: (count: number, every: number) => Promise<ReadonlyArray<Said>>
  readonly stop: () => Promise<void>
}

/** Starts one with its socket in a new folder; `durable` keeps what happens in a file there. */
export const start = async (folder: string, durable = false): Promise<Daemon> => {
  Fs.mkdirSync(folder, { mode: 0o700 })
  const socket = Path.join(folder, "s")
  const child = await Child.start(import.meta.filename, socket, ...durable ? [Path.join(folder, "events.db")] : [])
  // The other end is above.
  const ask = <A>(order: Order) => child.ask(order) as Promise<A>
  return {
    socket,
    tcp: child.ready as Daemon["tcp"], // `obey` above says it
    memory: () => ask({ do: "memory" }),
    made: () => ask({ do: "made" }),
    emit: (count, every) => ask({ do: "emit", count, every }),
    stop: child.stop
  }
}
