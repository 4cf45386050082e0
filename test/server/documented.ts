// What the README says of the settings, made of their declarations.
import * as Config from "../../src/server/Config.ts"
import * as Setting from "../../src/server/Setting.ts"

const top = Config.all.filter(({ table }) => table === undefined)
const limits = Config.all.filter(({ table }) => table !== undefined)

/** The table of all settings but the limits. */
export const table = (): string =>
  [
    "| `ksi.toml` | value | default | what it is |",
    "| --- | --- | --- | --- |",
    ...top.map(({ description, kind, key, otherwise }) => `| \`${key}\` | ${kind.expects} | ${otherwise === "" ? "none" : `\`${otherwise}\``} | ${description} |`)
  ].join("\n")

const range = (expects: string): string => /from (.+? to .+?)(?:, as .*)?$/.exec(expects)?.[1] ?? expects

const written = ({ key, otherwise }: Setting.Setting<never>): string =>
  `${key} = ${/^\d+$/.test(otherwise) ? otherwise.replace(/\B(?=(\d{3})+$)/g, "_") : JSON.stringify(otherwise)}`

/** A file that sets what could be set otherwise to its default; what follows from the home stands in comments. */
export const example = (): string => {
  const width = Math.max(...limits.map((setting) => written(setting).length))
  return [
    ...top.map((setting) => setting.default === undefined ? `# ${written(setting)}` : written(setting)),
    "",
    "[limits]",
    ...limits.map((setting) => `${written(setting).padEnd(width)}  # ${setting.description} (${range(setting.kind.expects)})`)
  ].join("\n")
}
