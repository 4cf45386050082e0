// Copies payloads whose schema says all there is to know of them: objects of named fields, arrays, texts, finite numbers,
// booleans. The copy is a function of its own for each schema, as the reader of the schema is: to walk through a value
// without knowing what is in it takes eight times as long.
import * as SchemaAST from "effect/SchemaAST"

/** Copies what a schema has just made, before anybody else has seen it. */
export interface Copier {
  /**
   * A copy as JSON would make it, which shares nothing with the payload; `undefined` where its text may have more than
   * `room` bytes.
   */
  readonly copy: (payload: unknown, room: number) => unknown
  /** How deep objects and arrays may stand within one another. */
  readonly depth: number
}

// Deeper schemas are rare, and a text that nobody has seen before is better short.
const maxDepth = 16

// The same bytes as the event store reckons with: each character of a text may be written with six.
const bytesOfKey = (key: string): number => 6 * key.length + 4
const bytesOfObject = 2
const bytesOfNumber = 25
const bytesOfBoolean = 5

/** Writes the statements that copy a value, and says by which expression the copy is known; `undefined` for what it does not know. */
class Writer {
  depth = 0
  private count = 0
  private readonly lines: Array<string> = []

  text(ast: SchemaAST.AST): string | undefined {
    const copy = this.value(ast, "payload", 1)
    return copy === undefined ? undefined : `"use strict"\nlet left = room\n${this.lines.join("\n")}\nreturn left < 0 ? undefined : ${copy}`
  }

  private value(ast: SchemaAST.AST, from: string, depth: number): string | undefined {
    switch (typeOf(ast)) {
      case "string":
        this.lines.push(`left -= 6 * ${from}.length + 2`)
        return from
      case "number":
        this.lines.push(`left -= ${bytesOfNumber}`)
        // JSON knows no negative zero.
        return `${from} + 0`
      case "boolean":
        this.lines.push(`left -= ${bytesOfBoolean}`)
        return from
      case "null":
      case "scalar":
        this.lines.push(`left -= typeof ${from} === "string" ? 6 * ${from}.length + 2 : ${bytesOfNumber}`)
        return `typeof ${from} === "number" ? ${from} + 0 : ${from}`
    }
    if (depth > maxDepth) return undefined
    this.depth = Math.max(this.depth, depth)
    if (SchemaAST.isObjects(ast)) return this.object(ast, from, depth)
    return SchemaAST.isArrays(ast) ? this.array(ast, from, depth) : undefined
  }

  private object({ indexSignatures, propertySignatures }: SchemaAST.Objects, from: string, depth: number): string | undefined {
    // Without fields it stands for whatever is not nothing.
    if (indexSignatures.length > 0 || propertySignatures.length === 0) return undefined
    this.lines.push(`left -= ${bytesOfObject + propertySignatures.reduce((sum, { name }) => sum + bytesOfKey(String(name)), 0)}`)
    if (propertySignatures.some(({ type }) => SchemaAST.isOptional(type))) return this.openObject(propertySignatures, from, depth)
    const fields: Array<string> = []
    for (const { name, type } of propertySignatures) {
      if (!isKey(name)) return undefined
      const copy = this.value(type, this.variable(`${from}[${JSON.stringify(name)}]`), depth + 1)
      if (copy === undefined) return undefined
      fields.push(`${JSON.stringify(name)}: ${copy}`)
    }
    return this.variable(`{ ${fields.join(", ")} }`)
  }

  /** An object that need not have all of its fields. */
  private openObject(fields: ReadonlyArray<SchemaAST.PropertySignature>, from: string, depth: number): string | undefined {
    const made = this.variable("{}")
    for (const { name, type } of fields) {
      if (!isKey(name)) return undefined
      const key = JSON.stringify(name)
      const field = this.variable(`${from}[${key}]`)
      this.lines.push(`if (${field} !== undefined) {`)
      const copy = this.value(type, field, depth + 1)
      if (copy === undefined) return undefined
      this.lines.push(`${made}[${key}] = ${copy}`, "}")
    }
    return made
  }

  private array({ elements, rest: [item, ...others] }: SchemaAST.Arrays, from: string, depth: number): string | undefined {
    if (item === undefined || elements.length > 0 || others.length > 0) return undefined
    const items = this.variable("[]")
    const one = `item${this.count++}`
    this.lines.push(`left -= ${bytesOfObject} + ${from}.length`, `for (const ${one} of ${from}) {`)
    const copy = this.value(item, one, depth + 1)
    this.lines.push(`${items}.push(${copy})`, "}")
    return copy === undefined ? undefined : items
  }

  private variable(value: string): string {
    const name = `v${this.count++}`
    this.lines.push(`const ${name} = ${value}`)
    return name
  }
}

const isKey = (name: PropertyKey): name is string => typeof name === "string" && name !== "__proto__"

const names = new Map<string, string>([["String", "string"], ["Number", "number"], ["Boolean", "boolean"], ["Null", "null"]])
const scalars = new Set(["string", "number", "boolean", "null", "scalar"])

/** What kind of value it is; `scalar` for one of several kinds that have nothing in them. */
const typeOf = (ast: SchemaAST.AST): string => {
  if (ast.encoding !== undefined) return "transformed"
  if (SchemaAST.isLiteral(ast)) return typeof ast.literal
  if (SchemaAST.isUnion(ast)) return ast.types.every((type) => scalars.has(typeOf(type))) ? "scalar" : "other"
  return names.get(ast._tag) ?? "other"
}

/**
 * The copier of a schema whose values are their own JSON. `undefined` where the schema leaves open what is in them, and
 * where code may not be generated.
 */
export const compileCopier = (ast: SchemaAST.AST): Copier | undefined => {
  const writer = new Writer()
  const text = writer.text(ast)
  if (text === undefined) return undefined
  try {
    // The names of fields, quoted, are all that is not written above.
    return { copy: new Function("payload", "room", text) as Copier["copy"], depth: writer.depth }
  } catch {
    return undefined
  }
}
