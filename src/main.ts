#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
/** The entry point: the only place that speaks to the process. Everything else is handed what it needs. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import { readFileSync } from "node:fs"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Cli from "./cli/Cli.ts"
import { Io } from "./cli/Io.ts"
import * as Start from "./cli/Start.ts"

// The package's own file, whose version is a text.
const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string }
const argv = process.argv.slice(2)

const world = Layer.mergeAll(
  NodeServices.layer,
  Io.layer({ env: process.env, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr }),
  Layer.succeed(Start.Host, {
    load: (path) => import(pathToFileURL(resolve(path)).href),
    command: process.env["npm_lifecycle_event"] === undefined ? "ksi" : "npm run -s ksi --",
    info: { version, pid: process.pid, memoryBytes: () => process.memoryUsage.rss() }
  })
)

NodeRuntime.runMain(Cli.run(argv, { version, start: Start.start }).pipe(Effect.provide(world)), {
  disableErrorReporting: true,
  // A daemon that was told to stop has done what it should; an interrupted client has not.
  teardown: (exit, onExit) => {
    const daemon = argv[0] === "start" && Exit.isFailure(exit) && Exit.hasInterrupts(exit)
    return daemon ? onExit(0) : Cli.teardown(exit, onExit)
  }
})
