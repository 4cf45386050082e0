/**
 * Tags of a fact: what it is about, beyond the one stream it is in. A course that a student subscribes to has facts of two
 * things: tagged `course:c1` and `student:ann`, they are found, and guarded, by either.
 *
 * The rule: tags are part of a fact's content and travel with it, in the CloudEvents extension attribute `ksitags`: the tags
 * in the order of their code units, each once, with commas between; a `,` or `%` within a tag is percent-encoded.
 *
 * **Example**
 *
 * ```ts
 * Tags.toText(["student:ann", "course:c1", "course:c1"])     // "course:c1,student:ann"
 * Tags.toText(["size:1,5"])                                  // "size:1%2C5"
 * Tags.fromText("course:c1,size:1%2C5")                      // ["course:c1", "size:1,5"]
 * Tags.of({ attributes: { ksitags: "course:c1" } })          // ["course:c1"]
 * Tags.of({ attributes: {} })                                // []
 * ```
 *
 * **Gotchas** An imported event keeps the text it came with, in whatever order: another order is other content.
 *
 * Source: dcb.events, "Dynamic Consistency Boundary"; the encoding is that of W3C Baggage.
 */
import type { JsonObject } from "./Json.ts"

/** The extension attribute that holds the tags. */
export const attribute = "ksitags"

/** The text of tags; what is wrong with one of them is for `problem` to say. */
export const toText = (tags: ReadonlyArray<string>): string =>
  // Not every program has a compiler behind it.
  [...new Set(tags.map((tag) => String(tag).replace(/[%,]/g, encodeURIComponent)))].toSorted().join(",")

/** The tags of a text, each once. */
export const fromText = (text: string): ReadonlyArray<string> =>
  [...new Set(text.split(",").map((tag) => tag.includes("%") ? tag.replace(/%(2c|25)/gi, decodeURIComponent) : tag))]

const none: ReadonlyArray<string> = []

/** The tags of a fact. */
export const of = ({ attributes }: { readonly attributes: JsonObject }): ReadonlyArray<string> => {
  const text = attributes[attribute]
  return typeof text === "string" ? fromText(text) : none
}

/** What is wrong with the attribute, in words; `undefined` where nothing is. `max` tags, each of at most `length` characters. */
export const problem = (text: unknown, max: number, length: number): string | undefined => {
  if (typeof text !== "string") return "must be a text"
  const tags = fromText(text)
  if (tags.length > max) return `there are ${tags.length}, at most ${max} are allowed`
  for (const tag of tags) {
    if (tag === "") return "a tag must not be empty"
    if (tag.length > length) return `a tag has ${tag.length} characters, at most ${length} are allowed`
    if (!tag.isWellFormed()) return "must be well-formed Unicode"
  }
  return undefined
}
