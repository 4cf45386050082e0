#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
/** The entry point: the only place that speaks to the process. Everything else is handed what it needs. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { readFileSync } from "node:fs"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Cli from "./cli/Cli.ts"
import { Io } from "./cli/Io.ts"
import * as Output from "./cli/Output.ts"
import * as Start from "./cli/Start.ts"

// The package's own file, whose version is a text.
const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string }
const argv = process.argv.slice(2)

// Whether this command line was `start`, wherever its flags stood.
let serves = false

/** How people call it here: as it is on their path, by npm in the checkout, or as a package of another project. */
const calledAs = (): string => {
  const { npm_lifecycle_event: script, npm_package_name: project } = process.env
  if (script === undefined) return "ksi"
  return project === "ksi" && script !== "npx" ? "npm run -s ksi --" : "npx ksi"
}

const world = Layer.mergeAll(
  NodeServices.layer,
  Io.layer({ env: process.env, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr }),
  Layer.succeed(Start.Host, {
    load: (path) => import(pathToFileURL(resolve(path)).href),
    command: calledAs(),
    serves: () => {
      serves = true
    },
    info: { version, pid: process.pid, memoryBytes: () => process.memoryUsage.rss() }
  })
)

// The first signal asks to end what was begun; another one does not wait for it. Not one that comes with the first:
// npm passes on what the terminal has sent to this process already.
const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const
const togetherSeconds = 0.25
let askedAt: number | undefined
const onSignal = (signal: keyof typeof exitCodes) => (): void => {
  askedAt ??= process.uptime()
  if (process.uptime() - askedAt > togetherSeconds) process.exit(exitCodes[signal])
}
process.on("SIGINT", onSignal("SIGINT"))
process.on("SIGTERM", onSignal("SIGTERM"))

NodeRuntime.runMain(Cli.run(argv, { version, node: process.versions.node, start: Start.start }).pipe(Effect.provide(world)), {
  disableErrorReporting: true,
  // A daemon that was told to stop has done what it should; an interrupted client has not.
  teardown: (exit, onExit) => Cli.teardown(exit, (code) => onExit(serves && code === Output.exitCodes.Interrupted ? 0 : code))
})
