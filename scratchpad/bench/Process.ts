/** What the system tells of a process (Linux): its processor time and its memory. */
import * as Fs from "node:fs"

// Clock ticks of /proc, a constant of the system's interface.
const ticksPerSecond = 100

/** Seconds of processor time that a process has spent so far, in itself and in the system. */
export const cpuSeconds = (pid: number | undefined): number => {
  const stat = Fs.readFileSync(`/proc/${pid}/stat`, "utf8")
  // The name, in parentheses, may have spaces.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Megabytes that a process holds in memory. */
export const residentMegabytes = (pid: number | undefined): number => {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(Fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
  return Number(kilobytes) / 1024
}
