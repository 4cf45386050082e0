/**
 * The name of an event: `namespace:verb`, two to eight segments joined by `:`.
 *
 * The rule: a *registered* name is checked once, when it is defined; a *foreign* name (any CloudEvents `type`)
 * is kept as it came and never has to satisfy this grammar.
 *
 * **Example**
 *
 * ```ts
 * EventName.parse("stock:reserve")                          // Result.succeed("stock:reserve")
 * Result.isFailure(EventName.parse("Stock"))                // true
 * EventName.nearest("stock:resrve", ["stock:reserve"])      // ["stock:reserve"]
 * ```
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

/** At most this many characters in a registered name. */
export const maxLength = 60

/** At most this many characters in a foreign name (a CloudEvents `type`). */
export const maxForeignLength = 256

/** Namespaces that belong to KSI's own plugins. User events defined under them are refused by `Ksi.serve`. */
export const reserved: ReadonlySet<string> = new Set([
  "system", "store", "time", "wire", "stream", "pubsub", "module", "permission", "monitor", "event_log",
  "deadletter", "projection", "consumer", "saga", "flow", "pool", "breaker", "node"
])

/** Why a text is not an event name. */
export class NameInvalid extends Schema.TaggedClass<NameInvalid>()("NameInvalid", {
  name: Schema.String,
  problem: Schema.String
}) {
  /** One sentence for people. */
  get message(): string {
    return `"${this.name}" is not an event name: ${this.problem}`
  }
}

const segment = /^[a-z][a-z0-9]*([_-][a-z0-9]+)*$/

/** Checks a registered name against the grammar; the failure says which part is wrong. */
export const parse = (name: string): Result.Result<string, NameInvalid> => {
  const fail = (problem: string) => Result.fail(new NameInvalid({ name, problem }))
  if (name.length > maxLength) return fail(`it has ${name.length} characters, at most ${maxLength} are allowed`)
  const segments = name.split(":")
  if (segments.length < 2) return fail("it needs a namespace, as in \"stock:reserve\"")
  if (segments.length > 8) return fail(`it has ${segments.length} segments, at most 8 are allowed`)
  for (const part of segments) {
    if (!segment.test(part)) {
      return fail(`the segment "${part}" must be lower-case letters, digits, "_" or "-", and start with a letter`)
    }
  }
  return Result.succeed(name)
}

/** The part before the first `:`; the whole name where there is none. */
export const namespace = (name: string): string => {
  const colon = name.indexOf(":")
  return colon < 0 ? name : name.slice(0, colon)
}

/** Edits (insert, delete, replace, swap of neighbours) from `a` to `b`; stops counting above `limit`. */
const distance = (a: string, b: string, limit: number): number => {
  if (Math.abs(a.length - b.length) > limit) return limit + 1
  let before: Array<number> = []
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    let least = i
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let cost = Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + (same ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (before[j - 2] ?? 0) + 1)
      }
      row.push(cost)
      least = Math.min(least, cost)
    }
    if (least > limit) return limit + 1
    before = previous
    previous = row
  }
  return previous[b.length] ?? limit + 1
}

/**
 * The candidates that a person who typed `name` may have meant, nearest first, at most `count`.
 * A name that starts with what was typed counts as near; upper and lower case are the same here.
 */
export const nearest = (name: string, candidates: Iterable<string>, count = 3): ReadonlyArray<string> => {
  const limit = Math.max(2, Math.floor(name.length / 3))
  const scored: Array<readonly [score: number, candidate: string]> = []
  const typed = name.toLowerCase()
  for (const candidate of candidates) {
    const lower = candidate.toLowerCase()
    const edits = distance(typed, lower, limit)
    if (edits <= limit) scored.push([edits, candidate])
    else if (name.length > 2 && lower.startsWith(typed)) scored.push([limit, candidate])
  }
  scored.sort((x, y) => x[0] - y[0] || (x[1] < y[1] ? -1 : 1))
  return scored.slice(0, count).map(([, candidate]) => candidate)
}
