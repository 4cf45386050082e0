/**
 * `ksi status`, `health` and `stop`: is the daemon there, how is it, and ending it.
 *
 * The rule: `stop` answers when the daemon has ended, so that the next `ksi start` finds its home free.
 *
 * **Example**
 *
 * ```ts
 * Daemon.uptime(3725)                         // "1 h 2 min"
 * ```
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schedule from "effect/Schedule"
import { isObject, type JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Help from "./Help.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"
import * as Settings from "./Settings.ts"

// How long `stop` waits beyond the daemon's drain, in milliseconds.
const graceMillis = 10_000

/** Seconds in words: the two largest units. */
export const uptime = (seconds: number): string => {
  const whole = Math.floor(seconds)
  const parts = ([["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]] as const)
    .map(([unit, size], i, units) => [unit, Math.floor((i === 0 ? whole : whole % (units[i - 1]?.[1] ?? 1)) / size)] as const)
  const first = parts.findIndex(([, n]) => n > 0)
  return first < 0 ? "0 s" : parts.slice(first, first + 2).filter(([, n]) => n > 0).map(([unit, n]) => `${n} ${unit}`).join(" ")
}

const rowsOf = (value: JsonObject, prefix = ""): ReadonlyArray<ReadonlyArray<string>> =>
  Object.entries(value).flatMap(([key, field]) =>
    isObject(field)
      ? rowsOf(field, `${prefix}${key}.`)
      : [[`${prefix}${key}`, key === "uptime" ? uptime(Number(field)) : Output.textOf(field)]])

const text = (value: JsonObject): string => Output.aligned(rowsOf(value)).map((row) => `${row}\n`).join("")

const healthOf = Effect.fnUntraced(function*(remote: Remote.Remote) {
  const { _ksi_context: _, ...health } = yield* remote.call("system:health", {})
  return health
})

/** `ksi status`. */
export const status = Command.make("status", {}, Effect.fnUntraced(function*() {
  const remote = yield* Remote.connect
  const health = yield* healthOf(remote)
  const { home, pid, position, socket = remote.address, tcp, uptime: seconds, url, version } = health
  const answer = Remote.given({ status: "running", version, pid, uptime: seconds, position, home, socket, url, tcp })
  yield* Output.documentOr(answer, () => text(answer))
}, Effect.scoped)).pipe(
  Command.withDescription("Say whether a daemon runs, and where"),
  Command.annotate(Help.Sections, [Help.exits(0, 5)]),
  Command.withExamples([{ command: "ksi status" }, { command: "ksi status --home /var/lib/ksi", description: "Another daemon" }])
)

/** `ksi health`. */
export const health = Command.make("health", {}, Effect.fnUntraced(function*() {
  const remote = yield* Remote.connect
  const answer = yield* healthOf(remote)
  yield* Output.documentOr(answer, () => text(answer))
}, Effect.scoped)).pipe(
  Command.withDescription("Print the daemon's figures"),
  Command.annotate(Help.Sections, [Help.exits(0, 5)]),
  Command.withExamples([{ command: "ksi health --json" }])
)

/** Whether somebody accepts connections there: of a daemon elsewhere nothing else can be seen. */
const accepts = Effect.scoped(Remote.connect).pipe(
  Effect.as(true),
  Effect.catchIf((error) => KsiError.is(error) && error.reason._tag === "ConnectionLost", () => Effect.succeed(false))
)

/**
 * Whether a daemon still holds its home: its socket is there, or, where the system tells (Linux), its process, which
 * may have modules to stop after the socket is gone. A process that has ended and waits for its parent holds nothing.
 */
const holds = Effect.fnUntraced(function*(address: string, pid: unknown) {
  const fs = yield* FileSystem.FileSystem
  if (yield* fs.exists(address).pipe(Effect.orElseSucceed(() => false))) return true
  const state = yield* fs.readFileString(`/proc/${String(pid)}/status`).pipe(Effect.orElseSucceed(() => "State: Z"))
  return !/^State:\s+[ZX]/m.test(state)
})

const isLost = (error: Remote.RemoteError): boolean =>
  KsiError.is(error) && error.reason._tag === "ConnectionLost" && !error.reason.unsent

/** `ksi stop`. */
export const stop = Command.make("stop", {}, Effect.fnUntraced(function*() {
  const { address, pid } = yield* Effect.scoped(Effect.gen(function*() {
    const remote = yield* Remote.connect
    const { pid } = yield* healthOf(remote)
    // A daemon that went away while it owed the answer is doing what it was asked.
    yield* Effect.catchIf(remote.call("system:shutdown", {}), isLost, () => Effect.void)
    return { address: remote.address, pid }
  }))
  yield* Output.narrate("stopping")
  const stopMillis = (yield* Settings.load({})).values.drain + graceMillis
  // Nobody tells when another process has ended: this is the one place that looks again and again.
  yield* ((yield* Settings.isElsewhere) ? accepts : holds(address, pid)).pipe(
    Effect.repeat({ schedule: Schedule.spaced("25 millis"), while: (running) => running }),
    Effect.timeoutOrElse({
      duration: stopMillis,
      orElse: () => KsiError.fail(new KsiError.DeadlineExceeded({ event: "system:shutdown", millis: stopMillis }))
    })
  )
  yield* Output.documentOr(Remote.given({ status: "stopped", pid }), () => "stopped\n")
})).pipe(
  Command.withDescription("Stop the daemon, and wait until it has ended"),
  Command.withExamples([{ command: "ksi stop" }])
)
