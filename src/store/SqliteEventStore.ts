/**
 * The event store in one SQLite file: durable, one writer, any number of readers.
 *
 * The rule: an append is answered after its commit. Appends that arrive in one turn of the event loop share a
 * transaction, so that a disk that syncs a few thousand times a second takes many times as many appends. Each is still
 * checked for itself: one that fails leaves no gap and does not disturb its neighbours.
 *
 * Facts are rows by position; who is in which stream is an index that is written behind, sorted (`StreamIndex`), and
 * streams, names and sources are numbers (`Dictionary`). The first opener holds `<file>.lock`; a second one gets
 * `StoreLocked`. When a commit fails (disk full, for one), its appends fail with `StoreFailure`, reading goes on, and so
 * does writing as soon as the disk allows.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const store = yield* EventStore.EventStore
 *   yield* store.appendTo("cart-1", [{ name: "cart:opened" }], { expectedVersion: 0 })
 * }).pipe(Effect.provide(SqliteEventStore.layer({ filename: "ksi.db" })))
 * ```
 *
 * **Gotchas** The connection is the store's own: a transaction of `SqliteClient` held open across a suspension could
 * otherwise make an append inside it wait for itself. What listeners get is read back from the text that was written,
 * so that nobody shares it with the caller.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Activity } from "../bus/Activity.ts"
import type { DeadLetters } from "../bus/DeadLetters.ts"
import type { Idempotency } from "../bus/Idempotency.ts"
import type { Append, Journal, Outcome } from "../bus/Journal.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import * as ActivityTable from "./ActivityTable.ts"
import * as Consumer from "./Consumer.ts"
import * as DeadLetterTable from "./DeadLetterTable.ts"
import * as EventStore from "./EventStore.ts"
import * as IdempotencyTable from "./IdempotencyTable.ts"
import { type Announcer, makeAnnouncer } from "./internal/Announcer.ts"
import { CorrelationIndex } from "./internal/CorrelationIndex.ts"
import { type FactPage, type FactSearch, goOn, windowOf } from "./internal/Driver.ts"
import { FactReader } from "./internal/FactReader.ts"
import { encode, type Encoded, FactWriter, storedFact, type Written } from "./internal/FactWriter.ts"
import { Retention } from "./internal/Retention.ts"
import { fromSortable, toSortable } from "./internal/sortable.ts"
import * as SnapshotTable from "./internal/SnapshotTable.ts"
import * as StoreFile from "./internal/StoreFile.ts"
import * as ReadModel from "./ReadModel.ts"
import { type NextTurn, nextTurn } from "./internal/turns.ts"
import * as StoreMaintenance from "./StoreMaintenance.ts"

/** How the store is opened. */
export interface Options extends StoreFile.Options {
  /** What the activity journal keeps of requests. */
  readonly audit?: ActivityTable.Options["audit"]
  /** Events held in memory before they are sorted into the stream index. Default: 16,384. */
  readonly indexThreshold?: number | undefined
}

const defaultThreshold = 16_384
// One transaction: so many appends, and no more once it has so many facts. Bounds how long it blocks the event loop.
const batchAppends = 512
const batchFacts = 4096

/** An append on its way. */
interface Entry {
  readonly request: Append
  readonly resume: (answer: Exit.Exit<ReadonlyArray<Outcome>, KsiError.KsiError>) => void
  encoded: Encoded | KsiError.KsiError | undefined
}

/** What an operator is told. */
interface Report {
  readonly listenerThrew: (cause: unknown) => void
  readonly storesNothing: (error: KsiError.KsiError) => void
  readonly storesAgain: () => void
}

/** Collects appends, commits them by the batch, tells listeners and callers. */
class GroupCommit {
  readonly append: Journal["Service"]["append"]
  private readonly writer: FactWriter
  private readonly clock: Clock.Clock
  private readonly announcer: Announcer
  private readonly report: Report
  private readonly nextTurn: NextTurn
  private readonly queue: Array<Entry> = []
  private scheduled = false
  private closed = false
  private failing = false

  constructor(
    writer: FactWriter,
    clock: Clock.Clock,
    announcer: Announcer,
    encodeAhead: number,
    report: Report,
    nextTurn: NextTurn
  ) {
    this.writer = writer
    this.clock = clock
    this.announcer = announcer
    this.report = report
    this.nextTurn = nextTurn
    this.append = (request) =>
      Effect.callback<ReadonlyArray<Outcome>, KsiError.KsiError>((resume) => {
        if (this.closed) return resume(Effect.fail(StoreFile.failure("append", new Error("it is closed"))))
        // Beyond the bound a caller waits in line with its facts as they are; texts are made when its turn is near.
        const encoded = this.queue.length < encodeAhead ? encode(request) : undefined
        const entry: Entry = { request, resume, encoded }
        this.queue.push(entry)
        this.schedule()
        return Effect.sync(() => {
          const index = this.queue.indexOf(entry)
          if (index >= 0) this.queue.splice(index, 1)
        })
      })
  }

  /** Commits what is waiting, and takes no more. */
  close(): void {
    this.closed = true
    while (this.queue.length > 0) this.drain()
  }

  private schedule(): void {
    if (this.scheduled) return
    this.scheduled = true
    this.nextTurn(() => {
      this.scheduled = false
      this.drain()
      if (this.queue.length > 0) this.schedule()
    })
  }

  /** The next batch: those that could not be written as JSON are answered at once. */
  private take(): { readonly entries: ReadonlyArray<Entry>; readonly appends: ReadonlyArray<Encoded> } {
    const entries: Array<Entry> = []
    const appends: Array<Encoded> = []
    let taken = 0
    let facts = 0
    while (taken < this.queue.length && appends.length < batchAppends && facts < batchFacts) {
      const entry = this.queue[taken++]
      if (entry === undefined) break
      const encoded = entry.encoded ?? encode(entry.request)
      if (KsiError.is(encoded)) entry.resume(Exit.fail(encoded))
      else {
        entries.push(entry)
        appends.push(encoded)
        facts += encoded.rows.length
      }
    }
    this.queue.splice(0, taken)
    return { entries, appends }
  }

  private drain(): void {
    const { appends, entries } = this.take()
    if (entries.length === 0) return
    try {
      const { answers, facts } = this.writer.commit(appends, this.clock.currentTimeMillisUnsafe())
      if (facts.length > 0 && !this.announcer.isIdle()) this.announcer.announce(facts.map(storedFact)).forEach(this.report.listenerThrew)
      answers.forEach((answer, i) =>
        entries[i]?.resume(KsiError.is(answer) ? Exit.fail(answer) : Exit.succeed(answer)))
      if (this.failing) this.report.storesAgain()
      this.failing = false
    } catch (cause) {
      const error = StoreFile.failure("append", cause)
      // Every caller is told; the log once, until it goes well again.
      if (!this.failing) this.report.storesNothing(error)
      this.failing = true
      const exit = Exit.fail(error)
      for (const entry of entries) entry.resume(exit)
    }
  }
}

const listStreams = (
  file: StoreFile.StoreFile["Service"],
  writer: FactWriter
): (options: Parameters<EventStore.Driver["streams"]>[0]) => ReadonlyArray<EventStore.StreamInfo> => {
  const page = file.db.prepare("SELECT id, text FROM streams WHERE text >= max(?1, ?2) AND text <> ?1 ORDER BY text LIMIT ?3")
  return ({ after = "", from = "", limit, prefix = "" }) => {
    const first = from > prefix ? from : prefix
    const infos: Array<EventStore.StreamInfo> = []
    for (const { id, text } of page.iterate(toSortable(after), toSortable(first), Math.max(0, Math.min(limit, Number.MAX_SAFE_INTEGER)))) {
      const streamId = fromSortable(String(text))
      if (!streamId.startsWith(prefix)) break
      infos.push({ streamId, version: writer.index.version(Number(id)) })
    }
    return infos
  }
}

const search = (
  reader: FactReader,
  { finder }: FactWriter,
  options: FactSearch
): FactPage => {
  const { high, low, next } = windowOf(options)
  const wanted = reader.rows(options.limit)
  const positions = finder.positions(options.query, { from: low, to: high, limit: wanted, backward: options.backward })
  const facts = reader.at(positions)
  const last = facts.at(-1)
  const isAll = last === undefined || (positions.length < wanted && facts.length === positions.length)
  return { facts, next: isAll ? next : goOn(options, last.position) }
}

/** What takes facts out of a file, and the settings by which it does. */
const retention = (
  file: StoreFile.StoreFile["Service"],
  reader: FactReader,
  writer: FactWriter,
  clock: Clock.Clock,
  announce: (facts: ReadonlyArray<Written>) => void
): Pick<EventStore.Driver, "details" | "configure" | "applyRetention" | "deleteStream" | "onRemoved"> => {
  const retention = new Retention(file.db, reader, writer)
  return {
    details: (streamId) => StoreFile.attempt("read", () => retention.details(streamId)),
    configure: (streamId, settings) => StoreFile.attempt("configure", () => retention.configure(streamId, settings)),
    applyRetention: (options) => StoreFile.attempt("retain", () => retention.apply(options, clock.currentTimeMillisUnsafe())),
    deleteStream: (tombstone, expectedVersion) =>
      StoreFile.attempt("delete", () => {
        const { facts, outcome } = retention.deleteStream(tombstone, expectedVersion, clock.currentTimeMillisUnsafe())
        announce(facts)
        return outcome
      }),
    onRemoved: (hook) => void reader.removals.hooks.push(hook)
  }
}

/** The driver over an open file. */
const makeDriver = (options: Options): Effect.Effect<
  EventStore.Driver,
  KsiError.KsiError,
  StoreFile.StoreFile | Scope.Scope
> =>
  Effect.gen(function*() {
    const file = yield* StoreFile.StoreFile
    const limits = yield* Limits.Limits
    const clock = yield* Clock.Clock
    const context = yield* Effect.context()
    const [reader, writer] = yield* StoreFile.attempt("open", () => {
      const reader = new FactReader(file.db, limits.pageBytes)
      return [reader, new FactWriter(file, reader, options.indexThreshold ?? defaultThreshold)] as const
    })
    const fork = Effect.runForkWith(context)
    const report: Report = {
      listenerThrew: (cause) => void fork(Effect.logError("a listener of the store threw", cause)),
      storesNothing: (error) => void fork(Effect.logError("facts are not stored", error.message)),
      storesAgain: () => void fork(Effect.logInfo("facts are stored again"))
    }
    const announcer = makeAnnouncer()
    const commits = yield* Effect.acquireRelease(
      Effect.map(nextTurn, (nextTurn) => new GroupCommit(writer, clock, announcer, limits.appendQueue, report, nextTurn)),
      (commits) => Effect.sync(() => commits.close())
    )
    const streams = yield* StoreFile.attempt("open", () => listStreams(file, writer))
    const snapshots = SnapshotTable.make(file)
    reader.removals.hooks.push(({ positions: [fromPosition = 0], streamId }) => snapshots.forget({ streamId, fromPosition }))
    const correlations = yield* StoreFile.attempt("open", () => new CorrelationIndex(file.db, file.transactionBehind))
    // A turn of the event loop between slices, so that everything else goes on meanwhile.
    const correlated: Effect.Effect<void, KsiError.KsiError> = Effect.flatMap(
      StoreFile.attempt("index by correlation", () => correlations.advance(writer.head)),
      (isDone) => isDone ? Effect.void : Effect.andThen(Effect.yieldNow, correlated)
    )
    return {
      append: commits.append,
      head: () => writer.head,
      listen: announcer.listen,
      read: ({ from, limit, to }) =>
        StoreFile.attempt("read", () => {
          const first = Math.max(1, from)
          const last = Math.min(to ?? writer.head, writer.head)
          return first > last || limit < 1 ? [] : reader.read(first, last, limit)
        }),
      readStream: ({ backward = false, from, limit, streamId, to = Number.MAX_SAFE_INTEGER }) =>
        StoreFile.attempt("read", () => {
          const stream = reader.streams.find(streamId)
          if (stream === undefined || limit < 1) return []
          const rows = reader.rows(limit)
          const first = Math.max(from, reader.removals.first(stream))
          const last = Math.min(to, writer.index.version(stream), first + rows - 1)
          const onDisk = !backward && first <= last && last < writer.index.firstRecent(stream)
          return (onDisk ? reader.ofIndex(stream, first, last) : undefined) ??
            reader.at(writer.index.positions({ stream, from, to, limit: rows, backward }))
        }),
      search: (options) => StoreFile.attempt("read", () => search(reader, writer, options)),
      streams: (options) => StoreFile.attempt("read", () => streams(options)),
      ...retention(file, reader, writer, clock, (facts) => {
        if (!announcer.isIdle()) announcer.announce(facts.map(storedFact)).forEach(report.listenerThrew)
      }),
      byId: (id) => StoreFile.attempt("read", () => reader.byId(id)),
      byCorrelation: ({ correlationId, from, limit }) =>
        Effect.andThen(correlated, StoreFile.attempt("read", () =>
          limit < 1 ? [] : reader.at(correlations.positions(correlationId, from, reader.rows(limit))))),
      snapshots,
      join: (participant) => writer.participants.join(participant),
      describe: { kind: "sqlite", file: file.filename }
    }
  })

/** What one file holds: the facts, the requests, the reactions that failed, the answers under idempotency keys. */
export const layer = (
  options: Options
): Layer.Layer<EventStore.EventStore | Journal | Activity | DeadLetters | Idempotency | ReadModel.ReadModels | Consumer.Consumers, KsiError.KsiError> =>
  Layer.mergeAll(
    Layer.provideMerge(Layer.mergeAll(ReadModel.layerTable, Consumer.layerTable, StoreMaintenance.layer), EventStore.layerOf(makeDriver(options))),
    ActivityTable.layer({ audit: options.audit }),
    DeadLetterTable.layer,
    IdempotencyTable.layer
  ).pipe(Layer.provide(Layer.effect(StoreFile.StoreFile, StoreFile.make(options))))
