/**
 * `npm run -s bench -- <name> [--quick] [--json]`: runs scratchpad/bench/<name>.ts, which exports `run(bench)`, after
 * installing what KSI is compared with, where that is missing or out of date.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Bench } from "./Bench.ts"

// Benchmarks are written small, what they share has a capital.
const names = Fs.readdirSync(import.meta.dirname)
  .filter((file) => /^[a-z][a-z-]*\.ts$/.test(file) && file !== "main.ts")
  .map((file) => Path.basename(file, ".ts"))

const args = process.argv.slice(2)
const flags = args.filter((arg) => arg.startsWith("--"))
const [name, ...rest] = args.filter((arg) => !arg.startsWith("--"))
const unknown = flags.find((flag) => flag !== "--quick" && flag !== "--json")
if (name === undefined || rest.length > 0 || unknown !== undefined || !names.includes(name)) {
  process.stderr.write(`usage: bench <name> [--quick] [--json]\nnames: ${names.join(", ")}\n`)
  process.exit(2)
}

const lock = (folder: string) => Path.join(import.meta.dirname, folder, "package-lock.json")
const installed = lock("node_modules").replace("package-lock", ".package-lock")
if (!Fs.existsSync(installed) || Fs.statSync(lock("")).mtimeMs > Fs.statSync(installed).mtimeMs) {
  process.stderr.write("bench: installing what KSI is compared with (npm ci)\n")
  const npm = ["ci", "--prefix", import.meta.dirname, "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error"]
  const { status } = spawnSync("npm", npm, { cwd: import.meta.dirname, stdio: ["ignore", 2, 2] })
  if (status !== 0) process.exit(1)
}

const bench = new Bench(name, flags.includes("--quick"), flags.includes("--json"))
try {
  const module: { readonly run: (bench: Bench) => Promise<void> } = await import(`./${name}.ts`)
  bench.calibrate()
  await module.run(bench)
} finally {
  bench.close()
}
