/** A subscription, and a stream with a cursor, over a way that is cut again and again, at points that a seed says: what they were told. */
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Event from "../../../src/event/Event.ts"
import * as EventGroup from "../../../src/event/EventGroup.ts"
import { Ksi } from "../../../src/Ksi.ts"
import * as Remote from "../../../src/wire/Remote.ts"

const Happened = Event.fact("c:happened", { payload: { n: Schema.Int }, streamId: ({ n }) => `s-${n % 3}` })
const Count = Event.make("c:count", {
  payload: { to: Schema.Int, after: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(0))) },
  success: Schema.Struct({ n: Schema.Int }),
  stream: true,
  cursor: ({ n }, { to }) => ({ to, after: n })
})
const Group = EventGroup.make(Happened, Count)

const handlers = Group.toLayer({
  "c:happened": () => Effect.void,
  "c:count": ({ after, to }) => Stream.range(after + 1, to).pipe(
    Stream.tap((n) => n % 12 === 0 ? Effect.sleep(1) : Effect.void), Stream.rechunk(3), Stream.map((n) => ({ n }))
  )
})

/** Whole numbers below one, as a seed has them. */
export const makeChance = (seed: number) => {
  let state = seed >>> 0
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * below)
  }
}

/** A way to a socket that ends after so many bytes from there, each time anew. */
const waysEnd = (to: string, way: string, bytes: () => number) => {
  const ends = new Set<() => void>()
  let cuts = 0
  const server = Net.createServer((near) => {
    const far = Net.connect(to)
    let left = bytes()
    const end = () => {
      ends.delete(end)
      near.destroy()
      far.destroy()
    }
    ends.add(end)
    near.on("error", end).on("close", end)
    far.on("error", end).on("close", end)
    near.pipe(far)
    far.on("data", (chunk) => {
      // The last of it arrives, though it is half a frame.
      near.write(chunk.subarray(0, Math.max(0, Math.min(left, chunk.length))), () => {
        if (left <= 0) end()
      })
      const before = left
      left -= chunk.length
      if (before > 0 && left <= 0) cuts++
    })
  })
  return {
    listen: Effect.callback<void>((resume) => void server.listen(way, () => resume(Effect.void))),
    close: Effect.sync(() => {
      server.close()
      for (const end of ends) end()
    }),
    cuts: () => cuts
  }
}

interface Cut {
  /** Of the facts that were told. */
  readonly positions: ReadonlyArray<number>
  readonly items: ReadonlyArray<number>
  readonly cuts: number
}

/** Facts are emitted while a program follows them over a way that is cut, and counts to as many. */
export const cutting = (seed: number, facts: number): Effect.Effect<Cut, unknown> =>
  Effect.scoped(Effect.gen(function*() {
    const chance = makeChance(seed)
    const place = yield* Effect.acquireRelease(
      Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-cutting-"))),
      (place) => Effect.sync(() => Fs.rmSync(place, { recursive: true, force: true }))
    )
    const [path, path2] = [Path.join(place, "run", "daemon.sock"), Path.join(place, "way.sock")]
    const daemon = yield* Layer.build(Ksi.listen({ path }).pipe(
      Layer.provideMerge(Ksi.serve(Group).pipe(Layer.provide(handlers))), Layer.provideMerge(Ksi.layerMemory)
    ))
    let isCutting = true
    const way = waysEnd(path, path2, () => isCutting ? 300 + chance(1500) : Infinity)
    yield* Effect.acquireRelease(way.listen, () => way.close)
    const near = yield* Effect.provideContext(Effect.flatMap(Ksi, Effect.succeed), daemon)
    const far = yield* Effect.provideContext(Effect.flatMap(Ksi, Effect.succeed), yield* Layer.build(Remote.layer({ url: path2 })))
    yield* near.emit(Happened, { n: 1 })
    const following = yield* Effect.forkChild(Stream.runCollect(Stream.take(far.subscribe(Happened, { from: 1 }), facts)))
    const counting = yield* Effect.forkChild(Stream.runCollect(far.stream(Count, { to: facts })))
    for (let n = 2; n <= facts; n++) {
      yield* near.emit(Happened, { n })
      if (chance(10) === 0) yield* Effect.sleep(chance(15))
    }
    // What is left comes piece by piece, and then the way stays.
    yield* Effect.sleep(50)
    isCutting = false
    const told = yield* Fiber.join(following)
    const items = yield* Fiber.join(counting)
    return { positions: told.map(({ position }) => Number(position)), items: items.map(({ n }) => n), cuts: way.cuts() }
  }))
