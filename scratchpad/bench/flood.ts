/**
 * `flood/<attack>-<http|unix>`: the 99th percentile of one client's calls while another process floods the daemon, over the same kind
 * of listener, against the same client without it (`alone`), and while the same flood goes to another daemon (`elsewhere`): that takes
 * as much of the machine and nothing of the daemon. In turns. `token` shows tokens that are none, `long` sends five
 * mebibytes where four are allowed, `connect` connects and leaves, `slow` keeps a thousand connections that each say a
 * byte a second and never finish.
 *
 * The floods are paced, so that it is seen what they cost the daemon and not what a busy machine costs everybody; beside each
 * figure stands the processor time that the daemon spends on one. `-full` is the same as fast as it is answered, with sixteen
 * under way, against a process that only computes as much (`burn`): two processors then have three processes that want one.
 */
import * as Path from "node:path"
import { setTimeout as wait } from "node:timers/promises"
import { Asker, quantile } from "./Asker.ts"
import type { Bench } from "./Bench.ts"
import * as Daemon from "./Daemon.ts"
import * as Flooder from "./Flooder.ts"
import { cpuSeconds } from "./Process.ts"

const rates: { readonly [attack: string]: number } = { token: 2000, long: 10, connect: 500, slow: 1000 }
const every = 2

interface Cost {
  count: number
  daemon: number
  flooder: number
  seconds: number
}

const none = (): Cost => ({ count: 0, daemon: 0, flooder: 0, seconds: 0 })

interface Times {
  readonly begun: number
  readonly millis: number
}

/** The percentile while something else goes on, and what that costs a daemon. */
const during = async ({ pid }: Daemon.Daemon["process"], caller: Asker, flood: Flooder.Flood, { begun, millis }: Times, cost = none()): Promise<number> => {
  await wait(begun)
  const before = { count: await flood.count(), daemon: cpuSeconds(pid), flooder: cpuSeconds(flood.pid), at: performance.now() }
  const figures = await caller.latencies(millis, every)
  cost.count += await flood.count() - before.count
  cost.daemon += cpuSeconds(pid) - before.daemon
  cost.flooder += cpuSeconds(flood.pid) - before.flooder
  cost.seconds += (performance.now() - before.at) / 1000
  await flood.stop()
  return quantile(figures, 0.99)
}

const shown = ({ count, daemon, flooder, seconds }: Cost, idle: number): string =>
  `${(count / seconds).toFixed(0)} a second, each ${((daemon - idle * seconds) * 1e6 / count).toFixed(0)} us of the daemon; busy: daemon ${
    (daemon / seconds * 100).toFixed(0)} %, flooder ${(flooder / seconds * 100).toFixed(0)} % of a processor`

/** Where one attacks a daemon. */
const placeOf = ({ socket, url }: Daemon.Daemon, attack: Flooder.Attack): string => attack.endsWith("unix") ? socket : new URL(url).port

export const run = async (bench: Bench): Promise<void> => {
  const start = (home: string) => Daemon.start(Path.join(bench.folder, home), Path.join(import.meta.dirname, "Hold.ts"))
  const daemons = await Promise.all([start("home"), start("elsewhere")])
  const [daemon, other] = daemons
  const times = bench.quick ? { begun: 300, millis: 400 } : { begun: 700, millis: 2000 }
  const { millis } = times
  try {
    for (const attack of Flooder.all) {
      const place = placeOf(daemon, attack)
      const caller = attack.endsWith("unix") ? await Asker.unix(place) : await Asker.http(Number(place))
      await caller.drive(millis)
      // What the daemon spends on the caller and on itself, a second.
      const since = { daemon: cpuSeconds(daemon.process.pid), at: performance.now() }
      await caller.latencies(millis, every)
      const idle = (cpuSeconds(daemon.process.pid) - since.daemon) / (performance.now() - since.at) * 1000
      const rate = rates[attack.replace(/-.*/, "")] ?? 0
      const compare = async (id: string, a: number, peer: string, calm: () => Promise<number>) => {
        const cost = none()
        await bench.measure({
          case: id, metric: "p99 of a call", unit: "us",
          subjects: [
            { name: "ksi", run: () => during(daemon.process, caller, Flooder.start(attack, place, a), times, cost) },
            { name: peer, run: calm },
            { name: "elsewhere", run: () => during(other.process, caller, Flooder.start(attack, placeOf(other, attack), a), times) }
          ]
        })
        bench.say(`${"".padEnd(32)}${shown(cost, idle)}`)
      }
      await compare(attack, rate, "alone", async () => quantile(await caller.latencies(millis, every), 0.99))
      if (!bench.quick && !attack.startsWith("slow")) {
        await compare(`${attack}-full`, Infinity, "burn", () => during(daemon.process, caller, Flooder.start("burn", place, 0), times))
      }
      caller.close()
    }
  } finally {
    await Promise.all(daemons.map(({ stop }) => stop()))
  }
}
