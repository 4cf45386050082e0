// A consumer group and an inline read model of processes that are killed: every fact is handled, each stream's in order, and the
// model is what a full replay gives.
import { expect, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Ksi } from "../../src/Ksi.ts"
import * as Consumer from "../../src/store/Consumer.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as ReadModel from "../../src/store/ReadModel.ts"
import { group, Sums } from "./crash/consumer.ts"

const script = join(import.meta.dirname, "crash", "consumer.ts")

it.live("kill -9: nothing that was stored stays unhandled, and no stream is handled out of order", () =>
  Effect.gen(function*() {
    const folder = Fs.mkdtempSync(join(tmpdir(), "ksi-consumers-"))
    yield* Effect.addFinalizer(() => Effect.sync(() => Fs.rmSync(folder, { recursive: true })))
    const [filename, told] = [join(folder, "ksi.db"), join(folder, "told")]
    for (const steps of [31, 60, 1]) {
      const { signal, stderr } = spawnSync(process.execPath, [
        "--disable-warning=ExperimentalWarning", "--conditions=ksi-source", script, filename, told, `${steps}`
      ], { encoding: "utf8", timeout: 20_000, env: { ...process.env, NODE_COMPILE_CACHE: join(import.meta.dirname, "../../node_modules/.cache/ksi") } })
      expect({ signal, stderr }).toEqual({ signal: "SIGKILL", stderr: "" })
    }
    yield* Effect.gen(function*() {
      const store = yield* EventStore
      // As it was found, before anybody writes again.
      const facts = yield* store.read({ from: 1, limit: 100_000 })
      const sums = new Map<string, number>()
      for (const fact of facts) sums.set(fact.streamId, Result.getOrThrow(Sums.apply(sums.get(fact.streamId) ?? 0, fact)))
      const models = yield* ReadModel.ReadModels
      expect((yield* models.list("sums")).map(({ key, state }) => [key, state])).toEqual([...sums].toSorted(([a], [b]) => a < b ? -1 : 1))
      yield* Layer.build(group((line) => Fs.appendFileSync(told, `${line}\n`), () => {}))
      yield* Consumer.settled("counting")

      const lines = Fs.readFileSync(told, "utf8").trimEnd().split("\n").map((line) => line.split(" "))
      const positions = (what: string) => lines.filter(([kind]) => kind === what).map(([, position]) => Number(position))
      const handled = positions("handled")
      expect(positions("stored").filter((position) => !facts.some((fact) => fact.position === position))).toEqual([])
      expect([...new Set(handled)].toSorted((a, b) => a - b)).toEqual(facts.map(({ position }) => position))
      // Again is allowed; before its time is not.
      const streamOf = new Map(facts.map(({ position, streamId }) => [position, streamId]))
      for (const stream of sums.keys()) {
        const first = [...new Set(handled.filter((position) => streamOf.get(position) === stream))]
        expect(first).toEqual(first.toSorted((a, b) => a - b))
      }
      // What was noted as handled is not handled again.
      expect(handled.length - facts.length).toBeLessThan(3 * 2 * 16)
    }).pipe(Effect.scoped, Effect.provide(Ksi.layerSqlite({ filename, sync: "normal" })))
  }).pipe(Effect.scoped), 60_000)
