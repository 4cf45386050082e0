import { describe, expect, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Tags from "../../src/event/Tags.ts"

const letters = Schema.Array(Schema.Array(Schema.Literals(["a", "b", ",", "%", "2", "5", "C", "é", ":"])))

describe("the text of tags", () => {
  it("says them in order, each once", () => {
    expect(Tags.toText(["b", "a", "b"])).toBe("a,b")
    expect(Tags.toText([])).toBe("")
  })

  it.prop("comes back as the tags it was made of, whatever is in them", [letters], ([drawn]) => {
    const tags = drawn.map((tag) => tag.join("")).filter((tag) => tag !== "")
    if (tags.length === 0) return
    expect(Tags.fromText(Tags.toText(tags)).toSorted()).toEqual([...new Set(tags)].toSorted())
    expect(Tags.toText(Tags.fromText(Tags.toText(tags)))).toBe(Tags.toText(tags))
  })

  it("is read as people write it", () => {
    expect(Tags.fromText("b,50%,a,b,x%2cy")).toEqual(["b", "50%", "a", "x,y"])
  })
})

describe("the tags of a fact", () => {
  it("are those of the attribute, where it is a text", () => {
    expect([{ ksitags: "a,b" }, {}, { ksitags: 5 }, { ksitags: null }].map((attributes) => Tags.of({ attributes }))).toEqual([["a", "b"], [], [], []])
  })
})

describe("problem", () => {
  it("says what is wrong, and nothing where nothing is", () => {
    const said = [5, "", "a,,b", "a,b,c", "a,b", "abcd", "abc", "\ud800"].map((text) => Tags.problem(text, 2, 3))
    expect(said).toEqual([
      "must be a text", "a tag must not be empty", "there are 3, at most 2 are allowed", "there are 3, at most 2 are allowed", undefined,
      "a tag has 4 characters, at most 3 are allowed", undefined, "must be well-formed Unicode"
    ])
  })
})
