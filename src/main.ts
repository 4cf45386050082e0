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
import { Host } from "./cli/Start.ts"

const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string }
const argv = process.argv.slice(2)

const host = Layer.succeed(Host, {
  load: (path) => import(pathToFileURL(resolve(path)).href),
  command: process.env["npm_lifecycle_event"] === undefined ? "ksi" : "npm run -s ksi --",
  info: { version, pid: process.pid, memoryBytes: () => process.memoryUsage.rss() }
})
const io = Io.layer({ env: process.env, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr })
