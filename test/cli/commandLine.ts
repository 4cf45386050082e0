// Runs command lines in this process, with streams that are kept as text.
import { NodeServices } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import { Readable, Writable } from "node:stream"
import * as Cli from "../../src/cli/Cli.ts"
import { Io } from "../../src/cli/Io.ts"
import * as Start from "../../src/cli/Start.ts"

/** A stream that keeps what is written; after `max` writes it fails as a pipe without a reader does. */
export class Kept extends Writable {
  text = ""
  readonly isTTY: boolean
  private writes = 0
  private readonly max: number
  constructor(isTTY = false, max = Infinity) {
    super({ decodeStrings: false })
    this.isTTY = isTTY
    this.max = max
  }
  override _write(chunk: string | Uint8Array, _encoding: string, done: (cause?: Error) => void) {
    if (++this.writes > this.max) return done(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }))
    this.text += String(chunk)
    done()
  }
}

export interface Options {
  readonly env?: Record<string, string>
  readonly stdin?: string
  readonly stdout?: Kept
  readonly stderr?: Kept
  /** `ksi start`, to be looked at; the tests of this process start no daemon. */
  readonly start?: typeof Start.start
}

const start = Command.make("start", {}, () => Effect.void).pipe(Command.withDescription("Run the daemon"))
const host: Start.Host["Service"] = {
  load: () => Promise.reject(new Error("no daemon is started here")),
  command: "ksi",
  serves: () => {},
  info: { version: "1.2.3", pid: 1, memoryBytes: () => 1 }
}

/** The layer of a world made of these streams. */
export const world = ({ env = {}, stderr = new Kept(), stdin = "", stdout = new Kept() }: Options) =>
  Layer.mergeAll(Io.layer({ env, stdin: Readable.from([Buffer.from(stdin)]), stdout, stderr }), NodeServices.layer)

/** Runs a command line, and tells everything that can be seen of it. */
export const ksi = Effect.fnUntraced(function*(argv: ReadonlyArray<string>, options: Options = {}) {
  const stdout = options.stdout ?? new Kept()
  const stderr = options.stderr ?? new Kept()
  const versions = { version: "1.2.3", node: process.versions.node }
  const run = options.start === undefined
    ? Cli.run(argv, { ...versions, start })
    : Effect.provideService(Cli.run(argv, { ...versions, start: options.start }), Start.Host, host)
  const code = yield* run.pipe(Effect.provide(world({ ...options, stdout, stderr })))
  return { code, stdout: stdout.text, stderr: stderr.text }
})
