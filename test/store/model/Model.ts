// A store as a list, and what an append to it comes to: no index, no batch, no disk. What the drivers do is held against it.
import type { Append, Outcome } from "../../../src/bus/Journal.ts"
import type { Item } from "../../../src/event/FactQuery.ts"

/** A fact as the model knows it. */
export interface Fact {
  readonly id: string
  readonly name: string
  readonly streamId: string
  readonly tags: ReadonlyArray<string>
  readonly data: number
}

/** An append to the model. */
export interface Request {
  readonly facts: ReadonlyArray<Fact>
  readonly mode: "all" | "each"
  readonly expectedVersion?: number
  readonly expectedVersions?: ReadonlyArray<{ readonly streamId: string; readonly version: number }>
  readonly condition?: { readonly query: ReadonlyArray<Item>; readonly after: number }
}

/** What an append comes to. */
export type Answer =
  | { readonly kind: "stored"; readonly outcomes: ReadonlyArray<Outcome>; readonly log: ReadonlyArray<Fact> }
  | { readonly kind: "refused"; readonly why: object }

/** What the store is given. */
export const toAppend = ({ facts, ...request }: Request): Append => ({
  ...request,
  facts: facts.map(({ data, id, name, streamId, tags }) => ({
    id, source: "/model", name, streamId, data, time: undefined, attributes: tags.length === 0 ? {} : { ksitags: tags.join(",") }
  }))
})

const nameMatches = (pattern: string, name: string): boolean => {
  const segments = pattern.split(":")
  const last = segments.length - 1
  return new RegExp(`^${segments.map((segment, at) => segment !== "*" ? segment : at === last ? ".+" : "[^:]+").join(":")}$`).test(name)
}

/** Whether a fact matches a query. */
export const matches = (query: ReadonlyArray<Item>, fact: Fact): boolean =>
  query.some(({ names, streamIds, tags }) =>
    (names === undefined || names.some((name) => nameMatches(name, fact.name))) &&
    (streamIds === undefined || streamIds.includes(fact.streamId)) &&
    (tags === undefined || tags.every((tag) => fact.tags.includes(tag))))

/** The version of a stream. */
export const versionOf = (log: ReadonlyArray<Fact>, streamId: string): number => log.filter((fact) => fact.streamId === streamId).length

const unmet = (log: ReadonlyArray<Fact>, { condition, expectedVersion, expectedVersions = [], facts }: Request): object | undefined => {
  const own = expectedVersion === undefined || facts[0] === undefined ? [] : [{ streamId: facts[0].streamId, version: expectedVersion }]
  for (const { streamId, version } of [...own, ...expectedVersions]) {
    const actual = versionOf(log, streamId)
    if (actual !== version) return { _tag: "VersionConflict", streamId, expected: version, actual }
  }
  if (condition === undefined) return undefined
  const position = log.findIndex((fact, at) => at >= condition.after && matches(condition.query, fact)) + 1
  return position === 0 ? undefined : { _tag: "ConditionFailed", position, after: condition.after }
}

/** What an append to this log comes to. */
export const append = (before: ReadonlyArray<Fact>, request: Request): Answer => {
  const log = [...before]
  const outcomes: Array<Outcome> = []
  for (const fact of request.facts) {
    const at = log.findIndex(({ id }) => id === fact.id)
    const known = log[at]
    if (known !== undefined) {
      const isSame = JSON.stringify(known) === JSON.stringify(fact)
      if (!isSame && request.mode === "all") return { kind: "refused", why: { _tag: "IdConflict", source: "/model", id: fact.id, position: at + 1 } }
      outcomes.push({ kind: isSame ? "duplicate" : "conflict", position: at + 1, version: versionOf(log.slice(0, at + 1), known.streamId) })
      continue
    }
    const why = log.length === before.length ? unmet(log, request) : undefined
    if (why !== undefined) return { kind: "refused", why }
    log.push(fact)
    outcomes.push({ kind: "appended", position: log.length, version: versionOf(log, fact.streamId) })
  }
  return { kind: "stored", outcomes, log }
}
