import { describe, expect, it } from "@effect/vitest"
import * as Registry from "../../src/cli/Registry.ts"

describe("listing", () => {
  it("is grouped by namespace, with aligned columns", () => {
    const text = Registry.listing({
      stock: {
        description: "Goods",
        events: [
          { name: "stock:reserve", kind: "request", mode: "call", handlers: 1, description: "Holds goods" },
          { name: "stock:watch", kind: "request", mode: "stream", handlers: 0 },
          { name: "stock:reserved", kind: "fact", handlers: 0, description: "Goods were held" }
        ]
      },
      a: { events: [{ name: "a:b", kind: "fact", handlers: 2 }] }
    })
    expect(text).toBe([
      "stock  3 events  Goods",
      "  stock:reserve   request  Holds goods",
      "  stock:watch     stream   (nobody answers)",
      "  stock:reserved  fact     Goods were held",
      "",
      "a  1 event",
      "  a:b             fact",
      ""
    ].join("\n"))
  })
  it("tells the first sentence, hanging below its beginning, and names in bold where it may", () => {
    const events = [
      { name: "a:b", kind: "fact", handlers: 0, description: "One two three four five six seven. And more." },
      { name: "a:long-name", kind: "request", handlers: 1, description: "Costs 1.5 e.g" }
    ]
    expect(Registry.listing({ a: { events } }, { bold: true, width: 50 })).toBe([
      "\u001b[1ma\u001b[0m  2 events",
      "  a:b          fact     One two three four five",
      "                        six seven.",
      "  a:long-name  request  Costs 1.5 e.g",
      ""
    ].join("\n"))
    // Where there is no room for a column, the terminal breaks the line.
    expect(Registry.listing({ a: { events } }, { width: 30 })).toContain("One two three four five six seven.\n")
  })
  it("of nothing is nothing", () => {
    expect(Registry.listing({})).toBe("")
  })
})

describe("description", () => {
  it("shows kind, handlers, parameters, examples and schemas", () => {
    const text = Registry.description({
      event: "stock:reserve",
      kind: "request",
      mode: "call",
      handlers: 0,
      summary: "Holds goods",
      parameters: { sku: { type: "string", required: true, description: "what" }, n: { type: "integer", required: false, description: "" } },
      examples: [{ command: "ksi call stock:reserve sku=tea" }],
      schemas: { payload: { type: "object" }, success: { type: "string" }, error: null }
    })
    expect(text).toBe([
      "stock:reserve  request, no handler",
      "  Holds goods",
      "",
      "payload",
      "  sku  string   required  what",
      "  n    integer  optional",
      "",
      "examples",
      "  ksi call stock:reserve sku=tea",
      "",
      "payload schema",
      "  {",
      "    \"type\": \"object\"",
      "  }",
      "",
      "success schema",
      "  {",
      "    \"type\": \"string\"",
      "  }",
      ""
    ].join("\n"))
  })
  it("says that there is no payload", () => {
    expect(Registry.description({ event: "a:b", kind: "request", handlers: 1, schemas: { payload: { not: { type: "null" } }, success: { type: "null" } } }))
      .toBe("a:b  request, 1 handler\n\npayload\n  none\n\nsuccess schema\n  null\n")
  })
  it("shows who has to do with it, in order", () => {
    expect(Registry.description({
      event: "a:b", kind: "request", handlers: 2, middleware: ["auth", "log"], observers: ["observer of a:*"],
      handled_by: [{ name: "a:b", execution: "concurrent" }, { name: "a:b#2", execution: "sequential" }],
      schemas: { payload: { type: "object" } }
    })).toBe([
      "a:b  request, 2 handlers",
      "",
      "middleware, outermost first",
      "  auth",
      "  log",
      "",
      "handlers, in order",
      "  a:b    concurrent",
      "  a:b#2  sequential",
      "",
      "observers",
      "  observer of a:*",
      "",
      "payload schema",
      "  {",
      "    \"type\": \"object\"",
      "  }",
      ""
    ].join("\n"))
  })
  it("leaves out what there is not", () => {
    expect(Registry.description({ event: "a:b", kind: "fact", handlers: 2 })).toBe("a:b  fact, 2 handlers\n")
  })
})
