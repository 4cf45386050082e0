// Rows that are written behind: all of them, whoever is interrupted while they are written.
import { expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Metric, Scope } from "effect"
import { MaxOpsBeforeYield } from "effect/Scheduler"
import * as WriteBehind from "../../../src/store/internal/WriteBehind.ts"

const lost = Metric.counter("write_behind_test_lost", { incremental: true })

it.live("who is interrupted while it writes loses no row, wherever it is", () =>
  Effect.gen(function*() {
    for (let steps = 0; steps < 60; steps++) {
      const written: Array<number> = []
      const scope = Scope.makeUnsafe()
      const { flush, push } = yield* Scope.provide(WriteBehind.make<number>({
        operation: "write", write: (batch) => void written.push(...batch), max: 1000, whenFull: "slow", rows: "numbers", lost
      }), scope)
      for (let row = 0; row < 600; row++) push(row)
      // It gives way after every step: so it can be interrupted between any two.
      const writer = yield* Effect.forkChild(Effect.provideService(flush, MaxOpsBeforeYield, 3))
      for (let step = 0; step < steps; step++) yield* Effect.yieldNow
      yield* Fiber.interrupt(writer)
      yield* Scope.close(scope, Exit.void)
      expect(written).toEqual(Array.from({ length: 600 }, (_, row) => row))
    }
  }))

it.live("who waits for room goes on when there is some, also where the writer makes it before that one waits", () =>
  Effect.gen(function*() {
    const written: Array<number> = []
    const { flush, push } = yield* WriteBehind.make<number>({
      operation: "write", write: (batch) => void written.push(...batch), max: 5, whenFull: "slow", rows: "numbers", lost
    })
    push(0)
    // The writer waits for its 25 ms, or for a full buffer.
    yield* flush
    for (let row = 1; row <= 20; row++) yield* push(row) ?? Effect.void
    yield* flush
    expect(written).toEqual(Array.from({ length: 21 }, (_, row) => row))
  }))

it.live("what comes while it writes waits for the next batch: else each turn's few rows would be one", () =>
  Effect.gen(function*() {
    const batches: Array<number> = []
    const buffer: WriteBehind.WriteBehind<number> = yield* WriteBehind.make<number>({
      operation: "write",
      write: (batch) => {
        batches.push(batch.length)
        // Requests that end as soon as there is a turn.
        if (batches.length < 100) for (const row of batch.slice(0, 10)) buffer.push(row)
      },
      max: 5000, whenFull: "slow", rows: "numbers", lost
    })
    for (let row = 0; row < 1000; row++) buffer.push(row)
    yield* buffer.flush
    expect(batches).toEqual([512, 498])
  }))
