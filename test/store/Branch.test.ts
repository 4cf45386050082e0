import { describe, expect, it } from "@effect/vitest"
import { Effect, JsonPatch, Layer, Schema } from "effect"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseTime, type StoredFact } from "../../src/event/CloudEvent.ts"
import * as Json from "../../src/event/Json.ts"
import * as Branch from "../../src/store/Branch.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"
import { seeded } from "../Seeded.ts"
import { append, Count, Counted, everything, factsOf, fold, memory, stores, streams, valueOf } from "./histories.ts"

const { latest } = Projection
const text = (value: unknown) => Json.canonicalText(value)
const moments = [{}, { position: 33n }, { position: 33 }, { instant: parseTime("2026-01-14T00:00:00Z") }, { instant: parseTime("2026-01-14T00:00:00Z"), position: 40n }] as const

/** The history with edits, made by hand: a list of facts out of which some are taken, in which some are changed, into which some are put. */
const edited = (facts: ReadonlyArray<StoredFact>, edits: ReadonlyArray<Branch.Edit>): ReadonlyArray<StoredFact> => {
  const inserted = (after: number) =>
    edits.flatMap((edit, i): ReadonlyArray<StoredFact> => edit.kind !== "insert" || Number(edit.after) !== after ? [] : [{
      id: `i${i}`, source: "/x", attributes: {}, time: undefined, timestamp: 0, recordedAt: 0, position: after, version: 1,
      name: edit.fact.name, data: edit.fact.data, streamId: edit.fact.streamId ?? expect.fail("no stream")
    }])
  const list = facts.flatMap((fact) => {
    const edit = edits.find((edit) => edit.kind !== "insert" && (edit.target === fact.id || Number(edit.target) === fact.position))
    const instead = edit === undefined || edit.kind === "insert" ? [fact] : edit.kind === "drop" ? [] : [{ ...fact, data: edit.by.data }]
    return [...instead, ...inserted(fact.position)]
  })
  return [...inserted(0), ...list]
}

const randomEdits = (seed: number, length: number, last: number): ReadonlyArray<Branch.Edit> => {
  const random = seeded(seed)
  const targets = new Set<number>()
  return Array.from({ length }, (): Branch.Edit => {
    const position = 1 + random(last)
    if (random(3) === 0 || targets.has(position)) {
      return Branch.insert({ name: "test:x", data: valueOf(random), streamId: streams[random(3)] ?? "s-0" }, random(last + 1))
    }
    targets.add(position)
    const target = [BigInt(position), position, `f${position}`][random(3)] ?? position
    return random(2) === 0 ? Branch.drop(target) : Branch.replace(target, { data: valueOf(random) })
  })
}

for (const [where, layer] of stores) {
  describe(`branch, ${where}`, () => {
    it.effect("without edits is the real line", () =>
      Effect.gen(function*() {
        yield* append(factsOf(41, 50))
        for (const at of moments) {
          for (const streamId of streams) {
            const { lines } = yield* Branch.branch(latest, { at, streamId })
            const real = yield* TimeTravel.at(latest, { ...at, streamId })
            expect(lines).toEqual([{
              streamId, real: real.state, branch: real.state, versions: { real: real.version, branch: real.version },
              changes: [], patch: [], divergence: undefined, misfits: []
            }])
          }
          expect((yield* Branch.branch(latest, { at })).lines).toEqual([])
        }
      }).pipe(Effect.provide(layer)))

    it.effect("with edits is the fold of the edited list", () =>
      Effect.gen(function*() {
        yield* append(factsOf(43, 50))
        const facts = yield* everything
        let diverged = 0
        for (let seed = 0; seed < 60; seed++) {
          const at = moments[seed % 2] ?? {}
          const last = "position" in at ? 33 : 50
          const edits = randomEdits(seed, 1 + seed % 4, last)
          const history = facts.slice(0, last)
          const changed = edited(history, edits)
          const { lines, position } = yield* Branch.branch(latest, { at, edits })
          expect(position).toBe(last)
          expect(lines.length).toBeGreaterThan(0)
          for (const { branch, divergence, misfits, patch, real, streamId, versions } of lines) {
            const of = (list: ReadonlyArray<StoredFact>) => list.filter((fact) => fact.streamId === streamId)
            expect(text(branch), `seed ${seed}`).toBe(text(fold(latest, of(changed))))
            expect(text(real)).toBe(text(fold(latest, of(history))))
            expect([versions, misfits]).toEqual([{ real: of(history).length, branch: of(changed).length }, []])
            expect(text(JsonPatch.apply(patch as JsonPatch.JsonPatch, real as Schema.Json))).toBe(text(branch))
            // Where they part: the same facts before it, others from it on.
            if (divergence === undefined) expect(patch).toEqual([])
            else {
              diverged++
              expect(Json.equal(divergence.real, divergence.branch)).toBe(false)
            }
          }
          for (const streamId of streams) {
            if (lines.some((line) => line.streamId === streamId)) continue
            expect(changed.filter((fact) => fact.streamId === streamId)).toEqual(history.filter((fact) => fact.streamId === streamId))
          }
        }
        expect(diverged).toBeGreaterThan(30)
      }).pipe(Effect.provide(layer)))

    it.effect("with a fact dropped is the fold of what is left, of what had happened by an instant", () =>
      Effect.gen(function*() {
        yield* append(factsOf(47, 50))
        const facts = yield* everything
        const instant = parseTime("2026-01-14T00:00:00Z") ?? 0
        for (const { position, streamId } of facts) {
          const { lines } = yield* Branch.branch(latest, { at: { instant }, edits: [Branch.drop(BigInt(position))] })
          const left = facts.filter((fact) => fact.streamId === streamId && fact.position !== position && fact.timestamp <= instant)
          expect(lines.map(({ branch, streamId }) => [streamId, text(branch)])).toEqual([[streamId, text(fold(latest, left))]])
        }
      }).pipe(Effect.provide(layer)))
  })
}

describe("branch", () => {
  const Spent = Projection.make("spent", {
    events: [Counted], state: Schema.Int, initial: 10,
    on: { [Counted.name]: (state, { by }) => {
      if (state + by < 0) throw new Error("nothing left to spend")
      return state + by
    } }
  })
  const counts = (...by: ReadonlyArray<unknown>) =>
    append(by.map((n, i) => ({ id: `c${i + 1}`, source: "/t", name: Counted.name, streamId: "a", data: { by: n }, time: undefined, attributes: {} })))
  const only = Effect.map(({ lines: [line] }: Branch.Branch<number, number>) => line ?? expect.fail("no line"))

  it.effect("tells where it parts, and which facts no longer fit", () =>
    Effect.gen(function*() {
      yield* counts(-5, 20, -18, -6)
      const line = yield* only(Branch.branch(Spent, { edits: [Branch.drop("c2")] }))
      expect(line).toMatchObject({ real: 1, branch: 5, versions: { real: 4, branch: 3 }, patch: [{ op: "replace", path: "", value: 5 }] })
      expect(line.divergence).toMatchObject({ fact: { position: 2 }, real: 25, branch: 5 })
      expect(line.misfits.map(({ fact, problem }) => [fact.position, fact.version, problem])).toEqual([[3, 2, "nothing left to spend"], [4, 3, "nothing left to spend"]])
      const strange = yield* only(Branch.branch(Spent, { edits: [Branch.replace(2n, { data: { by: "much" } })] }))
      expect(strange.misfits[0]).toMatchObject({ fact: { position: 2 }, problem: "the fact \"c2\" at position 2 is no test:counted any more: by: expected number, got \"much\"" })
    }).pipe(Effect.provide(memory)))

  it.effect("inserts in the order of the edits, also into streams that do not exist; what is inserted has the time of what is before it", () =>
    Effect.gen(function*() {
      yield* counts(1)
      const { lines } = yield* Branch.branch(latest, {
        edits: [
          Branch.insert({ name: "n", data: { x: 1 }, streamId: "new" }, 0n),
          Branch.insert({ name: "n", data: { x: 2, y: 2 }, streamId: "new" }, 0n),
          Branch.insert({ name: "n", data: { x: 0 }, streamId: "a" }, 1n)
        ]
      })
      expect(lines.map(({ branch, real, streamId }) => [streamId, real, branch])).toEqual([["a", { by: 1 }, { by: 1, x: 0 }], ["new", {}, { x: 2, y: 2 }]])
      expect(lines[1]?.divergence?.fact).toMatchObject({ position: 0, id: "imagined-1", name: "n" })
      const [a] = lines
      expect(a?.divergence?.fact).toMatchObject({ position: 1, version: 0, recordedAt: (yield* everything)[0]?.recordedAt })
    }).pipe(Effect.provide(memory)))

  it.effect("reads the branch with other code, of every stream", () =>
    Effect.gen(function*() {
      yield* counts(1, 2)
      yield* append([{ id: "b", source: "/t", name: Counted.name, streamId: "b", data: { by: 5 }, time: undefined, attributes: {} }])
      const Doubled = Projection.make("doubled", {
        events: [Counted], state: Schema.Struct({ twice: Schema.Int }), initial: { twice: 0 },
        on: { [Counted.name]: ({ twice }, { by }) => ({ twice: twice + 2 * by }) }
      })
      const { lines } = yield* Branch.branch(Count, { edits: [Branch.drop(1n)], projection: Doubled })
      expect(lines.map(({ branch, divergence, real, streamId }) => [streamId, real, branch, divergence?.fact.position]))
        .toEqual([["a", 3, { twice: 4 }, 1], ["b", 5, { twice: 10 }, 3]])
    }).pipe(Effect.provide(memory)))

  it.effect("refuses edits that make no sense", () =>
    Effect.gen(function*() {
      yield* counts(1, 2)
      yield* append([{ id: "c1", source: "/other", name: "n", streamId: "b", data: {}, time: undefined, attributes: {} }])
      const reason = (options: Branch.Options) => Effect.map(Effect.flip(Branch.branch(latest, options)), (error) => error.reason)
      for (const target of [4n, 0n, 1.5, Number.NaN, "c9"]) expect(yield* reason({ edits: [Branch.drop(target)] })).toMatchObject({ _tag: "NotFound", what: "fact", id: String(target) })
      expect(yield* reason({ streamId: "b", edits: [Branch.drop(1n)] })).toMatchObject({ _tag: "NotFound", detail: "in b up to position 3" })
      expect(yield* reason({ at: { position: 1n }, edits: [Branch.drop(2n)] })).toMatchObject({ _tag: "NotFound" })
      expect(yield* reason({ streamId: "nope" })).toMatchObject({ _tag: "NotFound", what: "stream" })
      const problem = Effect.fnUntraced(function*(options: Branch.Options) {
        const found = yield* reason(options)
        return found._tag === "PayloadInvalid" ? found.problems.map(({ path, problem }) => `${path}: ${problem}`).join() : found._tag
      })
      expect(yield* problem({ edits: [Branch.drop("c1")] })).toBe("edits.0: several facts have the id \"c1\"; say a position")
      expect(yield* problem({ edits: [Branch.drop(1n), Branch.replace(1n, { data: 1 })] })).toBe("edits.1: the fact at position 1 is edited twice")
      expect(yield* problem({ edits: [Branch.insert({ name: "n" }, 1n)] })).toBe("edits.0: which stream does the inserted fact belong to?")
      expect(yield* problem({ edits: [Branch.insert({ name: "n", streamId: "a" }, 4n)] })).toBe("edits.0: the history has the positions 1 to 3; 0 is before them")
      expect(yield* problem({ streamId: "a", edits: [Branch.insert({ name: "n", streamId: "b" }, 0n)] })).toBe("edits.0: the branch is of a only")
      expect(yield* problem({ edits: [Branch.replace(1n, { time: "noon" })] })).toBe("edits.0: its time \"noon\" is no RFC 3339 text")
    }).pipe(Effect.provide(memory)))

  it.effect("leaves the store byte for byte as it was, and tells nobody anything", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-branch-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const bytes = () => readdirSync(folder).toSorted().filter((name) => !name.endsWith("-shm")).map((name) => [name, readFileSync(join(folder, name)).toString("base64")])
      yield* Effect.gen(function*() {
        yield* append(factsOf(53, 50))
        const store = yield* EventStore.EventStore
        let heard = 0
        yield* store.listen(() => void heard++)
        const before = bytes()
        for (let seed = 0; seed < 20; seed++) yield* Branch.branch(latest, { edits: randomEdits(seed, 3, 50) })
        yield* Branch.branch(Count, { edits: randomEdits(99, 3, 50), projection: latest })
        expect(bytes()).toEqual(before)
        expect([store.head(), heard]).toEqual([50, 0])
      }).pipe(Effect.provide(Layer.fresh(SqliteEventStore.layer({ filename: join(folder, "ksi.db") }))))
    }))
})
