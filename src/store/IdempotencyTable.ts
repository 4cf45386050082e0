/**
 * Answers under their idempotency keys, in a table: the same request is carried out once, also across a restart.
 *
 * The rule: between the look at what is kept and the claim of a key nobody gets in, so of any number of callers one
 * runs. Its answer is committed, then told. Answers of one turn of the event loop share a commit. They are kept for 24
 * hours, at most `idempotencyKeys` of them; each commit sweeps a few old ones away.
 *
 * **Example**
 *
 * ```ts
 * const { once } = yield* Idempotency
 * const key = { principal: "owner", event: "stock:reserve", key: "k1" }
 * yield* once(key, { sku: "tea", quantity: 1 }, Effect.succeed("h1"))
 * const conflict = yield* Effect.flip(once(key, { sku: "tea", quantity: 2 }, Effect.succeed("h2")))
 * conflict.reason._tag                        // "IdempotencyConflict"
 * ```
 *
 * **Gotchas** A process that dies after the work and before the commit forgets that it ran: the work runs again then.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { hash } from "node:crypto"
import type { SQLOutputValue } from "node:sqlite"
import { Idempotency, type IdempotencyKey } from "../bus/Idempotency.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import { onForget } from "./Forgetting.ts"
import { BoundedMap } from "./internal/BoundedMap.ts"
import * as StoreFile from "./internal/StoreFile.ts"
import { nextTurn } from "./internal/turns.ts"

const keptMillis = 24 * 60 * 60 * 1000
const batchRows = 512
/** Answers that could not be committed and wait for somebody to ask again. */
const unsavedRows = 1024

// ------------------------------------------------------------------------------------------------------------ answers

type Kind = "success" | "failure" | "ksi"

/** Which request. */
interface Request {
  /** Digest of the key. */
  readonly id: string
  /** Digest of the payload. */
  readonly request: string
}

/** How it was answered. */
interface Outcome {
  readonly kind: Kind
  /** JSON; null for no value. */
  readonly value: string | null
}

/** An answer as it is kept. */
interface Row extends Request, Outcome {
  /** Milliseconds since 1970. */
  readonly expires: number
}

type AnyExit = Exit.Exit<unknown, unknown>

const encodeReason = Schema.encodeUnknownSync(KsiError.ReasonJson)
const decodeReason = Schema.decodeUnknownSync(KsiError.ReasonJson)

const digest = (text: string): string => hash("sha256", text, "base64url")

/** Digests of key and payload: short, whatever a client sends, and the same for the same JSON. */
const requestOf = (
  { event, key, principal }: IdempotencyKey,
  payload: unknown
): Result.Result<Request, KsiError.KsiError> =>
  Result.try({
    try: () => ({ id: digest(JSON.stringify([principal, event, key])), request: digest(Json.canonicalText(payload)) }),
    // The one thing that can be wrong with JSON: it is nested deeper than the stack.
    catch: (cause) => KsiError.make(KsiError.invalidAt(event, "", KsiError.sentenceOf(cause)))
  })

/** What of an exit is kept, if anything. Throws a `TypeError` where that is not JSON. */
const outcomeOf = (exit: AnyExit): Outcome | undefined => {
  const textOf = (value: unknown): string | null => JSON.stringify(value) ?? null
  if (Exit.isSuccess(exit)) return { kind: "success", value: textOf(exit.value) }
  const [first] = exit.cause.reasons
  // Beside a defect or an interruption, a failure does not say how it ended.
  if (first === undefined || !Cause.isFailReason(first) || !exit.cause.reasons.every(Cause.isFailReason)) return undefined
  const { error } = first
  if (!KsiError.is(error)) return { kind: "failure", value: textOf(error) }
  return error.retryable ? undefined : { kind: "ksi", value: textOf(encodeReason(error.reason)) }
}

/** The answer again. Throws where it cannot be read: a newer KSI may have written a reason that this one does not know. */
const exitOf = ({ kind, value }: Outcome): AnyExit => {
  const json = value === null ? undefined : Json.parse(value)
  if (kind === "success") return Exit.succeed(json)
  return kind === "failure" ? Exit.fail(json) : KsiError.exit(decodeReason(json))
}

// --------------------------------------------------------------------------------------------------------------- rows

/** Where answers are kept. */
interface Rows {
  /** The answer under a key, also one that has expired. May throw. */
  readonly find: (id: string) => Row | undefined
  /** Keeps an answer; done when it is durable. `now` in milliseconds since 1970. */
  readonly save: (row: Row, now: number) => Effect.Effect<void, KsiError.KsiError>
}

const makeMemory = (keep: number): Rows & { readonly forget: () => boolean } => {
  const rows = new Map<string, Row>()
  return {
    find: (id) => rows.get(id),
    save: (row, now) =>
      Effect.sync(() => {
        rows.delete(row.id)
        rows.set(row.id, row)
        for (const [id, { expires }] of rows) {
          if (rows.size <= keep && expires > now) break
          rows.delete(id)
        }
      }),
    forget: () => {
      rows.clear()
      return true
    }
  }
}

const rowOf = (row: Record<string, SQLOutputValue>): Row => ({
  id: String(row["id"]),
  request: String(row["request"]),
  // Only this module writes the column.
  kind: row["kind"] as Kind,
  value: typeof row["value"] === "string" ? row["value"] : null,
  expires: Number(row["expires"])
})

const makeTable = ({ db, transaction }: StoreFile.StoreFile["Service"], keep: number) => {
  const find = db.prepare("SELECT * FROM idempotency WHERE id = ?")
  const insert = db.prepare("INSERT OR REPLACE INTO idempotency VALUES (NULL, ?, ?, ?, ?, ?)")
  const last = db.prepare("SELECT max(row) AS row FROM idempotency")
  // Only the oldest few are looked at, so that a sweep costs the same however many there are.
  const sweep = db.prepare(`DELETE FROM idempotency WHERE row IN (
    SELECT row FROM (SELECT row, expires FROM idempotency ORDER BY row LIMIT ?) WHERE row <= ? OR expires <= ?)`)
  return {
    find: (id: string): Row | undefined => {
      const row = find.get(id)
      return row === undefined ? undefined : rowOf(row)
    },
    write: (batch: ReadonlyArray<Row>, now: number): void =>
      transaction(() => {
        for (const { expires, id, kind, request, value } of batch) insert.run(id, request, kind, value, expires)
        sweep.run(2 * batch.length, Number(last.get()?.["row"]) - keep, now)
      })
  }
}

type Saved = Exit.Exit<void, KsiError.KsiError>

/** An answer that waits for its commit. */
interface Waiting {
  readonly row: Row
  readonly now: number
  readonly resume: (saved: Saved) => void
}

/** Answers in the file: those of one turn of the event loop share a transaction. */
const makeInFile = (
  file: StoreFile.StoreFile["Service"],
  keep: number
): Effect.Effect<Rows, KsiError.KsiError, Scope.Scope> =>
  Effect.gen(function*() {
    const { find, write } = yield* StoreFile.attempt("open", () => makeTable(file, keep))
    const inNextTurn = yield* nextTurn
    const queue: Array<Waiting> = []
    let closed = false

    const drain = (): void => {
      const batch = queue.splice(0, batchRows)
      const [first] = batch
      if (first === undefined) return
      let exit: Saved = Exit.void
      try {
        write(batch.map(({ row }) => row), first.now)
      } catch (cause) {
        exit = Exit.fail(StoreFile.failure("keep an answer", cause))
      }
      for (const { resume } of batch) resume(exit)
      if (queue.length > 0) inNextTurn(drain)
    }
    yield* Effect.addFinalizer(() => Effect.sync(() => {
      closed = true
      while (queue.length > 0) drain()
    }))

    return {
      find,
      save: (row, now) =>
        Effect.callback<void, KsiError.KsiError>((resume) => {
          if (closed) return resume(Effect.fail(StoreFile.failure("keep an answer", new Error("it is closed"))))
          if (queue.push({ row, now, resume }) === 1) inNextTurn(drain)
        })
    }
  })

// --------------------------------------------------------------------------------------------------------------- once

/** Somebody who runs for a key. */
interface Running {
  readonly request: string
  /** How it ended; `undefined` where whoever waits must run itself. */
  readonly ended: Deferred.Deferred<AnyExit | undefined>
}

type Work = Effect.Effect<unknown, unknown, unknown>

const make = (rows: Rows): Idempotency["Service"] => {
  const running = new Map<string, Running>()
  const unsaved = new BoundedMap<string, Row>(unsavedRows / 2)

  /** Commits an answer. One that cannot be committed stays in memory, for whoever asks next. */
  const save = (answer: Request & Outcome) =>
    Effect.clockWith((clock) => {
      const now = clock.currentTimeMillisUnsafe()
      const { id, kind, request, value } = answer
      const row = { id, request, kind, value, expires: now + keptMillis }
      unsaved.set(id, row)
      return Effect.map(rows.save(row, now), () => unsaved.delete(id))
    })

  /** Runs, keeps what is to be kept, and answers. */
  const perform = (request: Request, work: Work): Work =>
    Effect.flatMap(Effect.exit(work), (exit) => {
      const outcome = outcomeOf(exit)
      return outcome === undefined ? exit : Effect.andThen(save({ ...request, ...outcome }), exit)
    })

  /** Claims the key for `run`, and tells whoever waits how it ended. Must not be interrupted. */
  const claim = ({ id, request }: Request, run: Work): Work => {
    const mine: Running = { request, ended: Deferred.makeUnsafe() }
    running.set(id, mine)
    return Effect.onExit(run, (exit) => {
      running.delete(id)
      const isAnswer = Exit.isSuccess(exit) || exit.cause.reasons.every(Cause.isFailReason)
      Deferred.doneUnsafe(mine.ended, Effect.succeed(isAnswer ? exit : undefined))
      return Effect.void
    })
  }

  const attempt = (key: IdempotencyKey, request: Request, work: Work): Work =>
    // One function from the look to the claim: an effect in between would let others in.
    Effect.uninterruptibleMask((restore) => Effect.clockWith((clock): Work => {
      const { id } = request
      const conflict = () => KsiError.exit(new KsiError.IdempotencyConflict({ event: key.event, key: key.key }))
      const other = running.get(id)
      if (other !== undefined) {
        if (other.request !== request.request) return conflict()
        return restore(Effect.flatMap(Deferred.await(other.ended), (exit) => exit ?? attempt(key, request, work)))
      }
      const late = unsaved.get(id)
      const found = late === undefined ? lookUp(rows, id) : Result.succeed(late)
      if (Result.isFailure(found)) return Effect.fail(found.failure)
      const kept = found.success
      if (kept === undefined || kept.expires <= clock.currentTimeMillisUnsafe()) {
        return claim(request, perform(request, restore(work)))
      }
      if (kept.request !== request.request) return conflict()
      const answer = Effect.flatten(StoreFile.attempt("read an answer", () => exitOf(kept)))
      return late === undefined ? answer : claim(request, Effect.andThen(save(late), answer))
    }))

  return Idempotency.of({
    once: <A, E, R>(key: IdempotencyKey, payload: unknown, work: Effect.Effect<A, E, R>) =>
      Effect.suspend((): Effect.Effect<A, E | KsiError.KsiError, R> => {
        const request = requestOf(key, payload)
        if (Result.isFailure(request)) return Effect.fail(request.failure)
        // What comes out is what `work` answered, now or before: the caller's own types.
        return attempt(key, request.success, work) as Effect.Effect<A, E | KsiError.KsiError, R>
      })
  })
}

const lookUp = (rows: Rows, id: string): Result.Result<Row | undefined, KsiError.KsiError> =>
  Result.try({ try: () => rows.find(id), catch: (cause) => StoreFile.failure("look for an answer", cause) })

// ------------------------------------------------------------------------------------------------------------- layers

/** Answers in the store's file. */
export const layer: Layer.Layer<Idempotency, KsiError.KsiError, StoreFile.StoreFile> = Layer.effect(
  Idempotency,
  Effect.gen(function*() {
    const file = yield* StoreFile.StoreFile
    const { idempotencyKeys } = yield* Limits.Limits
    return make(yield* makeInFile(file, idempotencyKeys))
  })
)

/** Answers in memory, gone with who has them. */
export const inMemory: Effect.Effect<Idempotency["Service"]> = Effect.gen(function*() {
  const rows = makeMemory((yield* Limits.Limits).idempotencyKeys)
  yield* onForget(rows.forget)
  return make(rows)
})

/** `inMemory` as a layer. */
export const layerMemory: Layer.Layer<Idempotency> = Layer.effect(Idempotency, inMemory)
