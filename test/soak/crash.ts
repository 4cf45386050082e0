// Kills processes that use a store, so many times: `crash.ts <times> [first seed]`. Two at once, for a process that is killed waits for the disk.
import { crash, livesPerSeed } from "../store/crash/Crash.ts"

const [, , times = "0", first = "1000"] = process.argv
const end = Number(first) + Math.ceil(Number(times) / livesPerSeed)
const tellEvery = 50
let next = Number(first)
let kills = 0
let acknowledged = 0
let isBroken = false

const lane = async () => {
  while (next < end && !isBroken) {
    const seed = next++
    try {
      acknowledged += await crash(seed)
      kills += livesPerSeed
      if ((kills / livesPerSeed) % tellEvery === 0) process.stdout.write(`${kills} kills, ${acknowledged} acknowledged facts: all there\n`)
    } catch (cause) {
      isBroken = true
      process.stdout.write(`${cause instanceof Error ? cause.message : String(cause)}\n`)
    }
  }
}
await Promise.all([lane(), lane()])
process.stdout.write(`${kills} processes killed, ${acknowledged} facts acknowledged: ${isBroken ? "a promise was broken" : "none lost, no gap, none twice, all in their order"}\n`)
if (isBroken) process.exitCode = 1
