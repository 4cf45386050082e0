/**
 * A source file cut into code, comments and strings, without a compiler: enough for the house rules and no more.
 *
 * The rule: `code` has the length and the lines of the text, with comments, the insides of strings and templates, and
 * regular expressions blanked, so that a match in `code` is a match in the program and its offset is its place.
 */

export interface Span {
  readonly start: number
  /** Exclusive. */
  readonly end: number
  /** A comment with its marks; a string without its quotes. */
  readonly text: string
}

export interface Source {
  /** Path from the root of the repository. */
  readonly path: string
  readonly text: string
  readonly code: string
  readonly comments: ReadonlyArray<Span>
  readonly strings: ReadonlyArray<Span>
}

const beforeRegex = /(?:^|[(,=:[!&|?{};+\-*%~^<>]|\b(?:return|typeof|case|in|of|await|yield))\s*$/

class Cutter {
  readonly comments: Array<Span> = []
  readonly strings: Array<Span> = []
  readonly out: Array<string>
  readonly text: string
  at = 0
  constructor(text: string) {
    this.text = text
    this.out = text.split("")
  }
  blank(start: number, end: number) {
    for (let i = start; i < end; i++) if (this.out[i] !== "\n") this.out[i] = " "
  }
  comment(end: number) {
    this.comments.push({ start: this.at, end, text: this.text.slice(this.at, end) })
    this.blank(this.at, end)
    this.at = end
  }
  /** A string or a regular expression that ends at an unescaped `close`. */
  quoted(close: string) {
    const start = this.at
    let inClass = false
    let i = start + 1
    for (; i < this.text.length; i++) {
      const char = this.text[i]
      if (char === "\\") i++
      else if (close === "/" && char === "[") inClass = true
      else if (char === "]") inClass = false
      else if ((char === close && !inClass) || char === "\n") break
    }
    if (close !== "/") this.strings.push({ start, end: i + 1, text: this.text.slice(start + 1, i) })
    this.blank(start + 1, i)
    this.at = i + 1
  }
  template() {
    let from = ++this.at
    for (; this.at < this.text.length; this.at++) {
      const char = this.text[this.at]
      if (char === "\\") this.at++
      else if (char === "`") break
      else if (char === "$" && this.text[this.at + 1] === "{") {
        this.blank(from, this.at)
        this.at += 2
        this.program("}")
        from = this.at
        this.at--
      }
    }
    this.blank(from, this.at)
    this.at++
  }
  /** Cuts up to the end, or past the `}` that closes a hole in a template. */
  program(close: string | undefined) {
    let depth = 0
    while (this.at < this.text.length) {
      const char = this.text[this.at]
      const two = this.text.slice(this.at, this.at + 2)
      const next = two === "//" ? this.text.indexOf("\n", this.at) : this.text.indexOf("*/", this.at + 2) + 2
      if (two === "//") this.comment(next < 0 ? this.text.length : next)
      else if (two === "/*") this.comment(next < 2 ? this.text.length : next)
      else if (char === "\"" || char === "'") this.quoted(char)
      else if (char === "`") this.template()
      else if (char === "/" && beforeRegex.test(this.out.slice(Math.max(0, this.at - 40), this.at).join(""))) this.quoted("/")
      else {
        if (char === "{") depth++
        if (char === "}" && depth-- === 0 && close !== undefined) {
          this.at++
          return
        }
        this.at++
      }
    }
  }
}

/** Cuts a text. */
export const cut = (path: string, text: string): Source => {
  const cutter = new Cutter(text)
  cutter.program(undefined)
  return { path, text, code: cutter.out.join(""), comments: cutter.comments, strings: cutter.strings }
}

/** The line, from 1, of an offset. */
export const lineAt = (source: Source, offset: number): number => source.text.slice(0, offset).split("\n").length

export interface Import {
  readonly specifier: string
  readonly line: number
  /** `type` is erased before the program runs; `dynamic` loads at first use. */
  readonly kind: "static" | "type" | "dynamic"
}

/** What a file imports or re-exports. */
export const importsOf = (source: Source): ReadonlyArray<Import> =>
  source.strings.flatMap(({ start, text: specifier }): Array<Import> => {
    const before = source.code.slice(0, start)
    const near = before.slice(-20)
    const line = lineAt(source, start)
    if (/\bimport\s*\(\s*$/.test(near)) return [{ specifier, line, kind: "dynamic" }]
    if (/(^|\n)import\s*$/.test(near)) return [{ specifier, line, kind: "static" }]
    if (!/\bfrom\s*$/.test(near)) return []
    const head = before.slice(Math.max(before.lastIndexOf("\nimport"), before.lastIndexOf("\nexport"), -1) + 1)
    if (!/^(?:import|export)\b[^=;"'`]*$/.test(head)) return []
    return [{ specifier, line, kind: /^(?:import|export)\s+type\b/.test(head) ? "type" : "static" }]
  })
