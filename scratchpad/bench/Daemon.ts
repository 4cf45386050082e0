/** A real daemon in a process of its own, and the CLI beside it, as users run them. */
import { type ChildProcess, spawn } from "node:child_process"
import * as Path from "node:path"

const root = Path.join(import.meta.dirname, "..", "..")
// As in the npm scripts.
const env = { ...process.env, NODE_COMPILE_CACHE: Path.join(root, "node_modules", ".cache", "ksi") }
const flags = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", Path.join(root, "src", "main.ts")]

/** A daemon that is ready. */
export interface Daemon {
  readonly process: ChildProcess
  readonly socket: string
  /** Where HTTP is. */
  readonly url: string
  /** Milliseconds from the spawn of node to "ready". */
  readonly readyAfter: number
  readonly stop: () => Promise<void>
}

const exited = (child: ChildProcess): Promise<number> =>
  new Promise((resolve) => {
    if (child.exitCode !== null) return resolve(child.exitCode)
    child.once("exit", (code) => resolve(code ?? 128))
  })

/** Starts a daemon on a home and waits until it says where it listens. */
export const start = async (home: string, ...args: ReadonlyArray<string>): Promise<Daemon> => {
  const began = performance.now()
  const child = spawn(process.execPath, [...flags, "start", "--json", "--log-level", "Error", "--home", home, "--port", "0", ...args], {
    cwd: root,
    env,
    stdio: ["ignore", "pipe", "inherit"]
  })
  const line = await new Promise<string>((resolve, reject) => {
    let text = ""
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk
      if (text.includes("\n")) resolve(text)
    })
    child.once("exit", (code) => reject(new Error(`the daemon ended with exit code ${code}`)))
  })
  const readyAfter = performance.now() - began
  const { socket, url } = JSON.parse(line) as { socket: string; url: string }
  const stop = async () => {
    child.kill("SIGTERM")
    await exited(child)
  }
  return { process: child, socket, url, readyAfter, stop }
}

/** Runs a command of the CLI; answers with what it wrote to stdout. Throws when it fails. */
export const ksi = async (home: string, ...args: ReadonlyArray<string>): Promise<string> => {
  const child = spawn(process.execPath, [...flags, ...args, "--home", home], {
    cwd: root,
    env,
    stdio: ["ignore", "pipe", "inherit"]
  })
  let out = ""
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (out += chunk))
  const code = await exited(child)
  if (code !== 0) throw new Error(`ksi ${args.join(" ")} ended with exit code ${code}`)
  return out
}

/** Arguments of node for a process that only imports the same libraries; the next one is how long it waits, in ms. */
export const imports: ReadonlyArray<string> = [flags[0] ?? "", Path.join(import.meta.dirname, "imports.mjs")]
