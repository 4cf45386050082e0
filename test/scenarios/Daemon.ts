// A real daemon in a process of its own and the CLI beside it, in a home that is gone afterwards.
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"

export const root = join(import.meta.dirname, "..", "..")
const node = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", join(root, "src", "main.ts")]

/** How a process ended and what it wrote. */
export interface Ended {
  /** Exit code; `undefined` when a signal ended it. */
  readonly code: number | undefined
  readonly stdout: string
  readonly stderr: string
}

/** A process that may still run. */
export class Running {
  readonly child: ChildProcess
  stdout = ""
  stderr = ""
  private readonly end: Promise<Ended>

  constructor(
    args: ReadonlyArray<string>,
    env: Readonly<Record<string, string>> = {},
    { cwd = root, uid }: { readonly cwd?: string; readonly uid?: number } = {}
  ) {
    this.child = spawn(process.execPath, [...node, ...args], {
      cwd,
      ...(uid === undefined ? {} : { uid }),
      // As in the npm scripts: what was compiled once need not be compiled again.
      // Of two daemons on one port one would not start.
      env: { PATH: process.env["PATH"] ?? "", KSI_PORT: "off", NODE_COMPILE_CACHE: join(root, "node_modules", ".cache", "ksi"), ...env },
      stdio: ["pipe", "pipe", "pipe"]
    })
    this.child.stdout?.setEncoding("utf8").on("data", (text: string) => (this.stdout += text))
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => (this.stderr += text))
    this.end = once(this.child, "close").then(([code]: Array<unknown>) => ({
      code: typeof code === "number" ? code : undefined, stdout: this.stdout, stderr: this.stderr
    }))
  }

  ended(): Promise<Ended> {
    return this.end
  }

  /** Waits until stdout holds the text; throws when the process ends before. */
  says(text: string): Promise<void> {
    return this.holds("stdout", text)
  }

  /** As `says`, of stderr. */
  tells(text: string): Promise<void> {
    return this.holds("stderr", text)
  }

  private async holds(stream: "stdout" | "stderr", text: string): Promise<void> {
    while (!this[stream].includes(text)) {
      const next = Promise.race([once(this.child[stream] ?? this.child, "data").then(() => true), this.end.then(() => false)])
      if (!(await next) && !this[stream].includes(text)) throw new Error(`it ended:\n${this.stdout}\n${this.stderr}`)
    }
  }

  async kill(signal: NodeJS.Signals): Promise<Ended> {
    this.child.kill(signal)
    return this.end
  }
}

/** A home that is gone when the test ends; everything started in it is killed first. */
export class Home implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), "ksi-home-"))
  private readonly running: Array<Running> = []

  get socket(): string {
    return join(this.path, "run", "daemon.sock")
  }

  /** Starts a command and does not wait for its end. */
  spawn(...args: ReadonlyArray<string>): Running {
    const process = new Running(args, { KSI_HOME: this.path })
    this.running.push(process)
    return process
  }

  /** Starts a daemon and waits until it is ready. */
  async start(...args: ReadonlyArray<string>): Promise<Running> {
    const daemon = this.spawn("start", ...args)
    await daemon.says("ksi is ready")
    return daemon
  }

  /** Runs a command to its end. */
  async ksi(...args: ReadonlyArray<string>): Promise<Ended> {
    const process = this.spawn(...args)
    process.child.stdin?.end()
    return process.ended()
  }

  /** Sends frames over one connection and answers with as many replies. */
  async frames(...requests: ReadonlyArray<object>): Promise<ReadonlyArray<{ readonly [key: string]: unknown }>> {
    const socket = connect(this.socket)
    await once(socket, "connect")
    socket.write(requests.map((request) => `${JSON.stringify(request)}\n`).join(""))
    const replies: Array<{ readonly [key: string]: unknown }> = []
    for await (const line of createInterface({ input: socket })) {
      replies.push(JSON.parse(line) as { readonly [key: string]: unknown })
      if (replies.length === requests.length) break
    }
    socket.destroy()
    return replies
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.running) await process.kill("SIGKILL")
    rmSync(this.path, { recursive: true, force: true })
  }
}
