/**
 * A long way between two Unix sockets, in a process of its own: every byte leaves it so many milliseconds after it has come, in
 * both directions, however many there are. `DelayLine.ts <path> <path of the daemon> <milliseconds>`.
 */
import { once } from "node:events"
import * as Net from "node:net"
import * as Child from "./Child.ts"

const later = (from: Net.Socket, to: Net.Socket, millis: number): void => {
  // Timers of one length ring in the order in which they were set.
  const after = (run: () => void) => millis === 0 ? run() : void setTimeout(run, millis)
  from.on("data", (chunk) => after(() => {
    if (!to.destroyed) to.write(chunk)
  }))
  from.on("error", () => from.destroy())
  from.on("close", () => after(() => to.destroy()))
}

const serve = async (path: string, target: string, millis: number): Promise<void> => {
  const server = Net.createServer((near) => {
    const far = Net.connect(target)
    later(near, far, millis)
    later(far, near, millis)
  }).listen(path)
  await once(server, "listening")
  Child.obey("ready", async () => undefined)
}

// This file is also the program.
const [, program, place = "", target = "", delay] = process.argv
if (program === import.meta.filename) await serve(place, target, Number(delay))

/** Starts one before a daemon. */
export const start = (path: string, daemon: string, millis: number): Promise<Child.Child> =>
  Child.start(import.meta.filename, path, daemon, String(millis))
