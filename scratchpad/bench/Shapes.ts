/**
 * Eight events of eight shapes, so that no call site sees only one of them, in the schema language of everyone compared.
 *
 * The rule: one description, the same checks everywhere. Every payload has five fields, two of them nested; every reply
 * has three.
 */
import * as Schema from "effect/Schema"
import * as Zod from "zod"

/** A field, or an object of fields. */
export type Field = "string" | "int" | "number" | "boolean" | Fields
/** An object. */
export interface Fields {
  readonly [name: string]: Field
}

/** Data of an event. */
export type Data = Readonly<Record<string, unknown>>

/** An event: what goes in, what comes out, and how the one becomes the other. */
export interface Shape {
  readonly name: `bench:${string}`
  readonly payload: Fields
  readonly reply: Fields
  readonly sample: (n: number) => Data
  readonly answer: (payload: Data, id: string) => Data
}

/** All eight. */
export const shapes: ReadonlyArray<Shape> = [
  {
    name: "bench:reserve",
    payload: { sku: "string", quantity: "int", price: "number", customer: { id: "string", vip: "boolean" } },
    reply: { holdId: "string", sku: "string", quantity: "int" },
    sample: (n) => ({ sku: `sku-${n}`, quantity: n, price: n * 1.5, customer: { id: `c-${n}`, vip: n % 2 === 0 } }),
    answer: ({ quantity, sku }, holdId) => ({ holdId, sku, quantity })
  },
  {
    name: "bench:release",
    payload: { hold: { id: "string", owner: "string" }, reason: "string", force: "boolean", attempt: "int" },
    reply: { released: "string", force: "boolean", attempt: "int" },
    sample: (n) => ({ hold: { id: `h-${n}`, owner: `c-${n}` }, reason: "changed", force: false, attempt: n }),
    answer: ({ attempt, force }, released) => ({ released, force, attempt })
  },
  {
    name: "bench:pay",
    payload: { order: "string", amount: { cents: "int", currency: "string" }, card: "string", save: "boolean" },
    reply: { receipt: "string", order: "string", card: "string" },
    sample: (n) => ({ order: `o-${n}`, amount: { cents: n * 100, currency: "EUR" }, card: "4242", save: true }),
    answer: ({ card, order }, receipt) => ({ receipt, order, card })
  },
  {
    name: "bench:ship",
    payload: { to: { city: "string", zip: "string" }, weight: "number", express: "boolean", parcels: "int" },
    reply: { label: "string", weight: "number", parcels: "int" },
    sample: (n) => ({ to: { city: "Turin", zip: `10${n}` }, weight: n / 3, express: n % 3 === 0, parcels: 1 + n % 4 }),
    answer: ({ parcels, weight }, label) => ({ label, weight, parcels })
  },
  {
    name: "bench:quote",
    payload: { items: "int", volume: "number", from: "string", window: { start: "int", end: "int" } },
    reply: { quote: "string", items: "int", volume: "number" },
    sample: (n) => ({ items: n, volume: n * 0.1, from: "hall 3", window: { start: n, end: n + 8 } }),
    answer: ({ items, volume }, quote) => ({ quote, items, volume })
  },
  {
    name: "bench:profile",
    payload: { user: "string", age: "int", consent: "boolean", address: { street: "string", number: "int" } },
    reply: { profile: "string", user: "string", consent: "boolean" },
    sample: (n) => ({ user: `u-${n}`, age: 20 + n % 50, consent: true, address: { street: "Main", number: n } }),
    answer: ({ consent, user }, profile) => ({ profile, user, consent })
  },
  {
    name: "bench:measure",
    payload: { sensor: "string", at: "int", value: "number", unit: { name: "string", factor: "number" } },
    reply: { stored: "string", at: "int", value: "number" },
    sample: (n) => ({ sensor: `s-${n}`, at: n, value: n / 7, unit: { name: "K", factor: 1 } }),
    answer: ({ at, value }, stored) => ({ stored, at, value })
  },
  {
    name: "bench:assign",
    payload: { task: "string", worker: { id: "int", team: "string" }, urgent: "boolean", estimate: "number" },
    reply: { assignment: "string", task: "string", urgent: "boolean" },
    sample: (n) => ({ task: `t-${n}`, worker: { id: n, team: "blue" }, urgent: n % 5 === 0, estimate: n * 0.25 }),
    answer: ({ task, urgent }, assignment) => ({ assignment, task, urgent })
  }
]

/** 64 payloads of each event, made beforehand. */
export const samples: ReadonlyArray<ReadonlyArray<Data>> = shapes.map(({ sample }) => Array.from({ length: 64 }, (_, n) => sample(n)))

const mapFields = <A>(fields: Fields, one: (field: Field) => A): Record<string, A> =>
  Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, one(field)]))

const effectField = (field: Field): Schema.Top => {
  switch (field) {
    case "string": return Schema.String
    case "int": return Schema.Int
    // As the others understand a number: neither NaN nor infinite.
    case "number": return Schema.Finite
    case "boolean": return Schema.Boolean
    default: return effectSchema(field)
  }
}

/** In Effect's words. */
export const effectSchema = (fields: Fields): Schema.Top => Schema.Struct(mapFields(fields, effectField))

const zodField = (field: Field): Zod.ZodType => {
  switch (field) {
    case "string": return Zod.string()
    case "int": return Zod.int()
    case "number": return Zod.number()
    case "boolean": return Zod.boolean()
    default: return zodSchema(field)
  }
}

/** In Zod's words. */
export const zodSchema = (fields: Fields): Zod.ZodType => Zod.object(mapFields(fields, zodField))

/** In fastest-validator's words, which are Moleculer's. */
export const fastestSchema = (fields: Fields): Record<string, unknown> =>
  mapFields(fields, (field) => {
    switch (field) {
      case "int": return { type: "number", integer: true }
      case "string": case "number": case "boolean": return { type: field }
      default: return { type: "object", props: fastestSchema(field) }
    }
  })

const checkText = (fields: Fields, at: string): string =>
  Object.entries(fields).map(([name, field]) => {
    const place = `${at}.${name}`
    switch (field) {
      case "int": return `Number.isSafeInteger(${place})`
      case "number": return `Number.isFinite(${place})`
      case "string": case "boolean": return `typeof ${place} === "${field}"`
      default: return `typeof ${place} === "object" && ${place} !== null && ${checkText(field, place)}`
    }
  }).join(" && ")

/** As one would write it by hand. */
export const handWritten = (fields: Fields): (data: unknown) => boolean =>
  new Function("d", `return typeof d === "object" && d !== null && ${checkText(fields, "d")}`) as (data: unknown) => boolean
