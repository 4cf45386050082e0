/**
 * What a command knows of the world around it: the environment, three byte streams, and whether people watch them.
 *
 * The rule: data goes to stdout and waits until it is taken, so that an output of any size needs constant memory;
 * everything said *about* the work goes to stderr. A reader that goes away (`ksi export | head -1`) ends the command
 * quietly: `write` fails with `Closed`, which is exit code 0.
 *
 * **Example**
 *
 * ```ts
 * const { PassThrough } = yield* Effect.promise(() => import("node:stream"))
 * const stdout = new PassThrough()
 * const world = Io.Io.layer({ env: {}, stdin: new PassThrough(), stdout, stderr: new PassThrough() })
 * yield* Effect.flatMap(Io.Io, (io) => io.write("text")).pipe(Effect.provide(world))
 * String(stdout.read())                       // "text"
 * ```
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Readable, Writable } from "node:stream"
import { sentenceOf } from "../event/KsiError.ts"

/** The reader of stdout went away; there is nobody left to tell. */
export class Closed extends Schema.TaggedClass<Closed>()("Closed", {}) {}

/** Standard input or output failed for another reason, as a full disk. */
export class IoFailed extends Schema.TaggedClass<IoFailed>()("IoFailed", {
  /** `stdin` or `stdout`. */
  stream: Schema.String,
  problem: Schema.String
}) {}

/** What the process hands to `Io.layer`. */
export interface Streams {
  readonly env: { readonly [name: string]: string | undefined }
  readonly stdin: Readable
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number }
  readonly stderr: Writable & { readonly isTTY?: boolean; readonly columns?: number }
}

/** The world around a command. */
export class Io extends Context.Service<Io, {
  /** A variable of the environment; an empty one counts as absent. */
  readonly variable: (name: string) => string | undefined
  /** All variables of the environment, for those who look for names nobody knows. */
  readonly environment: Streams["env"]
  readonly stdin: Stream.Stream<Uint8Array, IoFailed>
  /** Writes to stdout; succeeds when the text has been taken. */
  readonly write: (text: string) => Effect.Effect<void, Closed | IoFailed>
  /** Writes to stderr; never fails. */
  readonly writeError: (text: string) => Effect.Effect<void>
  /** Whether stdout is a terminal. */
  readonly interactive: boolean
  /** Whether stderr is a terminal on which a line may be written over. */
  readonly animated: boolean
  /** Whether stderr is a terminal of any kind. */
  readonly watched: boolean
  /** Whether stderr may be coloured. */
  readonly coloured: boolean
  /** Width of stderr in characters. */
  readonly columns: number
  /** Width of stdout in characters; no limit where it is not a terminal. */
  readonly width: number
}>()("ksi/cli/Io") {
  /** Over the streams of the process. */
  static readonly layer = (streams: Streams): Layer.Layer<Io> => Layer.sync(Io, () => make(streams))
}

const codeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

const goneCodes: ReadonlySet<unknown> = new Set(["EPIPE", "ECONNRESET", "ERR_STREAM_DESTROYED", "ERR_STREAM_WRITE_AFTER_END"])

/**
 * A stream reports a failed write to the callback and as an event; the event alone would end the process. It may come
 * after the command has ended, so nothing takes the listener off again.
 */
const mute = (stream: Writable): Writable => stream.on("error", () => {})

const write = (stream: Writable) => (text: string): Effect.Effect<void, Closed | IoFailed> =>
  text === "" ? Effect.void : Effect.callback<void, Closed | IoFailed>((resume) => {
    stream.write(text, (cause) => {
      if (cause === undefined || cause === null) return resume(Effect.void)
      resume(Effect.fail(
        goneCodes.has(codeOf(cause)) ? new Closed() : new IoFailed({ stream: "stdout", problem: sentenceOf(cause) })
      ))
    })
  })

const make = ({ env, stderr, stdin, stdout }: Streams): Io["Service"] => {
  const variable = (name: string) => env[name] === "" ? undefined : env[name]
  const dumb = variable("TERM") === "dumb"
  const toError = write(mute(stderr))
  return Io.of({
    variable,
    environment: env,
    stdin: NodeStream.fromReadable({
      evaluate: () => stdin,
      onError: (cause) => new IoFailed({ stream: "stdin", problem: sentenceOf(cause) }),
      closeOnDone: false
    }),
    write: write(mute(stdout)),
    writeError: (text) => Effect.ignore(toError(text)),
    interactive: stdout.isTTY === true,
    watched: stderr.isTTY === true,
    animated: stderr.isTTY === true && !dumb,
    coloured: stderr.isTTY === true && !dumb && variable("NO_COLOR") === undefined,
    // A terminal that does not know its width says 0.
    columns: stderr.columns || 80,
    width: stdout.isTTY === true ? stdout.columns || 80 : Infinity
  })
}
