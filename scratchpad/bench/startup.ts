/**
 * `startup/ready`: milliseconds from the start of node to "ksi is ready" with a new home, against a process that imports
 * the same modules and ends.
 */
import { spawnSync } from "node:child_process"
import * as Path from "node:path"
import type { Bench } from "./Bench.ts"
import * as Daemon from "./Daemon.ts"

export const run = async (bench: Bench): Promise<void> => {
  let turn = 0
  await bench.measure({
    case: "ready",
    metric: "time to ready",
    unit: "ms",
    subjects: [
      {
        name: "ksi",
        run: async () => {
          const daemon = await Daemon.start(Path.join(bench.folder, `home-${turn++}`))
          await daemon.stop()
          return daemon.readyAfter
        }
      },
      {
        name: "imports",
        run: () => {
          const began = performance.now()
          spawnSync(process.execPath, [...Daemon.imports, "0"], { stdio: "ignore" })
          return performance.now() - began
        }
      }
    ]
  })
}
