// Reads JSON texts as a schema says they look: objects of named fields, in their order, with nothing between them but a space
// where people put one. A regular expression finds the parts, and a function of its own puts them together; both are made
// for the schema, and do in a quarter of the time what `JSON.parse` does. What looks otherwise (an escape in a text, a long
// number, another order) is not read here at all: a text that is read has no other meaning. Whether it is a payload is for the
// decoder to say.
import * as SchemaAST from "effect/SchemaAST"
import { detached } from "../Json.ts"

/** How texts of a schema look. */
export interface Pattern {
  /** The source of a regular expression; what varies is in groups, the first of which is that asked for. */
  readonly source: string
  /** The number of the group after the last. */
  readonly end: number
  /** Makes the value of the parts. */
  readonly value: (parts: ReadonlyArray<string>) => unknown
}

/** A text without escapes, and without what must be escaped. */
const plainText = "[^\"\\\\\\u0000-\\u001f]*"

// As JSON writes them, with so few digits that a double has them all, and without a negative zero, which it does not keep.
const number = "-?[1-9]\\d{0,6}\\.\\d{1,8}|0\\.\\d{1,8}|-?[1-9]\\d{0,14}|0"

// A large schema is rare, and its pattern no longer short.
const maxGroups = 40

interface Piece {
  readonly source: string
  /** The expression that makes its value. */
  readonly code: string
  /** The group that is not there when the piece is not; of one that may be left out. */
  readonly group?: number
}

const literals = (ast: SchemaAST.AST): ReadonlyArray<SchemaAST.AST> => SchemaAST.isUnion(ast) ? ast.types.flatMap(literals) : [ast]

const isText = (ast: SchemaAST.AST): boolean => SchemaAST.isString(ast) || (SchemaAST.isLiteral(ast) && typeof ast.literal === "string")

/** Writes the pattern of a schema and the code that makes its values; `undefined` for what it does not know. */
class Writer {
  private group: number

  constructor(first: number) {
    this.group = first
  }

  get end(): number {
    return this.group
  }

  value(ast: SchemaAST.AST): Piece | undefined {
    if (this.group > maxGroups) return undefined
    return SchemaAST.isObjects(ast) ? this.object(ast) : this.scalar(literals(ast))
  }

  private scalar(types: ReadonlyArray<SchemaAST.AST>): Piece | undefined {
    if (types.every(isText)) return this.part(`"(${plainText})"`, (part) => `detached(${part})`)
    if (types.every(SchemaAST.isBoolean)) return this.part("(true|false)", (part) => `${part} === "true"`)
    // Numbers that are none are written as texts.
    if (types.some(SchemaAST.isNumber) && types.every((type) => SchemaAST.isNumber(type) || isText(type))) return this.part(`(${number})`, (part) => `+${part}`)
    const others = types.filter((type) => !SchemaAST.isNull(type))
    const piece = others.length === 0 || others.length === types.length ? undefined : this.scalar(others)
    return piece && { source: `(?:null|${piece.source})`, code: `parts[${piece.group}] === undefined ? null : ${piece.code}` }
  }

  private part(source: string, code: (part: string) => string): Piece {
    const group = this.group++
    return { source, code: code(`parts[${group}]`), group }
  }

  private object({ indexSignatures, propertySignatures }: SchemaAST.Objects): Piece | undefined {
    if (indexSignatures.length > 0 || propertySignatures.length === 0) return undefined
    const sources: Array<string> = []
    const fields: Array<string> = []
    for (const { name, type } of propertySignatures) {
      if (typeof name !== "string" || !plainKey.test(name) || name === "__proto__") return undefined
      const piece = this.value(type)
      if (piece === undefined) return undefined
      const source = `${sources.length === 0 ? "" : ", ?"}"${name}": ?${piece.source}`
      const field = `"${name}": ${piece.code}`
      if (!SchemaAST.isOptional(type)) {
        sources.push(source)
        fields.push(field)
        continue
      }
      // The comma belongs to what comes after it.
      if (piece.group === undefined || sources.length === 0) return undefined
      sources.push(`(?:${source})?`)
      fields.push(`...(parts[${piece.group}] === undefined ? undefined : { ${field} })`)
    }
    return { source: `\\{${sources.join("")}\\}`, code: `{ ${fields.join(", ")} }` }
  }
}

const plainKey = /^\w+$/

/**
 * The pattern of a schema whose values are their own JSON, its groups numbered from `first` on. `undefined` where the schema
 * leaves open what its texts look like, and where code may not be generated.
 */
export const compilePattern = (ast: SchemaAST.AST, first: number): Pattern | undefined => {
  const writer = new Writer(first)
  const piece = writer.value(ast)
  if (piece === undefined) return undefined
  try {
    // The names of fields, which are words, are all that is not written above.
    const make: unknown = new Function("detached", `"use strict"\nreturn (parts) => (${piece.code})`)
    return { source: piece.source, end: writer.end, value: (make as (copy: typeof detached) => Pattern["value"])(detached) }
  } catch {
    return undefined
  }
}
