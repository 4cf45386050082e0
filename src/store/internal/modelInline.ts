// A version of a read model that changes in the transactions of the facts themselves. A fact that cannot be folded is refused with
// its append; so this version never stops, and never is behind.
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import { collect, counts, fold, type Folding, keptStates, problemOf, rowsOf } from "./modelFolding.ts"
import type { ChangedRow } from "./ModelRows.ts"
import type { Participant } from "./Participants.ts"

/** After so many positions without a fact that counts, how far the version is gets written all the same: a start looks at the rest. */
const savedEvery = 10_000

interface Changed<S> {
  readonly state: S
  readonly row: ChangedRow
}

/** A version that takes part, once it is at `from`, the end of the store. */
export interface Inline extends Participant {
  /** Writes how far it is, when nothing is under way. */
  readonly save: (head: number) => void
}

/** Makes a version take part. */
export const makeInline = <S>({ format, projection, rows }: Folding<S>, set: number, from: number): Inline => {
  const { name } = projection
  /** States that were used last, as they are kept. */
  const kept = new Map<string, S>()
  /** What the batch at hand changes. */
  const changed = new Map<string, Changed<S>>()
  let saved = from
  let written = from

  const read = (key: string): S => {
    const text = rows.now.state(set, key)
    if (text === undefined) return projection.initial
    try {
      return format.decode(Json.parse(text))
    } catch (cause) {
      throw new Error(`the kept state of "${key}" is none of this projection (${problemOf(cause)}); give it another version`, { cause })
    }
  }
  const stateOf = (key: string): S => {
    const change = changed.get(key)
    if (change !== undefined) return change.state
    // Looked up twice where a state is undefined.
    const known = kept.get(key)
    return known !== undefined || kept.has(key) ? known as S : read(key) // what is there is one
  }
  const refused = (fact: StoredFact | undefined, problem: string) => {
    const which = fact === undefined ? "" : `${fact.name} in "${fact.streamId}": `
    return KsiError.make(new KsiError.StoreFailure({ operation: `keep the inline read model "${name}"`, problem: which + problem, refused: true }))
  }

  return {
    handles: (name, streamId) => counts(projection, name, streamId),
    prepare: (facts) => {
      const { changes, failure } = fold(projection, collect(projection, facts), stateOf, from)
      if (failure !== undefined) return refused(facts.find(({ position }) => position === failure.position), failure.problem)
      const texts = rowsOf(projection, changes)
      if (typeof texts === "string") return refused(facts.length === 1 ? facts[0] : undefined, texts)
      return () => {
        for (const row of texts) {
          const change = changes.get(row.key)
          if (change !== undefined) changed.set(row.key, { state: change.state, row })
        }
      }
    },
    write: (head) => {
      if (changed.size === 0 && head - saved < savedEvery) return
      rows.now.write({ set, from: saved, position: head, rows: Array.from(changed.values(), ({ row }) => row) })
      written = head
    },
    ended: (isCommitted) => {
      if (isCommitted) saved = written
      else written = saved
      if (changed.size === 0) return
      if (isCommitted) {
        if (kept.size > keptStates) kept.clear()
        for (const [key, { row, state }] of changed) {
          if (row.state === undefined) kept.delete(key)
          else kept.set(key, state)
        }
      }
      changed.clear()
    },
    save: (head) => {
      if (head > saved) rows.now.commit({ set, from: saved, position: head, rows: [] })
      saved = written = head
    }
  }
}
