// A process that appends, keeps an inline read model, and works for a consumer group, until it dies in the middle of the n-th fact that it
// handles. What it was told and what it handled it says first, in a file that outlives it.
import { Effect, Layer, Logger, Schema } from "effect"
import { openSync, writeSync } from "node:fs"
import * as Event from "../../../src/event/Event.ts"
import { Ksi } from "../../../src/Ksi.ts"
import * as Consumer from "../../../src/store/Consumer.ts"
import { EventStore } from "../../../src/store/EventStore.ts"
import * as Projection from "../../../src/store/Projection.ts"
import * as ReadModel from "../../../src/store/ReadModel.ts"

export const streams = 5
export const Counted = Event.fact("crash:counted", { payload: { n: Schema.Int }, streamId: ({ n }) => `stream-${n % streams}` })

/** The sum of every stream. */
export const Sums = Projection.make("sums", {
  events: [Counted], state: Schema.Int, initial: 0, on: { [Counted.name]: (sum, { n }) => sum + n }
})

/** Handles facts by saying their positions; `dies` is asked before and after each. */
export const group = (say: (line: string) => void, dies: () => void) =>
  Consumer.layer("counting", {
    events: [Counted], start: "start", concurrency: 3, window: 16,
    handler: (_, { position }) =>
      Effect.gen(function*() {
        dies()
        // Some take longer than others.
        if (Number(position) % 7 === 0) yield* Effect.sleep(1)
        say(`handled ${position}`)
        dies()
      })
  })

/** What this process is about: a file, where it says things, and how many steps it has to live. */
const life = (filename: string, told: string, steps: number) => {
  const out = openSync(told, "a")
  const say = (line: string): void => void writeSync(out, `${line}\n`)
  let left = steps
  const appending = Effect.gen(function*() {
    const store = yield* EventStore
    for (let n = 0;; n++) {
      const [outcome] = yield* store.appendTo(`stream-${n % streams}`, [{ name: Counted.name, data: { n } }])
      say(`stored ${outcome?.position}`)
    }
  })
  const dies = () => {
    if (--left <= 0) process.kill(process.pid, "SIGKILL")
  }
  return Effect.scoped(Effect.andThen(
    Layer.build(Layer.mergeAll(ReadModel.layer(Sums, { mode: "inline" }), group(say, dies))),
    appending
  )).pipe(Effect.provide(Ksi.layerSqlite({ filename, sync: "normal" })), Effect.provide(Logger.layer([])))
}

const [, script = "", filename, told, steps] = process.argv
if (script === import.meta.filename && filename !== undefined && told !== undefined) await Effect.runPromise(life(filename, told, Number(steps)))
