// A short text that stands for code and data: the same for the same, another one when any of it changes.
import { createHash, type Hash } from "node:crypto"

// Where an event was defined, what is told about it and what wraps its handlers has no part in what its payload means.
const ignored: ReadonlySet<string> = new Set(["definedAt", "annotations", "middleware"])

const write = (hash: Hash, value: unknown, seen: Map<object, number>): void => {
  if (typeof value !== "object" && typeof value !== "function" || value === null) {
    hash.update(`${typeof value} ${String(value)};`)
    return
  }
  const known = seen.get(value)
  if (known !== undefined) {
    hash.update(`again ${known};`)
    return
  }
  seen.set(value, seen.size)
  if (typeof value === "function") hash.update(`function ${value.toString()};`)
  else if (value instanceof RegExp || value instanceof Date) hash.update(`${String(value)};`)
  // A schema is what its tree says; it holds more, of which some is made on the way.
  const tree: unknown = Reflect.get(value, "ast")
  if (typeof tree === "object" && tree !== null) {
    write(hash, tree, seen)
    return
  }
  if (value instanceof Map || value instanceof Set) {
    for (const item of value) write(hash, item, seen)
  }
  for (const key of Object.keys(value)) {
    if (ignored.has(key)) continue
    hash.update(`${JSON.stringify(key)}:`)
    write(hash, Reflect.get(value, key), seen)
  }
  hash.update("end;")
}

/** Of everything that can be reached: functions by their text, schemas by their trees. */
export const fingerprintOf = (parts: unknown): string => {
  const hash = createHash("sha256")
  write(hash, parts, new Map())
  return hash.digest("base64url").slice(0, 22)
}
