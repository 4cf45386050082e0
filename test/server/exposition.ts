// A strict reader of Prometheus' text format 0.0.4: what it does not know it throws at.

/** One line with a figure. */
export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/** What belongs together, as its TYPE line says. */
export interface ReadFamily {
  readonly type: string
  readonly help: string
  readonly samples: ReadonlyArray<Sample>
}

const helpLine = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\\n]|\\\\|\\n)*)$/
const typeLine = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary)$/
const sampleLine = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/
const label = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)/y
const number = /^(?:[+-]?Inf|NaN|[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/

const labelsOf = (text: string): Record<string, string> => {
  const labels: Record<string, string> = {}
  label.lastIndex = 0
  while (label.lastIndex < text.length) {
    const [, name, value] = label.exec(text) ?? []
    if (name === undefined || value === undefined || name in labels) throw new Error(`no labels: ${text}`)
    labels[name] = value.replace(/\\(.)/g, (_, c: string) => c === "n" ? "\n" : c)
  }
  return labels
}

const valueOf = (text: string): number => {
  if (!number.test(text)) throw new Error(`no figure: ${text}`)
  return Number(text.replace("Inf", "Infinity"))
}

/** A histogram's buckets grow, end with +Inf, and are as many as its count. */
const checkHistogram = (name: string, samples: ReadonlyArray<Sample>): void => {
  const series = Map.groupBy(samples, ({ labels: { le: _, ...rest } }) => JSON.stringify(rest))
  for (const [of, parts] of series) {
    const buckets = parts.filter((part) => part.name === `${name}_bucket`)
    const bounds = buckets.map(({ labels }) => valueOf(labels["le"] ?? ""))
    const counts = buckets.map(({ value }) => value)
    const sorted = (list: ReadonlyArray<number>) => list.every((n, at) => at === 0 || n >= (list[at - 1] ?? n))
    const count = parts.filter((part) => part.name === `${name}_count`)
    const sum = parts.filter((part) => part.name === `${name}_sum`)
    if (!sorted(bounds) || new Set(bounds).size !== bounds.length || bounds.at(-1) !== Infinity) throw new Error(`${name}${of}: bounds ${bounds}`)
    if (!sorted(counts) || count.length !== 1 || sum.length !== 1 || counts.at(-1) !== count[0]?.value) throw new Error(`${name}${of}: counts ${counts}`)
  }
}

/** Reads a text; throws where it is not what Prometheus takes. */
export const parse = (text: string): ReadonlyMap<string, ReadFamily> => {
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last line has no end")
  const families = new Map<string, { readonly type: string; readonly help: string; readonly samples: Array<Sample> }>()
  const seen = new Set<string>()
  let help: readonly [name: string, text: string] | undefined
  let current: string | undefined
  for (const line of text.split("\n").slice(0, -1)) {
    const [, helped, words] = helpLine.exec(line) ?? []
    const [, typed, type] = typeLine.exec(line) ?? []
    if (helped !== undefined && words !== undefined) {
      help = [helped, words]
    } else if (typed !== undefined && type !== undefined) {
      if (families.has(typed)) throw new Error(`${typed} comes twice`)
      families.set(typed, { type, help: help?.[0] === typed ? help[1] : "", samples: [] })
      current = typed
    } else {
      const [, name, labels = "", value] = sampleLine.exec(line) ?? []
      const of = families.get(current ?? "")
      if (name === undefined || value === undefined || of === undefined || current === undefined) throw new Error(`no line: ${line}`)
      const suffix = name.slice(current.length)
      if (!name.startsWith(current) || !(of.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""]).includes(suffix)) {
        throw new Error(`${name} is not of ${current}`)
      }
      const key = `${name}{${labels}}`
      if (seen.has(key)) throw new Error(`${key} comes twice`)
      seen.add(key)
      of.samples.push({ name, labels: labelsOf(labels), value: valueOf(value) })
    }
  }
  for (const [name, { samples, type }] of families) if (type === "histogram") checkHistogram(name, samples)
  return families
}
