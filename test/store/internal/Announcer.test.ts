import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import type { StoredFact } from "../../../src/event/CloudEvent.ts"
import { makeAnnouncer } from "../../../src/store/internal/Announcer.ts"

const commit = (position: number): ReadonlyArray<StoredFact> => [{
  id: `${position}`, source: "/test", name: "a:b", streamId: "a", data: undefined, time: undefined, attributes: {},
  position, version: position, timestamp: 0, recordedAt: 0
}]

const make = () => {
  const announcer = makeAnnouncer()
  const heard: Array<string> = []
  const hear = (who: string, then: (position: number) => void = () => {}) =>
    announcer.listen(([fact]) => {
      heard.push(`${who}${fact?.position}`)
      then(fact?.position ?? 0)
    })
  return { announcer, heard, hear }
}

describe("an announcer", () => {
  it.effect("keeps the order of commits for every listener, even when one of them commits", () =>
    Effect.gen(function*() {
      const { announcer, heard, hear } = make()
      yield* hear("a", (position) => void (position === 1 && announcer.announce(commit(2))))
      yield* hear("b")
      expect(announcer.announce(commit(1))).toEqual([])
      expect(heard).toEqual(["a1", "b1", "a2", "b2"])
    }))

  it.effect("one that comes while a commit is told hears the next one; one that goes hears nothing more", () =>
    Effect.gen(function*() {
      const { announcer, heard, hear } = make()
      const scope = yield* Effect.scope
      const leaving = yield* Scope.make()
      yield* hear("a", (position) => {
        if (position !== 1) return
        Effect.runSync(Scope.provide(hear("late"), scope))
        Effect.runSync(Scope.close(leaving, Exit.void))
      })
      yield* Scope.provide(hear("gone"), leaving)
      announcer.announce(commit(1))
      announcer.announce(commit(2))
      expect(heard).toEqual(["a1", "a2", "late2"])
    }))

  it.effect("answers with what was thrown, and tells the others all the same", () =>
    Effect.gen(function*() {
      const { announcer, heard, hear } = make()
      yield* announcer.listen(() => {
        throw "not today"
      })
      yield* hear("a")
      expect(announcer.announce(commit(1))).toEqual(["not today"])
      expect(heard).toEqual(["a1"])
    }))

  it.effect("is idle where nobody listens, and while all who do are", () =>
    Effect.gen(function*() {
      const { announcer, hear } = make()
      expect(announcer.isIdle()).toBe(true)
      yield* Effect.scoped(Effect.andThen(hear("a"), Effect.sync(() => expect(announcer.isIdle()).toBe(false))))
      expect(announcer.isIdle()).toBe(true)
      let isIdle = true
      yield* announcer.listen(() => {}, () => isIdle)
      expect(announcer.isIdle()).toBe(true)
      isIdle = false
      expect(announcer.isIdle()).toBe(false)
      isIdle = true
      yield* hear("b")
      expect(announcer.isIdle()).toBe(false)
    }))
})
