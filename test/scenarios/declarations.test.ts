// The expense declarations of a university, two years of real events: imported as they came, in another order, twice,
// and with a late one, then asked what was known at noon of 15 March 2018. The answers are computed a second time here,
// from the file, without KSI.
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Result, Stream } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Util from "node:util"
import * as Zlib from "node:zlib"
import { Journal } from "../../src/bus/Journal.ts"
import * as CloudEvent from "../../src/event/CloudEvent.ts"
import * as Json from "../../src/event/Json.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"
import { Home } from "./Daemon.ts"

const file = Path.join(import.meta.dirname, "../../../shared/data/domestic-declarations.ndjson.gz")
const absent = !Fs.existsSync(file)
if (absent) process.stderr.write("declarations: skipped, ../shared/data/domestic-declarations.ndjson.gz is not there\n")

interface Line {
  readonly id: string
  readonly type: string
  readonly subject: string
  readonly time: string
  readonly data: Readonly<Record<string, unknown>>
}

const noon = Date.parse("2018-03-15T12:00:00Z")
const lines = absent ? [] : Zlib.gunzipSync(Fs.readFileSync(file)).toString("utf8").split("\n").filter((line) => line !== "")
const events = lines.map((line): Line => JSON.parse(line))
const decode = (line: string) => Result.getOrThrow(CloudEvent.decode(Json.parse(line)))
const facts = lines.map(decode)

/** What `TimeTravel.at` must say, by another road. */
const known = (list: ReadonlyArray<Line>, until: number) => {
  const versions = new Map<string, number>()
  const answer = new Map<string, TimeTravel.Moment<unknown>>()
  let counted = 0
  for (const event of list) {
    const streamId = event.subject
    const version = (versions.get(streamId) ?? 0) + 1
    versions.set(streamId, version)
    if (Date.parse(event.time) > until) continue
    counted++
    const state = Object.assign({}, answer.get(streamId)?.state, event.data)
    answer.set(streamId, {
      streamId, version, lastEvent: event.type, lastEventId: event.id, timestamp: event.time, state
    })
  }
  const ids = [...answer.keys()].toSorted((a, b) => a < b ? -1 : a > b ? 1 : 0)
  return { counted, moments: ids.map((id) => answer.get(id)) }
}

/** Each event at most about `window` places from where it was; the same every time. */
const shuffled = <A>(list: ReadonlyArray<A>, window: number): ReadonlyArray<A> => {
  let seed = 20_180_315
  const random = () => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32
  return list.map((item, index) => ({ item, at: index + random() * window }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item)
}

const importAll = (list: ReadonlyArray<CloudEvent.NewFact>) =>
  Effect.gen(function*() {
    const journal = yield* Journal
    const counts = { appended: 0, duplicate: 0, conflict: 0 }
    for (let from = 0; from < list.length; from += 1000) {
      const outcomes = yield* journal.append({ facts: list.slice(from, from + 1000), mode: "each" })
      for (const { kind } of outcomes) counts[kind]++
    }
    return counts
  })

const atNoon = TimeTravel.at(Projection.latest, { instant: noon })

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-declarations-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
)

const stores = [
  ["memory", Layer.fresh(EventStore.layerMemory)],
  ["SQLite", Layer.unwrap(Effect.map(folder, (path) => SqliteEventStore.layer({ filename: Path.join(path, "ksi.db") })))]
] as const

describe.skipIf(absent)("the declarations", () => {
  it("are 3,790 of 18,034 events at noon of 15 March 2018, counted without KSI", () => {
    const { counted, moments } = known(events, noon)
    expect([counted, moments.length]).toEqual([18_034, 3_790])
  })

  describe.each(stores)("in %s", (_name, layer) => {
    it.effect("the past is what the file says, also after a back-dated event; importing twice changes nothing", () =>
      Effect.gen(function*() {
        const store = yield* EventStore.EventStore
        expect(yield* importAll(facts)).toEqual({ appended: lines.length, duplicate: 0, conflict: 0 })
        const { moments } = known(events, noon)
        expect(yield* atNoon).toEqual(moments)
        const position = BigInt(events.findIndex(({ time }) => Date.parse(time) > noon))
        expect(yield* TimeTravel.at(Projection.latest, { position })).toEqual(moments)
        for (const index of [0, 1234, 3789]) {
          const streamId = moments[index]?.streamId ?? ""
          expect(yield* TimeTravel.at(Projection.latest, { streamId, instant: noon })).toEqual(moments[index])
        }

        expect(yield* importAll(facts)).toEqual({ appended: 0, duplicate: lines.length, conflict: 0 })
        expect(store.head()).toBe(lines.length)
        const back = yield* Stream.runCollect(store.all())
        const changed = back.filter((fact, index) => {
          const { position, version, ...event } = CloudEvent.encode(fact)
          return position !== index + 1 || version !== fact.version || !Util.isDeepStrictEqual(event, events[index])
        })
        expect([back.length, changed]).toEqual([lines.length, []])

        const late = (id: string, subject: string, time: string) => ({
          specversion: "1.0", id, source: "/test", type: "declaration:corrected", subject, time, data: { Amount: -1, note: null }
        })
        const corrections = [
          late("late-1", moments[1000]?.streamId ?? "", "2018-03-01T08:00:00+02:00"),
          late("late-2", "declaration-forgotten", "2018-03-15T12:00:00.000Z"),
          late("late-3", moments[2000]?.streamId ?? "", "2018-03-15T12:00:00.001Z")
        ]
        yield* importAll(corrections.map((event) => decode(JSON.stringify(event))))
        const after = known([...events, ...corrections], noon)
        expect([after.counted, after.moments.length]).toEqual([18_036, 3_791])
        expect(yield* atNoon).toEqual(after.moments)
      }).pipe(Effect.provide(layer)), 60_000)

    it.effect("the order of arrival decides what overwrites what, never what had happened", () =>
      Effect.gen(function*() {
        const order = shuffled([...events.keys()], 2000)
        yield* importAll(order.flatMap((index) => facts[index] ?? []))
        const { counted, moments } = known(order.flatMap((index) => events[index] ?? []), noon)
        expect([counted, moments.length]).toEqual([18_034, 3_790])
        expect(moments).not.toEqual(known(events, noon).moments)
        expect(yield* atNoon).toEqual(moments)
      }).pipe(Effect.provide(layer)), 60_000)
  })
})

describe.skipIf(absent)("by command line, against a real daemon", () => {
  /** What `ksi time at` prints, each line as it is written there. */
  const printed = async (home: Home) => {
    const { code, stdout } = await home.ksi("time", "at", "2018-03-15T12:00:00Z", "--json")
    expect(code).toBe(0)
    return stdout.trimEnd().split("\n").map((line): unknown => JSON.parse(line))
  }
  const importedBy = async (home: Home, source: string) => {
    const { code, stderr, stdout } = await home.ksi("import", source, "--json")
    expect([code, stderr]).toEqual([0, ""])
    return JSON.parse(stdout) as { readonly imported: number; readonly duplicates: number; readonly rejected: number }
  }

  it("the file as it came, again, and with a late event", async () => {
    await using home = new Home()
    await home.start()
    expect(await importedBy(home, file)).toMatchObject({ imported: 55_628, duplicates: 0, rejected: 0 })
    expect(await importedBy(home, file)).toMatchObject({ imported: 0, duplicates: 55_628, rejected: 0 })
    const { counted, moments } = known(events, noon)
    expect([counted, moments.length]).toEqual([18_034, 3_790])
    expect(await printed(home)).toEqual(moments)

    const late = { id: "late-1", type: "declaration:corrected", subject: "declaration86791", time: "2017-06-01T08:00:00Z", data: { Amount: 1 } }
    const more = Path.join(home.path, "late.ndjson")
    Fs.writeFileSync(more, JSON.stringify({ specversion: "1.0", source: "/tue/DomesticDeclarations", ...late }))
    expect(await importedBy(home, more)).toMatchObject({ imported: 1 })
    expect(await printed(home)).toEqual(known([...events, late], noon).moments)
  }, 60_000)

  it("shuffled in a window, into a fresh home", async () => {
    await using home = new Home()
    await home.start()
    const order = shuffled(lines.map((line, index) => ({ line, index })), 400)
    const source = Path.join(home.path, "shuffled.ndjson")
    Fs.writeFileSync(source, `${order.map(({ line }) => line).join("\n")}\n`)
    expect(await importedBy(home, source)).toMatchObject({ imported: 55_628 })
    const asImported = order.flatMap(({ index }) => events[index] ?? [])
    expect(await printed(home)).toEqual(known(asImported, noon).moments)
  }, 60_000)
})
