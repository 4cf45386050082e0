// What people get who install the package: packed by npm from the sources, unpacked into an empty project, used as they
// would. Unpacking beside links to the dependencies that are here stands for `npm install <tarball>`, which would need a
// registry: that is what it does for a package without install scripts, save that it finds the dependencies elsewhere.
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import {
  chmodSync, cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, dirname, join } from "node:path"
import { root } from "./Daemon.ts"

const folder = mkdtempSync(join(tmpdir(), "ksi-package-"))
const app = join(folder, "app")
const installed = join(app, "node_modules", "ksi")
// npm and the commands of the package look for `node`: they get the one that the tests run on.
const env = { PATH: [dirname(process.execPath), process.env["PATH"]].join(delimiter), HOME: folder, KSI_HOME: join(app, "var"), KSI_PORT: "0" }

interface Manifest {
  readonly version: string
  readonly bin: { readonly ksi: string }
}
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Manifest

/** Packs a copy of the sources, so that nothing is built inside of the checkout. */
const pack = (): string => {
  const copy = join(folder, "copy")
  for (const name of ["package.json", "tsconfig.json", "tsconfig.build.json", "README.md", "LICENSE", ".ci", "src"]) {
    cpSync(join(root, name), join(copy, name), { recursive: true })
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"))
  execFileSync("npm", ["pack", "--loglevel=error", "--pack-destination", folder], { cwd: copy, env, stdio: ["ignore", "ignore", "inherit"] })
  return join(folder, `ksi-${manifest.version}.tgz`)
}

/** What `npm install` makes of a tarball. */
const install = (tarball: string): void => {
  mkdirSync(installed, { recursive: true })
  execFileSync("tar", ["-xzf", tarball, "--strip-components=1", "-C", installed])
  for (const name of ["effect", "@effect", "@marcbachmann"]) symlinkSync(join(root, "node_modules", name), join(app, "node_modules", name))
  const bin = join(installed, manifest.bin.ksi)
  mkdirSync(join(app, "node_modules", ".bin"))
  chmodSync(bin, 0o755)
  symlinkSync(bin, join(app, "node_modules", ".bin", "ksi"))
}

const ksi = (...args: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = spawnSync(join(app, "node_modules", ".bin", "ksi"), args, { cwd: app, env, encoding: "utf8" })
  return { code: status, stdout, stderr }
}

const shop = `
import { Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Ksi } from "ksi"

const Order = Event.make("shop:order", { payload: { sku: Schema.String }, success: Schema.Struct({ cents: Schema.Int }) })
const Shop = EventGroup.make(Order)
const Handlers = Shop.toLayer({ "shop:order": ({ sku }) => Effect.succeed({ cents: sku.length }) })

export default Ksi.module(Ksi.serve(Shop).pipe(Layer.provide(Handlers)))
`
const typed = `
interface Toll { readonly cents: number }
const toll: Toll = { cents: 5 }
${shop.replaceAll("shop:", "till:").replace("sku.length", "toll.cents")}
// Were the types not found, this would be any, and no error.
// @ts-expect-error
export const wrong: string = Order.name.length
// @ts-expect-error
Shop.toLayer({})
`

beforeAll(() => {
  install(pack())
  writeFileSync(join(app, "package.json"), `{"type":"module"}`)
  writeFileSync(join(app, "shop.js"), shop)
  writeFileSync(join(app, "till.ts"), typed)
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true }))

describe("the tarball", () => {
  const files = () => globSync("**/*", { cwd: installed }).filter((name) => statSync(join(installed, name)).isFile())
  it("holds the code, its types, and what one reads first; nothing else", () => {
    const modules = globSync("**/*.ts", { cwd: join(root, "src") }).map((name) => name.replace(/\.ts$/, ""))
    const built = modules.flatMap((name) => [`dist/${name}.js`, `dist/${name}.d.ts`])
    expect(files().toSorted()).toEqual([...built, "LICENSE", "README.md", "dist/command.js", "package.json"].toSorted())
  })
  it("refers to no file that it does not hold", () => {
    let relative = 0
    for (const name of files().filter((name) => /\.(js|d\.ts)$/.test(name))) {
      const text = readFileSync(join(installed, name), "utf8").replace(/^\s*(\/\*\*|\*).*$/gm, "")
      expect(text).not.toContain("sourceMappingURL")
      for (const [, specifier = ""] of text.matchAll(/(?:\bfrom |\bimport |\bimport\()["'](\.[^"']+)["']/g)) {
        relative++
        expect(specifier, name).toMatch(/\.js$/)
        const target = join(installed, dirname(name), specifier)
        expect(existsSync(name.endsWith(".d.ts") ? target.replace(/\.js$/, ".d.ts") : target), `${name}: ${specifier}`).toBe(true)
      }
    }
    expect(relative).toBeGreaterThan(500)
  })
})

describe("the command", () => {
  it("says its version", () => {
    expect(ksi("--version")).toEqual({ code: 0, stdout: `ksi ${manifest.version}\n`, stderr: "" })
  })
  it("runs a daemon with modules in JavaScript and TypeScript, and asks it", async () => {
    const daemon = spawn(join(app, "node_modules", ".bin", "ksi"), ["start", "shop.js", "till.ts"], {
      cwd: app, env: { ...env, npm_lifecycle_event: "start", npm_package_name: "shop" }
    })
    const ended = once(daemon, "close")
    let said = ""
    for await (const text of daemon.stdout.setEncoding("utf8")) {
      said += String(text)
      if (said.includes("ksi is ready\n")) break
    }
    expect(said).toContain("try     npx ksi health\n")
    expect(JSON.parse(ksi("health", "--json").stdout)).toMatchObject({ version: manifest.version })
    expect(ksi("call", "shop:order", "sku=tea", "--json")).toEqual({ code: 0, stdout: "{\"cents\":3}\n", stderr: "" })
    expect(ksi("call", "till:order", "sku=tea", "--json").stdout).toBe("{\"cents\":5}\n")
    // Threads of their own do this: the package has their programs where they are looked for.
    expect(ksi("backup", "monday.db")).toMatchObject({ code: 0, stdout: expect.stringMatching(/^backed up .+ to \S+monday\.db /) })
    expect(ksi("verify", "monday.db")).toMatchObject({ code: 0, stdout: expect.stringContaining("is sound") })
    expect(ksi("stop")).toMatchObject({ code: 0, stdout: "stopped\n" })
    expect(await ended).toEqual([0, null])
  })
  it("tells an old Node what it needs", () => {
    // The check is all that such a Node would run.
    const text = readFileSync(join(installed, manifest.bin.ksi), "utf8").replace("process.versions", "{ node: \"20.20.2\" }")
    const old = join(folder, "old.mjs")
    writeFileSync(old, text)
    const { status, stderr } = spawnSync(process.execPath, [old], { encoding: "utf8" })
    expect(status).toBe(5)
    expect(stderr).toMatch(/^✗ Node {2}ksi needs Node 24 or newer, and this is 20\.20\.2/)
  })
})

describe("the library", () => {
  it("runs in a program", () => {
    writeFileSync(join(app, "program.js"), `${shop.replace("export default", "const module =")}
import * as ksi from "ksi"
const asked = Effect.flatMap(Ksi, (bus) => bus.call(Order, { sku: "tea" })).pipe(Effect.provide(module.pipe(Layer.provideMerge(Ksi.layerMemory))))
console.log(JSON.stringify(await Effect.runPromise(asked)), Object.keys(ksi).length)
`)
    const { stderr, stdout } = spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", "program.js"], { cwd: app, encoding: "utf8" })
    expect({ stderr, stdout }).toMatchObject({ stderr: "", stdout: expect.stringMatching(/^\{"cents":3\} \d\d\n$/) })
  })
  it("moves a store's log in a thread of its own", () => {
    // One that did not start would leave it all to SQLite, which is slower and otherwise the same: so it is asked for by name.
    writeFileSync(join(app, "checkpoint.js"), `
import { DatabaseSync } from "node:sqlite"
import { Worker } from "node:worker_threads"
const db = new DatabaseSync("log.db")
db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)")
const control = new Int32Array(new SharedArrayBuffer(8))
Atomics.store(control, 0, 1)
const workerData = { filename: "log.db", sync: "FULL", pages: 1, control }
new Worker(new URL("./node_modules/ksi/dist/store/internal/CheckpointThread.js", import.meta.url), { workerData }).on("exit", (code) => {
  const { checkpointed, log } = db.prepare("PRAGMA wal_checkpoint(NOOP)").get()
  console.log(code, log > 0 && checkpointed === log)
})
`)
    const { stderr, stdout } = spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", "checkpoint.js"], { cwd: app, encoding: "utf8" })
    expect({ stderr, stdout }).toEqual({ stderr: "", stdout: "0 true\n" })
  })
  it("plays scenarios of its user's app", () => {
    writeFileSync(join(app, "scenario.ts"), `${shop.replace("export default", "const module =")}
import { KsiTest } from "ksi/testing"
const scenario = (cents: number) => KsiTest.scenario.when(Order, { sku: "tea" }).thenReplies({ cents }).thenEmits()
const play = (cents: number) => Effect.runPromise(Effect.result(Effect.provide(scenario(cents), KsiTest.layer(module))))
console.log((await play(3))._tag, (await play(4))._tag)
// @ts-expect-error it declares no error
KsiTest.scenario.when(Order, { sku: "tea" }).thenFails("SoldOut")
`)
    const { stderr, stdout } = spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", "scenario.ts"], { cwd: app, encoding: "utf8" })
    expect({ stderr, stdout }).toEqual({ stderr: "", stdout: "Success Failure\n" })
  })
  it("is light: no server, no command line, nothing of the platform is loaded with it", () => {
    writeFileSync(join(app, "loads.js"), `import { registerHooks } from "node:module"
const urls = []
registerHooks({ load: (url, context, next) => (urls.push(url), next(url, context)) })
await import("ksi")
console.log(JSON.stringify(urls))
`)
    const { stdout } = spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", "loads.js"], { cwd: app, encoding: "utf8" })
    const urls = JSON.parse(stdout) as ReadonlyArray<string>
    expect(urls.some((url) => url.endsWith("/ksi/dist/bus/Router.js"))).toBe(true)
    // The name of what speaks HTTP, which is loaded when a layer of it is built.
    const named = /\/ksi\/dist\/(server\/(HttpServer|internal\/address)|wire\/Remote)\.js$/
    expect(urls.filter((url) => !named.test(url) && /@effect\/|\/effect\/dist\/(index\.js|cli\/)|\/ksi\/dist\/(cli|plugins|server|wire|testing)\//.test(url))).toEqual([])
  })
  for (const [module, moduleResolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
    it(`has types for moduleResolution ${moduleResolution}`, () => {
      const compilerOptions = {
        module, moduleResolution, target: "es2024", strict: true, exactOptionalPropertyTypes: true, noEmit: true, skipLibCheck: true, types: []
      }
      writeFileSync(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["till.ts", "scenario.ts"] }))
      const tsc = join(root, "node_modules", "typescript", "bin", "tsc")
      const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", app], { encoding: "utf8" })
      expect({ status, stdout }).toEqual({ status: 0, stdout: "" })
    })
  }
})
