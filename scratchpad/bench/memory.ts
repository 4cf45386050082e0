/**
 * `memory/idle`: resident megabytes of a daemon with a new home that has answered one call, two seconds later, against a
 * process that only imports the same modules and waits.
 *
 * `memory/calls`: megabytes of living objects after 10 million calls behind three middlewares, one million with
 * `--quick`, in a process of its own; nothing is recorded. Against the same process after a tenth of them: what grows with
 * the calls would be ten times as much.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { setTimeout as wait } from "node:timers/promises"
import type { Bench } from "./Bench.ts"
import * as Daemon from "./Daemon.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"

const seen = { before: 0, after: 0 }
const Ask = Event.make("bench:ask", { payload: { n: Schema.Int }, success: Schema.Struct({ n: Schema.Int }) })
const First = Middleware.make("first", { before: () => void seen.before++ })
const Second = Middleware.make("second", { before: ({ metadata }) => metadata.principal === "nobody" ? Effect.die("who?") : undefined })
const Third = Middleware.make("third", { after: () => void seen.after++ })
const Group = EventGroup.make(Ask).middleware(First).middleware(Second).middleware(Third)
const Handlers = Group.toLayer({
  // One that is complete at once and one that is not, in turn.
  *"bench:ask"({ n }) {
    if (n % 2 === 1) yield* Effect.suspend(() => Effect.void)
    return { n }
  }
})

/** Calls so often, and prints the megabytes of living objects after a tenth and at the end. */
const callOften = async (calls: number): Promise<void> => {
  const main: Layer.Layer<Runtime, unknown> = Ksi.serve(Group).pipe(
    Layer.provide([Handlers, First.layer, Second.layer, Third.layer]), Layer.provideMerge(Ksi.layerMemoryWith({ audit: "off" }))
  )
  const context = await Effect.runPromise(Layer.buildWithScope(main, Scope.makeUnsafe()))
  const ksi = Context.get(context, Ksi)
  const some = Effect.fnUntraced(function*(count: number) {
    for (let n = 0; n < count; n++) yield* ksi.call(Group.events["bench:ask"], { n })
  })
  const figures: Array<number> = []
  for (let done = 0; done < calls; done += calls / 10) {
    await Effect.runPromise(some(calls / 10))
    globalThis.gc?.()
    figures.push(process.memoryUsage().heapUsed / 2 ** 20)
  }
  if (seen.before !== calls || seen.after !== calls) throw new Error("not all of them were called")
  process.stdout.write(JSON.stringify([figures.at(-1), figures[0]]))
}

// This file is also the program that calls.
const [, program, calls] = process.argv
if (program === import.meta.filename) await callOften(Number(calls))

const livingMegabytes = (calls: number): readonly [all: number, tenth: number] => {
  const args = ["--disable-warning=ExperimentalWarning", "--expose-gc", import.meta.filename, String(calls)]
  return JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" }))
}

const settled = 2000

const residentMegabytes = (pid: number | undefined): number => {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(Fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
  return Number(kilobytes) / 1024
}

export const run = async (bench: Bench): Promise<void> => {
  let turn = 0
  await bench.measure({
    case: "idle",
    metric: "resident memory",
    unit: "MB",
    subjects: [
      {
        name: "ksi",
        run: async () => {
          const home = Path.join(bench.folder, `home-${turn++}`)
          const daemon = await Daemon.start(home)
          await Daemon.ksi(home, "health", "--json")
          await wait(settled)
          const megabytes = residentMegabytes(daemon.process.pid)
          await daemon.stop()
          return megabytes
        }
      },
      {
        name: "imports",
        run: async () => {
          const child = spawn(process.execPath, [...Daemon.imports, "60000"], { stdio: "ignore" })
          await wait(settled)
          const megabytes = residentMegabytes(child.pid)
          child.kill("SIGKILL")
          return megabytes
        }
      }
    ]
  })
  let tenth = 0
  await bench.measure({
    case: "calls",
    metric: "living objects",
    unit: "MB",
    subjects: [
      {
        name: "ksi",
        run: () => {
          const figures = livingMegabytes(bench.quick ? 1_000_000 : 10_000_000)
          tenth = figures[1]
          return figures[0]
        }
      },
      { name: "a-tenth", run: () => tenth }
    ]
  })
}
