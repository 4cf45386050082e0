// The facts and requests of a trace in their places: which stands below which, when, and for how long.
import type { ActivityRecord, OutcomeKind } from "../../bus/Activity.ts"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Envelope from "../../event/Envelope.ts"
import * as FactWalk from "./factWalk.ts"

// ------------------------------------------------------------------------------------------------------------- models

interface Common {
  readonly id: string
  /** The node above it; `null` at the top. */
  readonly parent: string | null
  /** How far it is from its root, by its own words. */
  readonly depth: number
  /** When it began, in milliseconds after the trace did. */
  readonly offset: number
}

/** A request: a span of time. */
export interface RequestNode extends Common {
  readonly kind: "request"
  readonly event: string
  /** When it began, in RFC 3339. */
  readonly timestamp: string
  readonly principal: string
  readonly outcome: OutcomeKind
  /** The tag of what it failed with, where it has one. */
  readonly reason?: string
  /** One sentence, where it did not succeed. */
  readonly error?: string
  /** Milliseconds. */
  readonly duration: number
  /** Milliseconds of those in which none of the requests that it caused ran. */
  readonly own: number
}

/** A fact: a moment. */
export interface FactNode extends Common {
  readonly kind: "fact"
  readonly event: string
  /** When it happened, in its own words: RFC 3339. When it was stored is what `offset` says. */
  readonly timestamp: string
  readonly principal: string
  readonly position: number
  readonly version: number
  readonly streamId: string
}

/** A cause of which nothing is recorded, or not any more. */
export interface MissingNode extends Common {
  readonly kind: "missing"
}

/** What happened, in its place. */
export type Node = RequestNode | FactNode | MissingNode

/** A tree of causes; or several, where a client gave its label more than once. */
export interface Trace {
  /** What was asked for. */
  readonly id: string
  /** Each after what caused it; what was caused by the same in the order in which it began. */
  readonly nodes: ReadonlyArray<Node>
  /** Milliseconds from its beginning to the end of what ended last. */
  readonly duration: number
  /** Whether it is longer than was asked for: then its latest part is missing. */
  readonly more: boolean
}

// ----------------------------------------------------------------------------------------------------------- the tree

/** A node before it has its place. */
interface Item {
  readonly id: string
  readonly cause: string | undefined
  readonly root: string
  readonly depth: number
  readonly start: number
  readonly end: number
  readonly order: number
  readonly of: ActivityRecord | StoredFact | undefined
}

const ofRequest = (record: ActivityRecord): Item => ({
  id: record.id, cause: record.causationId, root: record.correlationId, depth: record.depth,
  start: record.timestamp, end: record.timestamp + record.duration, order: 0, of: record
})

const ofFact = (fact: StoredFact): Item => {
  const { causationId, correlationId, depth } = Envelope.metadataOf(fact, fact.timestamp)
  return { id: fact.id, cause: causationId, root: correlationId, depth, start: fact.recordedAt, end: fact.recordedAt, order: fact.position, of: fact }
}

const inOrder = (a: Item, b: Item): number =>
  a.start - b.start || a.order - b.order || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

/** What caused a recorded thing and is not recorded itself stands where the first thing does that it caused. */
const missingOf = (id: string, { depth, end, root, start }: Item): Item => ({
  // What lies between it and the root nobody knows.
  id, cause: id === root ? undefined : root, root, depth: id === root ? 0 : Math.max(1, depth - 1), start, end, order: -1, of: undefined
})

/** The items with those that their causes lack, by id. */
const completed = (items: ReadonlyArray<Item>): ReadonlyMap<string, Item> => {
  const known = new Map<string, Item>()
  // A request and a fact, or facts of several sources, with one id: what was caused stands below the first.
  for (const item of items) known.set(known.has(item.id) ? `${item.id} ${item.order}` : item.id, item)
  for (const item of items) {
    for (let at = item; at.cause !== undefined && !known.has(at.cause);) {
      const missing = missingOf(at.cause, at)
      known.set(missing.id, missing)
      at = missing
    }
  }
  return known
}

/** Milliseconds of a span in which none of these spans is. */
const uncovered = ({ end, start }: Item, spans: ReadonlyArray<Item>): number => {
  let left = end - start
  let until = start
  for (const span of [...spans].toSorted(inOrder)) {
    const from = Math.max(until, span.start)
    const to = Math.min(end, span.end)
    if (to > from) left -= to - from
    until = Math.max(until, to)
  }
  return Math.max(0, left)
}

const rounded = (millis: number): number => Math.round(millis * 1000) / 1000

const nodeOf = (item: Item, parent: string | null, begun: number, children: ReadonlyArray<Item>): Node => {
  const { depth, id, of } = item
  const place = { id, parent, depth, offset: rounded(item.start - begun) }
  if (of === undefined) return { kind: "missing", ...place }
  const { name: event } = of
  if ("position" in of) {
    const { position, recordedAt, streamId, version } = of
    const { principal } = Envelope.metadataOf(of, recordedAt)
    return { kind: "fact", event, ...place, timestamp: FactWalk.timeOf(of), principal, position, version, streamId }
  }
  const { duration, error, outcome, principal, reason, timestamp } = of
  const failed = { ...(reason === undefined ? {} : { reason }), ...(error === undefined ? {} : { error }) }
  const own = rounded(uncovered(item, children))
  return { kind: "request", event, ...place, timestamp: Envelope.timeText(timestamp), principal, outcome, ...failed, duration: rounded(duration), own }
}

/** The tree of the first `limit` of these. `more` says whether there are others besides. */
export const treeOf = (
  id: string,
  facts: ReadonlyArray<StoredFact>,
  requests: ReadonlyArray<ActivityRecord>,
  { limit, more }: { readonly limit: number; readonly more: boolean }
): Trace => {
  const all = [...requests.map(ofRequest), ...facts.map(ofFact)].toSorted(inOrder)
  const known = completed(all.slice(0, limit))
  const items = [...known.values()].toSorted(inOrder)
  const below = new Map<Item | undefined, Array<Item>>()
  for (const item of items) {
    const cause = item.cause === undefined ? undefined : known.get(item.cause)
    const above = cause === item ? undefined : cause
    const siblings = below.get(above)
    if (siblings === undefined) below.set(above, [item])
    else siblings.push(item)
  }
  const begun = items.reduce((least, { start }) => Math.min(least, start), Infinity)
  const nodes: Array<Node> = []
  const visited = new Set<Item>()
  // Not by recursion: a chain may be as deep as somebody said it was. Facts from elsewhere may claim to have caused each other.
  for (const root of [...(below.get(undefined) ?? []), ...items]) {
    const stack: Array<readonly [Item, string | null]> = [[root, null]]
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const [item, parent] = next
      if (visited.has(item)) continue
      visited.add(item)
      const children = below.get(item) ?? []
      nodes.push(nodeOf(item, parent, begun, children))
      for (const child of children.toReversed()) stack.push([child, item.id])
    }
  }
  const ended = items.reduce((most, { end }) => Math.max(most, end), begun)
  return { id, nodes, duration: rounded(ended - begun), more: more || all.length > limit }
}
