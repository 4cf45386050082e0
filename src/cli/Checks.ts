/**
 * What `ksi doctor` looks at: each check says how it is, and what to do where it is not well.
 *
 * The rule: looking changes nothing, in the home or in a daemon that runs. A warning is what somebody should know; a
 * problem is what keeps a daemon from starting, from keeping facts, or from telling when they were.
 *
 * **Example**
 *
 * ```ts
 * Checks.node("22.4.0").status                // "problem"
 * const { limits } = Config.defaults
 * Checks.limits({ ...limits, pageBytes: 8 * 1024 * 1024 }).map(({ status }) => status)   // ["warning"]
 * ```
 */
import * as Effect from "effect/Effect"
import { constants } from "node:fs"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Path from "node:path"
import type { LimitsShape } from "../event/Limits.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Config from "../server/Config.ts"
import * as HttpGuard from "../server/HttpGuard.ts"
import * as Setting from "../server/Setting.ts"
import * as StoreInspection from "../store/StoreInspection.ts"
import * as Client from "../wire/Client.ts"
import * as Listener from "../wire/Listener.ts"
import * as Output from "./Output.ts"

/** What was found of one thing. */
export interface Check {
  readonly check: string
  readonly status: "ok" | "warning" | "problem"
  readonly message: string
  /** What to do. */
  readonly mend: string | undefined
}

const ok = (check: string, message: string): Check => ({ check, status: "ok", message, mend: undefined })
const warning = (check: string, message: string, mend: string): Check => ({ check, status: "warning", message, mend })
const problem = (check: string, message: string, mend: string): Check => ({ check, status: "problem", message, mend })

// ----------------------------------------------------------------------------------------------------- configuration

const mendOf = ({ setting, similar, where }: Config.Problem): string => {
  if (similar.length > 0) return `did you mean ${similar.join(" or ")}?`
  if (setting !== undefined) return `correct it, or leave it out for the default`
  return where.startsWith("KSI_") ? `unset ${where} where it is not meant for KSI` : `correct or remove this line`
}

/** Mistakes in flags, variables and the file. */
export const configuration = ({ problems, warnings }: Config.Config): ReadonlyArray<Check> =>
  problems.length + warnings.length === 0 ? [ok("settings", "every setting given is one that KSI knows")] : [
    ...problems.map((each) => problem("settings", Config.sentence(each), mendOf(each))),
    ...warnings.map((each) => warning("settings", Config.sentence(each), mendOf(each)))
  ]

const leastNode = 24

/** The version of Node. */
export const node = (version: string): Check =>
  Number(version.split(".")[0]) >= leastNode
    ? ok("node", `Node ${version}`)
    : problem("node", `Node ${version} is too old`, `install Node ${leastNode} or newer`)

// --------------------------------------------------------------------------------------------------------------- home

const attempt = <A>(f: () => Promise<A>): Effect.Effect<A | undefined> =>
  Effect.promise(() => f().catch(() => undefined))

const exists = (path: string) => Effect.map(attempt(() => Fs.lstat(path)), (stat) => stat !== undefined)

/** The directory itself, or the nearest one above it that exists. */
const nearestDirectory = Effect.fnUntraced(function*(path: string) {
  let directory = Path.resolve(path)
  while (!(yield* exists(directory)) && Path.dirname(directory) !== directory) directory = Path.dirname(directory)
  return directory
})

/** Whether the home can be written, or made. */
export const home = Effect.fnUntraced(function*(path: string) {
  const directory = yield* nearestDirectory(path)
  const there = directory === Path.resolve(path)
  const stat = yield* attempt(() => Fs.stat(directory))
  if (stat === undefined || !stat.isDirectory()) {
    return problem("home", `${directory} is not a directory`, "set KSI_HOME to a directory of its own, or remove what is there")
  }
  const writable = yield* attempt(() => Fs.access(directory, constants.W_OK | constants.X_OK).then(() => true))
  if (writable !== true) {
    return problem("home", there ? `${path} cannot be written` : `${path} does not exist, and ${directory} cannot be written`,
      `give the user of the daemon the right to write ${directory}, or set KSI_HOME`)
  }
  return ok("home", there ? `${path} can be written` : `${path} does not exist yet; ksi start makes it`)
})

// ------------------------------------------------------------------------------------------------------------- socket

/** Whether a socket can be at the path. */
export const socket = Effect.fnUntraced(function*(path: string) {
  const long = yield* Effect.match(Listener.checkPath(path), { onFailure: KsiError.sentenceOf, onSuccess: () => undefined })
  if (long !== undefined) return problem("socket", long, "set KSI_HOME or KSI_SOCKET to a shorter path")
  const directory = Path.dirname(path)
  const stat = yield* attempt(() => Fs.stat(directory))
  if (stat === undefined) return ok("socket", `${directory} does not exist yet; ksi start makes it, closed to others`)
  if ((stat.mode & 0o1000) !== 0) {
    return problem("socket", `${directory} is shared by everybody`, "set KSI_SOCKET to a path in a directory of its own")
  }
  const mode = (stat.mode & 0o777).toString(8).padStart(4, "0")
  return (stat.mode & 0o077) === 0
    ? ok("socket", `${directory} is closed to others (${mode})`)
    : warning("socket", `${directory} is open to others (${mode}): who can open the socket is owner`,
      `chmod 700 ${directory}; ksi start does it too`)
})

/** Whether somebody answers, and what is said of it. */
export interface Daemon {
  readonly running: boolean
  /** Where it speaks HTTP. */
  readonly url?: string | undefined
  /** Where it speaks over TCP. */
  readonly tcp?: string | undefined
  readonly check: Check
}

const answerMillis = 2000

const ask = (path: string) =>
  Effect.scoped(Effect.gen(function*() {
    const client = yield* Client.connect({ url: path, clientId: "ksi-doctor" })
    return (yield* client.call("system:health", {})).data
  })).pipe(
    Effect.timeoutOrElse({
      duration: answerMillis,
      orElse: () => KsiError.fail(new KsiError.DeadlineExceeded({ event: "system:health", millis: answerMillis }))
    })
  )

/** Whether a daemon answers at the socket. */
export const daemon = Effect.fnUntraced(function*(path: string): Effect.fn.Return<Daemon> {
  const none = (check: Check): Daemon => ({ running: false, check })
  const found = yield* Effect.match(Listener.probe(path), { onFailure: KsiError.sentenceOf, onSuccess: (at) => ({ at }) })
  if (typeof found === "string") return none(problem("daemon", found, "look who owns the socket, and run ksi doctor as that user"))
  if (found.at === "absent") return none(ok("daemon", `none runs at ${path}`))
  if (found.at === "stale") {
    const stat = yield* attempt(() => Fs.lstat(path))
    return none(stat?.isSocket() === false
      ? problem("daemon", `${path} is a file and no socket`, "move it away, or set KSI_SOCKET")
      : warning("daemon", `${path} is a socket of a daemon that is gone`, "ksi start; it replaces the socket"))
  }
  return yield* Effect.match(ask(path), {
    onFailure: (cause): Daemon => ({
      running: true,
      check: problem("daemon", `something listens at ${path} and does not say how it is: ${KsiError.sentenceOf(cause)}`,
        "look into the daemon's log; ksi stop, then ksi start")
    }),
    onSuccess: ({ pid, position, tcp, url, version }): Daemon => ({
      running: true,
      url: typeof url === "string" ? url : undefined,
      tcp: typeof tcp === "string" ? tcp : undefined,
      check: ok("daemon", `KSI ${String(version)} runs with process id ${String(pid)}, at position ${String(position)}`)
    })
  })
})

// --------------------------------------------------------------------------------------------------------------- http

/** Why nobody could listen there; `undefined` where one could. */
const refusalOf = (host: string, port: number): Effect.Effect<string | undefined> =>
  Effect.callback((resume) => {
    const server = Net.createServer()
    server.once("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code ?? error.message)))
    server.listen({ port, host, exclusive: true }, () => server.close(() => resume(Effect.succeed(undefined))))
  })

const refusals: { readonly [code: string]: readonly [problem: string, mend: string] } = {
  EADDRINUSE: ["is taken by another process", "stop that one, or choose another with --port; off is no HTTP"],
  EACCES: ["may not be listened on by this user", "choose one from 1024 on with --port"],
  EADDRNOTAVAIL: ["is on no address of this machine", "correct the setting host"],
  ENOTFOUND: ["names no host that is known here", "correct the setting host"]
}

/** Whether HTTP can be where it shall be, and who could reach it there. */
export const http = Effect.fnUntraced(function*(
  { host, hosts, port }: Pick<Config.Values, "host" | "hosts" | "port">,
  { running, url }: Daemon
): Effect.fn.Return<ReadonlyArray<Check>> {
  if (running) return [ok("http", url === undefined ? "the daemon that runs has none" : `the daemon that runs has it at ${url}`)]
  if (port === Setting.off) return [ok("http", "it is off")]
  const address = `port ${port} of ${host}`
  const code = port === 0 ? undefined : yield* refusalOf(host, port)
  const [why, mend] = refusals[code ?? ""] ?? [`cannot be listened on (${code})`, "choose another host or port"]
  const found = code === undefined ? ok("http", port === 0 ? `any free port of ${host}` : `${address} is free`) : problem("http", `${address} ${why}`, mend)
  if (HttpGuard.isLoopback(host)) return [found]
  const names = hosts.length === 0 ? ["no name in hosts: whoever asks must call it by its address", "set hosts to the names it is asked by"] as const
    : ["everybody who can reach it can knock, and needs a token", "let only those reach it who shall; put TLS in front of it"] as const
  return [found, warning("http", `${host} is no loopback address: ${names[0]}`, names[1])]
})

/** Whether TCP can be where it shall be, and who could reach it there. */
export const tcp = Effect.fnUntraced(function*(
  { host, port, tcp }: Pick<Config.Values, "host" | "port" | "tcp">,
  daemon: Daemon
): Effect.fn.Return<ReadonlyArray<Check>> {
  if (daemon.running) return [ok("tcp", daemon.tcp === undefined ? "the daemon that runs has none" : `the daemon that runs has it at ${daemon.tcp}`)]
  const place = Setting.tcpPlaceOf(tcp)
  if (place === undefined) return [ok("tcp", "it is off")]
  if (place.port !== 0 && place.port === port && place.host === host) {
    return [problem("tcp", `${tcp} shall be HTTP's as well`, "choose another address with --tcp, or another port with --port")]
  }
  const code = place.port === 0 ? undefined : yield* refusalOf(place.host.replace(/^\[|\]$/g, ""), place.port)
  const [why, mend] = refusals[code ?? ""] ?? [`cannot be listened on (${code})`, "choose another address with --tcp"]
  const found = code === undefined ? ok("tcp", place.port === 0 ? `any free port of ${place.host}` : `${tcp} is free`)
    : problem("tcp", `${tcp} ${why}`, mend.replaceAll("--port", "--tcp").replace("HTTP", "TCP").replace("the setting host", "the setting tcp"))
  if (HttpGuard.isLoopback(place.host)) return [found]
  return [found, warning("tcp", `${place.host} is no loopback address, and TCP is not encrypted: who can read the network reads the tokens`,
    "let a tunnel or a proxy with TLS carry it")]
})

// -------------------------------------------------------------------------------------------------------------- store

const restore = "put a backup in its place (ksi restore), or move it away and start with an empty one"

/** Whether the database file is one that this KSI can use. */
export const store = (file: string, { state }: StoreInspection.Inspection): Check => {
  switch (state._tag) {
    case "Absent":
      return ok("store", `${file} does not exist yet; ksi start makes it`)
    case "Empty":
      return ok("store", `${file} is empty; ksi start lays it out`)
    case "Unreadable":
      return problem("store", `${file} cannot be read: ${state.problem}`, restore)
    case "ReadOnly":
      return problem("store", `${state.file} cannot be written`, "give the user of the daemon the right to read and write it")
    case "Foreign":
      return problem("store", `${file} is a database of another program`, "set KSI_STORE_FILE to a file of its own")
    case "Newer":
      return problem("store", `${file} has format ${state.format}; this KSI knows formats up to ${state.known}`, "use the newer KSI that made it")
    case "Ready":
      if (state.altered.length === 0 && state.format < StoreInspection.newest) {
        return warning("store", `${file} has format ${state.format} and ${Output.counted(state.position, "fact")}; ksi start brings it to format ${StoreInspection.newest}, which an older KSI cannot read`,
          `nothing need be done: before that it is copied to ${file}.format-${state.format}.bak, for which there must be room`)
      }
      return state.altered.length === 0
        ? ok("store", `${file} has format ${state.format} and ${Output.counted(state.position, "fact")}`)
        : problem("store", `${file} has format ${state.format}, but ${state.altered.join(", ")} are missing or altered`, restore)
  }
}

/** Who writes the store. */
export const lock = (file: string, { lock }: StoreInspection.Inspection, running: boolean): Check => {
  if (lock === "free") {
    return running
      ? warning("lock", `a daemon runs, but nobody writes ${file}`, "ksi status; it may have another home or store than these settings")
      : ok("lock", "nobody writes the store")
  }
  return running
    ? ok("lock", "held by the daemon that runs")
    : problem("lock", `another process writes ${file}, and no daemon answers at the socket`,
      "wait where one starts or stops; else find the process (fuser, lsof) and stop it, or set KSI_SOCKET to its socket")
}

// Where the value comes from is where it must be changed: what is further away would have no effect.
const by = (origin: string, variable: string, value: string): string =>
  origin.startsWith("--") ? `give ${origin} ${value}` : origin.startsWith("ksi.toml") ? `change ${origin} to "${value}"` : `set ${variable} to ${value}`

/** What `sync` and `store` mean for what is acknowledged. */
export const durability = (
  { store, sync }: Pick<Config.Values, "store" | "sync">,
  originOf: (setting: "store" | "sync") => string = () => "default"
): Check => {
  if (store === "memory") {
    return warning("durability", "store = memory: every fact is gone when the daemon ends", `${by(originOf("store"), "KSI_STORE", "sqlite")} to keep them`)
  }
  return sync === "normal"
    ? warning("durability", "sync = normal: the last facts may be lost when the machine loses power, never when the process dies",
      `${by(originOf("sync"), "KSI_SYNC", "full")} to keep them`)
    : ok("durability", "sync = full: an acknowledged fact survives a power cut")
}

// ------------------------------------------------------------------------------------------------- machine and limits

const MiB = 1024 * 1024
const littleBytes = 1024 * MiB
const leastBytes = 64 * MiB

/** Whether so many free bytes are enough to go on with. */
export const space = (directory: string, free: number): Check => {
  const message = `${Output.grouped(Math.floor(free / MiB))} MiB are free at ${directory}`
  if (free >= littleBytes) return ok("disk", message)
  const mend = "free some space, or set KSI_HOME to a larger disk"
  return free < leastBytes ? problem("disk", message, mend) : warning("disk", message, mend)
}

/** How much room the store has to grow. */
export const disk = Effect.fnUntraced(function*(file: string) {
  const directory = yield* nearestDirectory(Path.dirname(file))
  const stat = yield* attempt(() => Fs.statfs(directory))
  return stat === undefined
    ? warning("disk", `how much is free at ${directory} cannot be told`, "look with df")
    : space(directory, stat.bavail * stat.bsize)
})

// Earlier than anything that this KSI can have stored.
const firstMillis = Date.UTC(2024, 0, 1)
const slackMillis = 60_000

/** Whether the clock may be right: not before what is stored. */
export const clock = (now: number, recordedAt: number | undefined): Check => {
  const text = (millis: number) => new Date(millis).toISOString()
  const mend = "set the clock (timedatectl); facts stored meanwhile get the time of the last one"
  if (now < firstMillis) return problem("clock", `it is ${text(now)}, long before this KSI was made`, mend)
  if (recordedAt === undefined || recordedAt <= now) return ok("clock", `it is ${text(now)}`)
  const message = `it is ${text(now)}, but the last fact was stored at ${text(recordedAt)}`
  return recordedAt - now > slackMillis ? problem("clock", message, mend) : warning("clock", message, mend)
}

type Size = { readonly [K in keyof LimitsShape]: K }[keyof LimitsShape]

// The first should not be more than the second: what it means if it is.
const atMost: ReadonlyArray<readonly [less: Size, more: Size, status: "warning" | "problem", why: string]> = [
  ["frameBytes", "incomingBytes", "problem", "the longest line allowed would be refused, even alone"],
  ["frameBytes", "outgoingBytes", "problem", "one long answer would close its connection"],
  ["connectionBufferBytes", "outgoingBytes", "problem", "one slow reader would be closed before its subscriptions pause"],
  ["pageBytes", "frameBytes", "warning", "a full page is longer than a line that may be sent back"],
  ["frameBytes", "activityBytes", "warning", "one long payload pushes everything else out of the activity journal"],
  ["activityBuffer", "activityRows", "warning", "more requests wait than are kept"],
  ["pageItems", "appendEvents", "warning", "a full page cannot be imported in one call"]
]

/** Limits that contradict one another. Each by itself is in its range, or a problem of the settings. */
export const limits = (values: LimitsShape): ReadonlyArray<Check> => {
  const found = atMost.filter(([less, more]) => values[less] > values[more]).map(([less, more, status, why]): Check => {
    const [a, b] = [Config.limits[less], Config.limits[more]]
    const text = (setting: Setting.Setting<number>, value: number) => `${setting.key} (${setting.kind.show(value)})`
    return {
      check: "limits", status, message: `${text(a, values[less])} is more than ${text(b, values[more])}: ${why}`,
      mend: `lower ${a.variable} or raise ${b.variable}`
    }
  })
  return found.length === 0 ? [ok("limits", "no limit contradicts another one")] : found
}

const leftBehind = /\.(part-[0-9a-f]{8}|before-restore-.*)$/

/** Files beside a store that a backup or a restore has left, or has kept. */
export const leftovers = (file: string): Effect.Effect<ReadonlyArray<Check>> =>
  Effect.promise(async () => {
    const names = await Fs.readdir(Path.dirname(file)).catch(() => [])
    return names.filter((name) => leftBehind.test(name) && !/-(wal|shm)$/.test(name)).toSorted().map((name) => {
      const path = Path.join(Path.dirname(file), name)
      return name.includes(".before-restore-")
        ? warning("leftovers", `${path} is the store that was there before a restore`, `rm ${path}* when the restored one is good`)
        : warning("leftovers", `${path} is of a backup or a restore that is under way, or was killed`, `rm ${path} where none is under way`)
    })
  })
