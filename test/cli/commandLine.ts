// Runs command lines in this process, with streams that are kept as text.
import { NodeServices } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import { Readable, Writable } from "node:stream"
import * as Cli from "../../src/cli/Cli.ts"
import { Io } from "../../src/cli/Io.ts"

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
}

export const start = Command.make("start", {}, () => Effect.void)

/** The layer of a world made of these streams. */
export const world = ({ env = {}, stderr = new Kept(), stdin = "", stdout = new Kept() }: Options) =>
  Layer.mergeAll(Io.layer({ env, stdin: Readable.from([Buffer.from(stdin)]), stdout, stderr }), NodeServices.layer)

/** Runs a command line, and tells everything that can be seen of it. */
export const ksi = Effect.fnUntraced(function*(argv: ReadonlyArray<string>, options: Options = {}) {
  const stdout = options.stdout ?? new Kept()
  const stderr = options.stderr ?? new Kept()
  const code = yield* Cli.run(argv, { version: "1.2.3", node: process.versions.node, start }).pipe(Effect.provide(world({ ...options, stdout, stderr })))
  return { code, stdout: stdout.text, stderr: stderr.text }
})
