/**
 * What the cases of the conformance suite are made of: a promise, facts to append, and ways to look at the answers.
 */
import * as assert from "node:assert/strict"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Journal, type Outcome } from "../../bus/Journal.ts"
import type * as CloudEvent from "../../event/CloudEvent.ts"
import type * as KsiError from "../../event/KsiError.ts"
import { EventStore } from "../../store/EventStore.ts"

/** One promise of the contract. */
export interface Case {
  /** The promise, as a sentence. */
  readonly name: string
  /** Dies with an `AssertionError` where the promise is broken. Needs a fresh store. */
  readonly run: Effect.Effect<void, KsiError.KsiError, EventStore | Journal>
}

/** The store under test. */
export type Store = EventStore["Service"]

/** A case: its promise and what shows that it is kept. */
export const promise = (
  name: string,
  body: (store: Store, journal: Journal["Service"]) => Effect.Effect<void, KsiError.KsiError, Scope.Scope>
): Case => ({
  name,
  run: Effect.scoped(Effect.gen(function*() {
    yield* body(yield* EventStore, yield* Journal)
  }))
})

/** A fact of stream "a". */
export const fact = (id: string, other: Partial<CloudEvent.NewFact> = {}): CloudEvent.NewFact => ({
  id,
  source: "/suite",
  name: "suite:happened",
  streamId: "a",
  data: { id },
  time: undefined,
  attributes: {},
  ...other
})

/** Facts with the ids "1", "2" and so on. */
export const facts = (count: number, other: (index: number) => Partial<CloudEvent.NewFact> = () => ({})) =>
  Array.from({ length: count }, (_, index) => fact(`${index + 1}`, other(index)))

/** 1 to `count`. */
export const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)
/** Positions, in the order given. */
export const positions = (list: ReadonlyArray<{ readonly position: number }>) => list.map(({ position }) => position)
/** Versions, in the order given. */
export const versions = (list: ReadonlyArray<{ readonly version: number }>) => list.map(({ version }) => version)
/** What became of each fact. */
export const kinds = (outcomes: ReadonlyArray<Outcome>) => outcomes.map(({ kind }) => kind)

/** The reason of a failure; a success breaks the promise. */
export const refused = <A, Tag extends KsiError.Reason["_tag"]>(
  effect: Effect.Effect<A, KsiError.KsiError>,
  tag: Tag
): Effect.Effect<Extract<KsiError.Reason, { readonly _tag: Tag }>> =>
  Effect.match(effect, {
    onSuccess: () => assert.fail(`expected ${tag}, but it succeeded`),
    onFailure: ({ reason }) => {
      assert.equal(reason._tag, tag, reason.message)
      // The line above has just compared the tag.
      return reason as Extract<KsiError.Reason, { readonly _tag: Tag }>
    }
  })

/** That an effect fails with `PayloadInvalid`, at this path only. */
export const invalidAt = <A>(path: string, effect: Effect.Effect<A, KsiError.KsiError>) =>
  Effect.map(refused(effect, "PayloadInvalid"), ({ problems }) => assert.deepEqual(problems.map((p) => p.path), [path]))

/** The first facts of the store, as many as fit a page. */
export const everything = (store: Pick<Store, "read">) => store.read({ from: 1, limit: 10_000 })
