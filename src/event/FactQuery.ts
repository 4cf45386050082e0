/**
 * Which facts: the question that a decision is based on, and the same question again when the decision is written down.
 *
 * The rule: a query is a list of items, and a fact matches when it matches one of them. It matches an item when its name
 * is one of `names` (event names, or patterns as everywhere), its stream one of `streamIds`, and it has *all* of `tags`;
 * what an item leaves out is not asked. Nothing else of a fact is looked at, so that an index can answer.
 *
 * **Example**
 *
 * ```ts
 * const query = [
 *   { names: ["course:*"], tags: ["course:c1"] },
 *   { names: ["student:subscribed"], tags: ["course:c1", "student:ann"] }
 * ]
 * const { matches } = Result.getOrThrow(FactQuery.compile({ query }))
 * const fact = (name, ksitags) => ({ name, streamId: "course-c1", attributes: { ksitags } })
 * matches(fact("course:defined", "course:c1,kind:short"))               // true
 * matches(fact("student:subscribed", "course:c1"))                      // false
 * ```
 *
 * **Gotchas** An item without anything, `{}`, is every fact. A list without anything is refused: whoever made it of names
 * that turned out to be none would ask for everything, or for nothing, without meaning it.
 *
 * Source: dcb.events, "Dynamic Consistency Boundary".
 */
import * as Result from "effect/Result"
import type { NewFact } from "./CloudEvent.ts"
import * as EventPattern from "./EventPattern.ts"
import * as Json from "./Json.ts"
import * as KsiError from "./KsiError.ts"
import * as Limits from "./Limits.ts"
import * as Tags from "./Tags.ts"

/** Facts of one kind: what is said must all hold. */
export interface Item {
  /** Event names, or patterns; one must match. */
  readonly names?: ReadonlyArray<string> | undefined
  /** The fact must be in one of these streams. */
  readonly streamIds?: ReadonlyArray<string> | undefined
  /** The fact must have all of these tags. */
  readonly tags?: ReadonlyArray<string> | undefined
}

/** Facts that match one of the items. */
export type FactQuery = ReadonlyArray<Item>

/** Which facts are read: those of a query, and of a pattern. */
export interface Selection {
  readonly query?: FactQuery | undefined
  /** An event pattern that the name must match besides. */
  readonly pattern?: string | undefined
}

/** What a fact is matched by. */
export type Labels = Pick<NewFact, "name" | "streamId" | "attributes">

/** Names of which one must match. */
export interface Names {
  readonly exact: ReadonlySet<string>
  readonly patterns: ReadonlyArray<EventPattern.EventPattern>
}

/** An item as a store looks for it. */
export interface Term {
  /** The name must match each of these. */
  readonly names: ReadonlyArray<Names>
  readonly streamIds: ReadonlySet<string> | undefined
  readonly tags: ReadonlyArray<string>
}

/** A query as a store looks for it. */
export interface Compiled {
  readonly terms: ReadonlyArray<Term>
  readonly matches: (fact: Labels) => boolean
}

/** Whether a name is one of these. */
export const matchesNames = ({ exact, patterns }: Names, name: string): boolean =>
  exact.has(name) || patterns.some((pattern) => pattern.matches(name))

/** Whether a fact matches this item. */
export const matchesTerm = ({ names, streamIds, tags }: Term, fact: Labels): boolean => {
  if (streamIds !== undefined && !streamIds.has(fact.streamId)) return false
  if (tags.length > 0) {
    const own = Tags.of(fact)
    if (!tags.every((tag) => own.includes(tag))) return false
  }
  return names.every((each) => matchesNames(each, fact.name))
}

/** Who asks, in messages. */
const asked = "store:query"

type Checked<A> = Result.Result<A, KsiError.Reason>

const invalid = (path: string, problem: string): Checked<never> => Result.fail(KsiError.invalidAt(asked, path, problem))

/** A list of an item, where it is there: texts, at least one. */
const textsAt = (item: Json.JsonObject, key: keyof Item, path: string): Checked<ReadonlyArray<string> | undefined> => {
  const list = item[key]
  if (list === undefined) return Result.succeed(undefined)
  if (!Array.isArray(list)) return invalid(`${path}.${key}`, "must be a list")
  if (list.length === 0) return invalid(`${path}.${key}`, "must not be empty; leave it out where it does not matter")
  const at = list.findIndex((text) => typeof text !== "string" || text === "" || !text.isWellFormed())
  // The line above has looked at each.
  return at < 0 ? Result.succeed(list as ReadonlyArray<string>) : invalid(`${path}.${key}.${at}`, "must be a text that is not empty")
}

const namesOf = (texts: ReadonlyArray<string>): Checked<Names> => {
  const exact = new Set<string>()
  const patterns: Array<EventPattern.EventPattern> = []
  for (const text of texts) {
    // Any name is one, also those of other systems, which are no names of ours; only a pattern has to be well made.
    if (!text.includes("*")) exact.add(text)
    else {
      const pattern = EventPattern.parse(text)
      if (Result.isFailure(pattern)) return Result.fail(pattern.failure)
      patterns.push(pattern.success)
    }
  }
  return Result.succeed({ exact, patterns })
}

interface Counted {
  readonly term: Term
  readonly count: number
}

const termOf = (item: unknown, path: string, within: ReadonlyArray<Names>): Checked<Counted> => {
  if (!Json.isObject(item)) return invalid(path, "must be an object with names, streamIds or tags")
  const unknown = Object.keys(item).find((key) => key !== "names" && key !== "streamIds" && key !== "tags")
  if (unknown !== undefined) return invalid(`${path}.${unknown}`, "is not names, streamIds or tags")
  const names = textsAt(item, "names", path)
  if (Result.isFailure(names)) return Result.fail(names.failure)
  const streamIds = textsAt(item, "streamIds", path)
  if (Result.isFailure(streamIds)) return Result.fail(streamIds.failure)
  const tags = textsAt(item, "tags", path)
  if (Result.isFailure(tags)) return Result.fail(tags.failure)
  const own = names.success === undefined ? undefined : namesOf(names.success)
  if (own !== undefined && Result.isFailure(own)) return Result.fail(own.failure)
  return Result.succeed({
    term: {
      names: own === undefined ? within : [...within, own.success],
      streamIds: streamIds.success === undefined ? undefined : new Set(streamIds.success),
      tags: [...new Set(tags.success)]
    },
    count: 1 + (names.success?.length ?? 0) + (streamIds.success?.length ?? 0) + (tags.success?.length ?? 0)
  })
}

const everything: FactQuery = [{}]

/** Reads a selection; fails with `PatternInvalid`, `PayloadInvalid`, or `LimitExceeded` beyond `max` words. */
export const compile = ({ pattern, query = everything }: Selection, max: number = Limits.defaults.queryTerms): Checked<Compiled> => {
  const said = pattern === undefined ? Result.succeed(undefined) : Result.mapError(EventPattern.parse(pattern), (reason): KsiError.Reason => reason)
  if (Result.isFailure(said)) return Result.fail(said.failure)
  const within: ReadonlyArray<Names> = said.success === undefined || said.success.text === "*" ? [] : [{ exact: new Set(), patterns: [said.success] }]
  if (!Array.isArray(query)) return invalid("query", "must be a list of items")
  if (query.length === 0) return invalid("query", "must have an item; [{}] is every fact")
  const terms: Array<Term> = []
  let count = 0
  for (const [at, item] of query.entries()) {
    const term = termOf(item, `query.${at}`, within)
    if (Result.isFailure(term)) return Result.fail(term.failure)
    terms.push(term.success.term)
    count += term.success.count
    if (count > max) return Result.fail(new KsiError.LimitExceeded({ limit: "queryTerms", max, actual: count, retryable: false }))
  }
  return Result.succeed({ terms, matches: (fact) => terms.some((term) => matchesTerm(term, fact)) })
}
