import { NodeServices } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, Schema } from "effect"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import * as Limits from "../../src/event/Limits.ts"
import * as Config from "../../src/server/Config.ts"
import * as ConfigFile from "../../src/server/ConfigFile.ts"
import * as Setting from "../../src/server/Setting.ts"
import { example, table } from "./documented.ts"

const none: Config.Sources = { flags: {}, environment: {}, file: undefined }

/** Resolves with a file of this text. */
const withFile = (text: string, sources: Partial<Config.Sources> = {}) =>
  Effect.map(ConfigFile.parse("ksi.toml", text), (file) => Config.resolve({ ...none, ...sources, file }))

/** A file that sets one setting; the value as it is written there. */
const fileText = (setting: Setting.Setting<never>, value: string) =>
  setting.table === undefined ? `\n${setting.key} = ${value}\n` : `[${setting.table}]\n${setting.key} = ${value}\n`

/** Values that a setting takes, one for each source; none is the default. */
const samples = (setting: Setting.Setting<never>): readonly [flag: string, variable: string, file: string] => {
  if (/^[\w-]+(\|[\w-]+)+$/.test(setting.kind.metavar)) {
    const values = setting.kind.metavar.split("|").filter((value) => value !== setting.otherwise)
    return [values[0] ?? "", values[1] ?? values[0] ?? "", values[2] ?? values[0] ?? ""]
  }
  if (setting.kind.metavar === "SIZE") return ["1 MiB", "5 KiB", "70000 B"]
  if (setting.kind.metavar === "DURATION") return ["3 s", "4 s", "5 s"]
  if (setting.kind.metavar === "URL") return ["http://a:1", "https://b/c", "off"]
  if (setting.kind.metavar === "SHARE") return ["0.1", "0.25", "0"]
  if (setting.kind.metavar === "PAIRS") return ["a=1", "b=2", "c=3"]
  return ["77", "78", "79"]
}

describe("precedence", () => {
  const sources = ["flag", "variable", "file"] as const
  const subsets = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => sources.filter((_, i) => (bits & (1 << i)) !== 0))
  for (const setting of Config.all) {
    it.effect(`${Setting.place(setting)}: a flag, its variable, the file, the default, whichever are there`, () =>
      Effect.gen(function*() {
        const [flag, variable, inFile] = samples(setting)
        for (const subset of subsets) {
          const text = subset.includes("file") ? fileText(setting, JSON.stringify(inFile)) : ""
          const { problems, settings, values, warnings } = yield* withFile(text, {
            flags: subset.includes("flag") ? { [setting.flag]: flag } : {},
            environment: subset.includes("variable") ? { [setting.variable]: variable } : {}
          })
          const found = settings.find((each) => each.setting === setting)
          const [given, origin] = subset.includes("flag") ? [flag, `--${setting.flag}`]
            : subset.includes("variable") ? [variable, setting.variable]
            : subset.includes("file") ? [inFile, "ksi.toml:2"]
            : [undefined, "default"]
          expect([problems, warnings]).toEqual([[], []])
          expect(found?.origin).toBe(origin)
          if (given !== undefined) expect(found?.value).toEqual(setting.kind.read(given))
          else if (setting.default !== undefined) expect(found?.value).toBe(setting.default)
          // What the daemon gets is what is shown.
          const record: Record<string, unknown> = setting.table === undefined ? { ...values } : { ...values.limits }
          expect(record[setting.name]).toEqual(found?.value)
        }
      }))
  }

  it("a variable that is set to nothing is not set, a flag that is given is", () => {
    expect(Config.resolve({ ...none, environment: { KSI_HOME: "", KSI_SYNC: "" } })).toMatchObject({ problems: [], values: { home: "var", sync: "full" } })
    expect(Config.resolve({ ...none, flags: { home: "" } }).problems.map(Config.sentence)).toEqual(["--home must be a path, not \"\""])
  })

  it.effect("paths follow from the home, and --home says which daemon is meant", () =>
    Effect.gen(function*() {
      const socket = (config: Config.Config) => config.values.socket
      const all = { environment: { KSI_SOCKET: "/e.sock", KSI_HOME: "/e" } }
      const text = "socket = \"/f.sock\"\nhome = \"/f\""
      expect(socket(yield* withFile(text, { ...all, flags: { socket: "/a.sock", home: "/a" } }))).toBe("/a.sock")
      expect(socket(yield* withFile(text, { ...all, flags: { home: "/a" } }))).toBe("/a/run/daemon.sock")
      expect(socket(yield* withFile(text, all))).toBe("/e.sock")
      expect(socket(yield* withFile(text, { environment: { KSI_HOME: "/e" } }))).toBe("/f.sock")
      expect(socket(yield* withFile("home = \"/f\"", { environment: { KSI_HOME: "/e" } }))).toBe("/e/run/daemon.sock")
      expect(socket(yield* withFile("home = \"/f\""))).toBe("/f/run/daemon.sock")
      expect((yield* withFile("home = \"/f\"")).values.storeFile).toBe("/f/ksi.db")
      expect((yield* withFile("store_file = \"/d.db\"", { flags: { home: "/a" } })).values.storeFile).toBe("/d.db")
    }))

  it("the defaults are those of the runtime", () => {
    expect(Config.defaults.limits).toEqual(Limits.defaults)
    expect(Config.defaults).toMatchObject({
      home: "var", socket: "var/run/daemon.sock", store: "sqlite", storeFile: "var/ksi.db", audit: "all", sync: "full", drain: 20_000, logLevel: "info"
    })
  })
})

describe("mistakes", () => {
  it.effect("a value of any source that cannot be read names the source, also where a nearer one is right", () =>
    Effect.gen(function*() {
      for (const setting of Config.all) {
        const wrong = setting.kind.read("nonsense") === undefined ? "nonsense" : "a\0b"
        const flags = { [setting.flag]: wrong }
        const environment = { [setting.variable]: wrong }
        const text = fileText(setting, "[true]")
        const isSecret = setting.kind.isSecret === true
        const must = (given: string) => `must be ${setting.kind.expects}${isSecret ? "; what it is is not shown" : `, not ${given}`}`
        const { problems, values } = yield* withFile(text, { flags, environment })
        // Which --home sets aside.
        expect(problems.map(Config.sentence)).toEqual([
          `--${setting.flag} ${must(JSON.stringify(wrong))}`,
          `${setting.variable} ${must(JSON.stringify(wrong))}`,
          `ksi.toml:2: ${Setting.place(setting)} ${must("[true]")}`
        ])
        expect(values).toEqual(Config.defaults)
        const [right] = samples(setting)
        expect((yield* withFile(text, { flags: { [setting.flag]: right } })).problems).toHaveLength(1)
      }
    }))

  it("a password in a URL is not told", () => {
    const told = (value: string) => JSON.stringify(Config.resolve({ ...none, environment: { KSI_OTLP: value } }).problems)
    expect(told("http://user:s3cret@127.0.0.1:9")).toContain("http://…@127.0.0.1:9")
    for (const value of ["http://user:s3cret@127.0.0.1:9", "http://127.0.0.1:9/?key=s3cret"]) expect(told(value)).not.toContain("s3cret")
  })

  const cases: ReadonlyArray<readonly [text: string, problem: string, similar?: ReadonlyArray<string>]> = [
    ["hoem = \"x\"", "ksi.toml:1: \"hoem\" is no setting", ["home"]],
    ["store-file = \"x\"", "ksi.toml:1: \"store-file\" is no setting", ["store_file"]],
    ["storeFile = \"x\"", "ksi.toml:1: \"storeFile\" is no setting", ["store_file"]],
    ["sync = true", "ksi.toml:1: sync must be one of full, normal, not true"],
    ["sync = 2020-01-01", "ksi.toml:1: sync must be one of full, normal, not \"2020-01-01\""],
    ["store = \"postgres\"", "ksi.toml:1: store must be one of sqlite, memory, not \"postgres\" (postgres is not supported yet)"],
    ["drain = 20", "ksi.toml:1: drain must be a duration from 0 seconds to 1 hour, as \"20 seconds\", not 20"],
    ["limits = 3", "ksi.toml:1: limits must be a table, as [limits]"],
    ["[[limits]]\ndepth = 3", "ksi.toml:1: limits must be a table, as [limits]"],
    ["depth = 3", "ksi.toml:1: \"depth\" is no setting", ["limits.depth"]],
    ["[limits]\nsync = 3", "ksi.toml:2: \"limits.sync\" is no setting", ["sync"]],
    ["[limits]\ndept = 3", "ksi.toml:2: \"limits.dept\" is no setting", ["limits.depth"]],
    ["[limits.depth]\nx = 3", "ksi.toml:1: limits.depth must be a whole number from 1 to 10,000, not {\"x\":3}"],
    ["[limit]\ndepth = 3\npage_items = 3", "ksi.toml:1: \"limit\" is no setting", ["limits"]],
    ["[limits]\nsubscription_buffer = 0", "ksi.toml:2: limits.subscription_buffer must be a whole number from 1 to 1,000,000, not 0"],
    [`sync = "${"x".repeat(100)}"`, `ksi.toml:1: sync must be one of full, normal, not "${"x".repeat(59)}…`],
    ["__proto__ = 1", "ksi.toml:1: \"__proto__\" is no setting", []]
  ]
  for (const [text, problem, similar] of cases) {
    it.effect(JSON.stringify(text), () =>
      Effect.gen(function*() {
        const { problems } = yield* withFile(text)
        expect(problems.map(Config.sentence)).toEqual([problem])
        if (similar !== undefined) expect(problems[0]?.similar).toEqual(similar)
      }))
  }

  it.effect("what does not exist yet has no effect, and says so", () =>
    Effect.gen(function*() {
      const { problems, warnings } = yield* withFile("listen = 4600\n[node]\nname = \"a\"\n[limits]\ndepth = 3")
      expect(problems).toEqual([])
      expect(warnings.map(Config.sentence)).toEqual([
        "ksi.toml:1: listen is not supported yet, it has no effect", "ksi.toml:2: node is not supported yet, it has no effect"
      ])
    }))

  it("variables that are no setting are warnings, whose values are not told", () => {
    const environment = {
      KSI_HOEM: "s3cret", KSI_LISTEN: "4600", KSI_DATABASE_URL: "s3cret", KSI_DATABASE_URL_FILE: "s3cret", KSI_FRAME_BYTES: "1", KSI_EMPTY: "", KSI: "x", PATH: "/bin", OTHER_KSI_HOEM: "x",
      KSI_HOME: "var"
    }
    const { problems, warnings } = Config.resolve({ ...none, environment })
    expect(problems).toEqual([])
    expect(warnings.map((warning) => [Config.sentence(warning), warning.similar])).toEqual([
      ["KSI_DATABASE_URL is not supported yet, it has no effect", []],
      ["KSI_DATABASE_URL_FILE is not supported yet, it has no effect", []],
      ["KSI_FRAME_BYTES is no setting, it has no effect", []],
      ["KSI_HOEM is no setting, it has no effect", ["KSI_HOME"]],
      ["KSI_LISTEN is not supported yet, it has no effect", []]
    ])
    expect(JSON.stringify(warnings)).not.toContain("s3cret")
  })

  it("what Kubernetes sets for a service called ksi is ignored, and says so", () => {
    const names = [
      "KSI_PORT", "KSI_PORT_4600_TCP", "KSI_PORT_4600_TCP_ADDR", "KSI_PORT_4600_TCP_PORT", "KSI_PORT_4600_TCP_PROTO",
      "KSI_SERVICE_HOST", "KSI_SERVICE_PORT", "KSI_SERVICE_PORT_HTTP", "KSI_STORE_PORT", "KSI_STORE_SERVICE_HOST"
    ]
    const environment = Object.fromEntries(names.map((name) => [name, "tcp://10.0.0.1:4600"]))
    const { problems, values, warnings } = Config.resolve({ ...none, environment })
    expect([problems, values]).toEqual([[], Config.defaults])
    expect(warnings.map(({ where }) => where)).toEqual(names.toSorted())
    for (const { problem } of warnings) expect(problem).toBe("is ignored: Kubernetes sets it for a service of this name")
  })

  it.prop("no texts make it throw, and a problem leaves the default", [Schema.String, Schema.String, Schema.String], ([flag, variable, name]) => {
    for (const setting of Config.all) {
      const { problems, settings } = Config.resolve({
        flags: { [setting.flag]: flag }, environment: { [setting.variable]: variable, [`KSI_${name}`]: flag }, file: undefined
      })
      const found = settings.find((each) => each.setting === setting)
      if (problems.length === (variable === "" ? 1 : 2) && setting.default !== undefined) expect(found?.value).toBe(setting.default)
    }
  })
})

describe("load", () => {
  it.effect("a file that cannot be read is a problem beside the others", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-config-"))), (path) =>
        Effect.sync(() => rmSync(path, { recursive: true })))
      const name = join(folder, "ksi.toml")
      expect((yield* Config.load({ flags: {}, environment: {} }, name)).problems).toEqual([])
      mkdirSync(name)
      const { problems, values } = yield* Config.load({ flags: { sync: "x" }, environment: {} }, name)
      expect(problems.map(({ setting, unread, where }) => [where, setting, unread])).toEqual([[name, undefined, true], ["--sync", "sync", undefined]])
      expect(values).toEqual(Config.defaults)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})

describe("secrets", () => {
  const place = Effect.acquireRelease(Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-secret-"))), (path) =>
    Effect.sync(() => rmSync(path, { recursive: true })))
  const held = ({ values: { otlpHeaders } }: Config.Config) => otlpHeaders && Redacted.value(otlpHeaders)
  const originOf = ({ settings }: Config.Config) => settings.find(({ setting }) => setting.name === "otlpHeaders")?.origin

  it.effect("are read from a file, from wherever it is named; whichever of the two is nearer counts", () =>
    Effect.gen(function*() {
      const folder = yield* place
      const file = join(folder, "headers")
      writeFileSync(file, "authorization=s3cret\n")
      const load = (sources: Partial<Omit<Config.Sources, "file">>, text = "") => {
        writeFileSync(join(folder, "ksi.toml"), text)
        return Config.load({ ...none, ...sources }, join(folder, "ksi.toml"))
      }
      const cases = [
        [yield* load({ environment: { KSI_OTLP_HEADERS_FILE: file } }), "authorization=s3cret", "KSI_OTLP_HEADERS_FILE"],
        [yield* load({ flags: { "otlp-headers-file": file }, environment: { KSI_OTLP_HEADERS: "a=1" } }), "authorization=s3cret", "--otlp-headers-file"],
        [yield* load({ environment: { KSI_OTLP_HEADERS: "a=1" } }, `otlp_headers_file = ${JSON.stringify(file)}`), "a=1", "KSI_OTLP_HEADERS"],
        [yield* load({ environment: { OTEL_EXPORTER_OTLP_HEADERS: "a=1" } }, `otlp_headers_file = ${JSON.stringify(file)}`), "authorization=s3cret", `${folder}/ksi.toml:1`],
        [yield* load({ environment: { OTEL_EXPORTER_OTLP_HEADERS: "a=1" } }), "a=1", "OTEL_EXPORTER_OTLP_HEADERS"],
        [yield* load({ environment: { KSI_OTLP_HEADERS: "a=1", KSI_OTLP_HEADERS_FILE: file } }), "a=1", "KSI_OTLP_HEADERS"],
        [yield* load({}), undefined, "default"]
      ] as const
      for (const [config, value, origin] of cases) {
        expect([held(config), originOf(config), config.problems, config.warnings]).toEqual([value, origin, [], []])
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("are told to nobody, also not where they are wrong; a file that cannot be read is a problem", () =>
    Effect.gen(function*() {
      const folder = yield* place
      const wrong = join(folder, "wrong")
      writeFileSync(wrong, "s3cret without a name")
      const toml = join(folder, "ksi.toml")
      writeFileSync(toml, "otlp_headers = \"s3cret\"")
      const broken = yield* Config.load({ flags: {}, environment: { KSI_OTLP_HEADERS_FILE: wrong, OTEL_EXPORTER_OTLP_HEADERS: "s3cret" } }, toml)
      expect(broken.problems.map(({ where }) => where)).toEqual([`${toml}:1`, "KSI_OTLP_HEADERS_FILE"])
      expect(broken.warnings.map(({ where }) => where)).toEqual(["OTEL_EXPORTER_OTLP_HEADERS"])
      const right = Config.resolve({ ...none, environment: { KSI_OTLP_HEADERS: "a=s3cret" } })
      expect(right.settings.find(({ setting }) => setting.name === "otlpHeaders")?.text).toBe("(secret)")
      expect([JSON.stringify([broken, right]), inspect([broken, right], { depth: 9 })].join()).not.toContain("s3cret")
      const absent = yield* Config.load({ flags: {}, environment: { KSI_OTLP_HEADERS_FILE: "/nowhere" } }, join(folder, "none.toml"))
      expect(absent.problems.map(Config.sentence)).toEqual(["KSI_OTLP_HEADERS_FILE: /nowhere cannot be read: NotFound"])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})

describe("the variables of OpenTelemetry", () => {
  const shared = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318/", OTEL_SERVICE_NAME: "shop", OTEL_RESOURCE_ATTRIBUTES: "a=1,b=%C3%BC" }
  it.effect("count where KSI is told nothing, and say so", () =>
    Effect.gen(function*() {
      const { settings, values, warnings } = yield* withFile("service_name = \"file\"", { environment: { ...shared, KSI_RESOURCE_ATTRIBUTES: "none" } })
      expect(values).toMatchObject({ otlp: "http://c:4318", serviceName: "file", resourceAttributes: "" })
      const origins = Object.fromEntries(settings.map(({ origin, setting }) => [setting.name, origin]))
      expect(origins).toMatchObject({ otlp: "OTEL_EXPORTER_OTLP_ENDPOINT", serviceName: "ksi.toml:1", resourceAttributes: "KSI_RESOURCE_ATTRIBUTES" })
      expect(warnings).toEqual([])
      expect((yield* withFile("", { environment: { ...shared, KSI_OTLP: "off" } })).values.otlp).toBe("off")
    }))
  it("are warned of where they cannot be read, and stop no daemon", () => {
    const { problems, values, warnings } = Config.resolve({ ...none, environment: { OTEL_EXPORTER_OTLP_ENDPOINT: "grpc://c", OTEL_RESOURCE_ATTRIBUTES: "a=%zz" } })
    expect([problems, values]).toEqual([[], Config.defaults])
    expect(warnings.map(({ where }) => where)).toEqual(["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_RESOURCE_ATTRIBUTES"])
  })
})

describe("the README", () => {
  const readme = readFileSync(join(import.meta.dirname, "..", "..", "README.md"), "utf8")
  it("has the table of the settings", () => expect(readme).toContain(table()))
  it("has an example with every limit", () => expect(readme).toContain(`\`\`\`toml\n${example()}\n\`\`\`\n`))
  it.effect("whose values are the defaults, each of them from the file", () =>
    Effect.gen(function*() {
      const { problems, settings, values, warnings } = yield* withFile(example())
      expect([problems, warnings, values]).toEqual([[], [], Config.defaults])
      const left = settings.filter(({ origin }) => origin === "default").map(({ setting }) => setting.name)
      expect(left).toEqual(["socket", "storeFile", "otlpHeaders", "otlpHeadersFile"])
    }))
})
