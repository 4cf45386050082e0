/**
 * `store:backup`, `store:verify` and `store:compact`: what an operator does with a store that is being written.
 *
 * The rule: others go on meanwhile. A backup is a file of the machine that the daemon runs on, so it is named by an
 * absolute path, and only the owner may have one made.
 *
 * **Example**
 *
 * ```ts
 * const ksi = yield* KsiService
 * const refused = yield* Effect.flip(ksi.call(Maintenance.Backup, { file: "/backups/ksi.db" }))
 * refused.message   // "the store failed to back up: it is in memory and has no file; ksi export writes its facts down"
 * const { removed } = yield* ksi.call(Maintenance.Compact, {})
 * removed                                     // []
 * ```
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Path from "node:path"
import * as Router from "../bus/Router.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import * as KsiError from "../event/KsiError.ts"
import * as StoreBackup from "../store/StoreBackup.ts"
import { StoreMaintenance } from "../store/StoreMaintenance.ts"
import { Count, optional } from "./internal/fields.ts"

/** Copies the store. */
export const Backup = Event.make("store:backup", {
  payload: {
    file: Schema.String.annotate({ description: "absolute path of the file to make" }),
    force: optional(Schema.Boolean, "replace a file that is there")
  },
  success: Schema.Struct({
    file: Schema.String,
    bytes: Count,
    position: Count.annotate({ description: "the last fact in it" })
  }),
  annotations: {
    description: "Copies the store as it is at this moment into a file, and reads that back, while facts are stored. " +
      "`ksi restore` puts it in the place of a store.",
    examples: [{ file: "/var/backups/ksi.db" }]
  }
})

/** Looks at the whole store. */
export const Verify = Event.make("store:verify", {
  payload: { quick: optional(Schema.Boolean, "only pages and layout, not every fact") },
  success: Schema.Struct({
    file: Schema.String,
    format: Count,
    position: Count.annotate({ description: "the last fact" }),
    checks: Schema.Array(Schema.Struct({
      check: Schema.String,
      count: Count.annotate({ description: "how many were looked at" }),
      what: Schema.String.annotate({ description: "what they are" }),
      wrong: Count.annotate({ description: "how many are not as they should be" })
    })),
    problems: Schema.Array(Schema.Struct({
      check: Schema.String,
      problem: Schema.String,
      mend: Schema.String.annotate({ description: "what to do" })
    })).annotate({ description: "the first ones of each check" })
  }),
  idempotent: true,
  annotations: {
    description: "Looks at every page and every fact of the store's file, while facts are stored. What is wrong is in `problems`.",
    examples: [{}, { quick: true }]
  }
})

/** Makes the store smaller. */
export const Compact = Event.make("store:compact", {
  success: Schema.Struct({
    bytesBefore: Count.annotate({ description: "bytes of the file and its log" }),
    bytesAfter: Count,
    bytesFree: Count.annotate({ description: "those that are free in the file and were not given back" }),
    removed: Schema.Array(Schema.Struct({ what: Schema.String, count: Count }))
  }),
  idempotent: true,
  annotations: {
    description: "Removes what may go and gives free pages of the file back to the disk, a few at a time, while facts are stored.",
    examples: [{}]
  }
})

/** The events of an operator. */
export const Group = EventGroup.make(Backup, Verify, Compact)

const invalid = (path: string, problem: string) => KsiError.fail(KsiError.invalidAt(Backup.name, path, problem))

const handlers = Group.toLayer(Effect.gen(function*() {
  const { backup, compact, file: store, verify } = yield* StoreMaintenance
  return {
    *"store:backup"({ file, force }: Event.Payload<typeof Backup>) {
      if (!Path.isAbsolute(file)) return yield* invalid("file", "must be an absolute path")
      const problem = store === undefined ? undefined : StoreBackup.nameProblem({ from: store, to: file, force })
      return problem === undefined ? yield* backup({ to: file, force }) : yield* invalid("file", problem)
    },
    *"store:verify"({ quick = false }: Event.Payload<typeof Verify>) {
      const report = yield* verify({ quick })
      return { file: store ?? "", ...report }
    },
    "store:compact": () => compact
  }
}))

/** Serves them. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)
