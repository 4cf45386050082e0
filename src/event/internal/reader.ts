// Reads JSON without `JSON.parse` for whole texts. V8 (Node 24 and 26, nodejs/node#63785) may give an object the key of
// another one: after a key with a backslash was seen, it compares the *text* of an escaped key with it, and `"a\n"` is
// taken for `"a\\"`. Texts whose keys have escapes are rare; they come here. Strings and numbers alone are not affected.
//
//   readText('{"a":1,"b\\n":2}', Number)       // { a: 1, "b\n": 2 }

const space = /[ \t\n\r]*/y
const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const word = /true|false|null/y

const backslash = 0x5c

/** Where the string that begins at `start` ends; -1 where it does not. Linear, and no pattern: texts may be long. */
export const endOfString = (text: string, start: number): number => {
  for (let end = text.indexOf("\"", start + 1); end >= 0; end = text.indexOf("\"", end + 1)) {
    let before = end
    while (text.charCodeAt(before - 1) === backslash) before--
    if ((end - before) % 2 === 0) return end
  }
  return -1
}

/** Whether a key of a JSON text is written with an escape. Linear. */
export const hasEscapedKey = (text: string): boolean => {
  let escape = text.indexOf("\\")
  if (escape < 0) return false
  for (let start = text.indexOf("\""); start >= 0 && escape >= 0;) {
    const end = endOfString(text, start)
    if (end < 0) return false
    if (escape < start) escape = text.indexOf("\\", start)
    if (escape > start && escape < end) {
      space.lastIndex = end + 1
      space.test(text)
      if (text.charAt(space.lastIndex) === ":") return true
      escape = text.indexOf("\\", end)
    }
    start = text.indexOf("\"", end + 1)
  }
  return false
}

/** Reads one text; throws a `SyntaxError` as `JSON.parse` does. `numberOf` makes a value of a number's text. */
export const readText = (text: string, numberOf: (text: string) => unknown): unknown => {
  let at = 0
  const fail = (): never => {
    const found = at < text.length ? `unexpected token '${text.charAt(at)}'` : "unexpected end of JSON input"
    throw new SyntaxError(`${found} at position ${at}`)
  }
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at
    const found = pattern.exec(text)?.[0]
    if (found !== undefined) at += found.length
    return found
  }
  const takeString = (): string => {
    const end = text.charAt(at) === "\"" ? endOfString(text, at) : -1
    if (end < 0) return fail()
    const written = text.slice(at, end + 1)
    at = end + 1
    return String(JSON.parse(written))
  }
  /** Takes a character, after space; whether it was there. */
  const skip = (character: string): boolean => {
    take(space)
    if (text.charAt(at) !== character) return false
    at++
    return true
  }
  const list = (end: string, item: () => void): void => {
    if (skip(end)) return
    do item()
    while (skip(","))
    if (!skip(end)) fail()
  }
  const array = (): unknown => {
    const items: Array<unknown> = []
    list("]", () => items.push(value()))
    return items
  }
  const object = (): unknown => {
    const entries: Array<readonly [string, unknown]> = []
    list("}", () => {
      take(space)
      const key = takeString()
      if (!skip(":")) fail()
      entries.push([key, value()])
    })
    return Object.fromEntries(entries)
  }
  const value = (): unknown => {
    take(space)
    const first = text.charAt(at)
    if (first === "{" || first === "[") {
      at++
      return first === "{" ? object() : array()
    }
    if (first === "\"") return takeString()
    const digits = take(number)
    return digits !== undefined ? numberOf(digits) : JSON.parse(take(word) ?? fail())
  }
  const whole = value()
  take(space)
  return at === text.length ? whole : fail()
}
