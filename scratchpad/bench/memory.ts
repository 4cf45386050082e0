/**
 * `memory/idle`: resident megabytes of a daemon with a new home that has answered one call, two seconds later, against a
 * process that only imports the same modules and waits.
 */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { setTimeout as wait } from "node:timers/promises"
import type { Bench } from "./Bench.ts"
import * as Daemon from "./Daemon.ts"

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
}
