/**
 * Streams, subscriptions and calls of a program with its daemon elsewhere (`Ksi.layerRemote`), each end in a process of its own.
 *
 * `stream/batched`, `stream/batched-16`: items of one stream on one connection over a Unix socket, made 1,000 and 16 at a time.
 * Bars: 400 k items/s, and twice `effect-rpc`. `effect-rpc-1`, `effect-rpc` and `effect-rpc-64` are streams of Effect's RPC
 * (EffectRpc.ts) made 1, 16 and 64 at a time; `moleculer-tcp` streams of objects of Moleculer (MoleculerTcp.ts), which sends each on its
 * own; `raw-coalesced` (RawItems.ts) lines of JSON, so many in a write, parsed and not looked at. `stream/single`: made one at a
 * time, each when it is asked for; bar: 100 k items/s.
 *
 * `stream/stalled`: a stream beside one that nobody reads, on its connection, against the same `alone`; bar: 0.95.
 * `stream/stalled-items`: what was made and not taken of a stream that comes a long way (as in `stream/100ms`, so that its window is large), read at
 * full rate for 4 s and then not any more; bar: no more than its `buffer`. `stream/stalled-memory`: living objects that it holds in
 * both processes, in the client (`client`), and in the daemon (`daemon`).
 *
 * `stream/100ms`: a stream that may hold 262,144 items and 64 MB of frames, through a process that delays every byte by 50 ms each way,
 * measured over 1 s (0.3 s with `--quick`) of each turn once its window has grown for 4 s, against the same process without a delay (`undelayed`); bar: 0.9.
 * `stream/100ms-default` is one with the limits as they come: of 16,384 items no more than 160 k a second can come such a way.
 *
 * `stream/remote-call`: 64 calls in flight over TCP; bar: twice `moleculer-tcp`.
 *
 * `stream/live`, `stream/live-p99`: from when the daemon knows that a fact is durable until a subscriber elsewhere has it, 5 ms apart;
 * bar: p99 of 2 ms. `bare` is a line that the same process writes to the same program past KSI, half-way between two facts: what the machine
 * takes by itself; `from-emit` is counted from before the fact was said. `stream/idle-subscriptions`: kilobytes of living objects that each of
 * 10,000 subscriptions of one program (1,000 with `--quick`) holds in the daemon, and in the program (`client`), `resident` all that the daemon
 * has taken for them; bar: 4 KB.
 */
import * as Path from "node:path"
import { setTimeout as wait } from "node:timers/promises"
import { defaults } from "../../src/event/Limits.ts"
import { quantile } from "./Asker.ts"
import type { Amount, Bench, Subject } from "./Bench.ts"
import type { Memory } from "./Child.ts"
import * as DelayLine from "./DelayLine.ts"
import * as EffectRpc from "./EffectRpc.ts"
import type { Reader } from "./Items.ts"
import * as MoleculerTcp from "./MoleculerTcp.ts"
import * as RawItems from "./RawItems.ts"
import * as StreamDaemon from "./StreamDaemon.ts"
import * as StreamReader from "./StreamReader.ts"

// -------------------------------------------------------------------------------------------------------------- turns

interface Stopped {
  readonly stop: () => Promise<void> | void
}

/** Runs with processes that are stopped at the end, the last one first. */
const withProcesses = async (run: (own: <A extends Stopped>(started: Promise<A>) => Promise<A>) => Promise<void>): Promise<void> => {
  const all: Array<Stopped> = []
  try {
    await run(async (started) => {
      const one = await started
      all.push(one)
      return one
    })
  } finally {
    for (const one of all.toReversed()) await one.stop()
  }
}

let folders = 0
const fresh = (bench: Bench): string => Path.join(bench.folder, `d${folders++}`)

/** Before the first turn: what is compared are compiled programs. */
const warmed = async (...subjects: readonly [Subject, ...Array<Subject>]): Promise<readonly [Subject, ...Array<Subject>]> => {
  for (const { run } of subjects) await run(500)
  return subjects
}

/** A quick run. */
const few = ({ quick }: Bench) => quick ? { rounds: 5, millis: 120 } : {}

const reading = (name: string, { read }: Reader, chunk: number): Subject => ({ name, run: (millis) => read(chunk, millis) })

// -------------------------------------------------------------------------------------------------------------- rates

/** `stream/batched`, `stream/batched-16`, `stream/single`. */
export const rates = (bench: Bench): Promise<void> => withProcesses(async (own) => {
  const daemon = await own(StreamDaemon.start(fresh(bench)))
  const ksi = await own(StreamReader.start({ url: `unix:${daemon.socket}` }))
  const rpc = await own(EffectRpc.start(bench.folder))
  const raw = await own(RawItems.start(bench.folder))
  const moleculer = await own(MoleculerTcp.start())
  const sending = { name: "moleculer-tcp", run: moleculer.read }
  const items = { metric: "throughput", unit: "items/s", ...few(bench) }
  await bench.compare({
    ...items, case: "batched",
    subjects: await warmed(
      reading("ksi", ksi, 1000), reading("effect-rpc", rpc, 16), reading("effect-rpc-1", rpc, 1), reading("effect-rpc-64", rpc, 64), sending,
      reading("raw-coalesced", raw, 1000)
    )
  })
  await bench.compare({ ...items, case: "batched-16", subjects: await warmed(reading("ksi", ksi, 16), reading("effect-rpc", rpc, 16), reading("raw-coalesced", raw, 16)) })
  await bench.compare({ ...items, case: "single", subjects: await warmed(reading("ksi", ksi, 1), reading("effect-rpc-1", rpc, 1), sending, reading("raw", raw, 1)) })
})

// -------------------------------------------------------------------------------------------------------- a slow reader

type Taken = Amount & { readonly taken: number }

const settle = 500
// Each way, in milliseconds; and how long a window has to grow over such a way.
const delay = 50
const growing = 4000

/** Throws where a stream that was never read on is not made up to its buffer and no further. */
const checkSmall = async (daemon: StreamDaemon.Daemon, program: StreamReader.Connected): Promise<void> => {
  const before = await daemon.made()
  await program.ask({ do: "open", chunk: 1, buffer: 10 })
  await program.ask({ do: "go on", skip: 0, millis: 0 })
  await wait(settle)
  const made = await daemon.made() - before
  await program.ask({ do: "leave" })
  if (made > 10 + 1) throw new Error(`of a stream with a buffer of 10, ${made} items were made`)
}

/** One stream, read for some time and then not any more. */
const stall = async (daemon: StreamDaemon.Daemon, program: StreamReader.Connected) => {
  const before = { made: await daemon.made(), client: await program.ask<Memory>({ do: "memory" }), daemon: await daemon.memory() }
  await program.ask({ do: "open", chunk: 1, buffer: defaults.streamItems })
  const { taken } = await program.ask<Taken>({ do: "go on", skip: 0, millis: growing })
  await wait(settle)
  const made = await daemon.made()
  const after = { client: await program.ask<Memory>({ do: "memory" }), daemon: await daemon.memory() }
  if (await daemon.made() !== made) throw new Error("of a stream that nobody reads, items are made")
  await program.ask({ do: "leave" })
  return {
    items: made - before.made - taken,
    client: (after.client.living - before.client.living) / 1024,
    daemon: (after.daemon.living - before.daemon.living) / 1024
  }
}

/** `stream/stalled`, `stream/stalled-items`, `stream/stalled-memory`. */
export const stalled = (bench: Bench): Promise<void> => withProcesses(async (own) => {
  const daemon = await own(StreamDaemon.start(fresh(bench)))
  const ksi = await own(StreamReader.start({ url: `unix:${daemon.socket}` }))
  await checkSmall(daemon, ksi)
  const besides = (name: string, besides: boolean): Subject => ({ name, run: (millis) => ksi.ask({ do: "read", chunk: 16, millis, besides }) })
  await bench.compare({
    ...few(bench), case: "stalled", metric: "throughput", unit: "items/s", subjects: await warmed(besides("ksi", true), besides("alone", false))
  })
  const path = Path.join(bench.folder, "stalling")
  await own(DelayLine.start(path, daemon.socket, delay))
  const away = await own(StreamReader.start({ url: `unix:${path}` }))
  const turns = bench.quick ? 1 : 3
  if (!bench.quick) await stall(daemon, away)
  const turn = rounds(() => stall(daemon, away))
  await bench.measure({
    case: "stalled-items", metric: "items held", unit: "items", rounds: turns,
    subjects: [{ name: "ksi", run: turn(({ items }) => items) }, { name: "buffer", run: () => defaults.streamItems }]
  })
  await bench.measure({
    case: "stalled-memory", metric: "living objects", unit: "KB", rounds: turns,
    subjects: [
      { name: "ksi", run: turn(({ client, daemon }) => client + daemon) }, { name: "client", run: turn(({ client }) => client) },
      { name: "daemon", run: turn(({ daemon }) => daemon) }
    ]
  })
})

/** Figures of turns: each round is one turn, whichever figure of it is asked for first. */
const rounds = <A>(turn: (n: number) => Promise<A>) => {
  const turns: Array<Promise<A>> = []
  return (of: (figures: A) => number) => {
    let round = 0
    return async () => {
      const n = round++
      return of(await (turns[n] ??= turn(n)))
    }
  }
}

// ----------------------------------------------------------------------------------------------------------- a long way

const wide = { items: 262_144, characters: 64 * 1024 * 1024 }

/** `stream/100ms`, `stream/100ms-default`. */
export const far = (bench: Bench): Promise<void> => withProcesses(async (own) => {
  const daemon = await own(StreamDaemon.start(fresh(bench)))
  const line = async (name: string, millis: number) => {
    const path = Path.join(bench.folder, name)
    await own(DelayLine.start(path, daemon.socket, millis))
    return `unix:${path}`
  }
  const slow = await line("slow", delay)
  const quick = await line("quick", 0)
  /** Its stream stays, and is read in turns: the window has grown before the first one. */
  const staying = async (name: string, url: string, buffer: number, streamBytes: number): Promise<Subject> => {
    const program = await own(StreamReader.start({ url, streamBytes }))
    await program.ask({ do: "open", chunk: 1000, buffer })
    await program.ask({ do: "go on", skip: 0, millis: growing })
    // What had come before the turn is read first, and then what was on its way.
    return { name, run: (millis) => program.ask({ do: "go on", skip: bench.quick ? 400 : 800, millis }) }
  }
  const [most, usual, undelayed] = await Promise.all([
    staying("ksi", slow, wide.items, wide.characters), staying("ksi", slow, defaults.streamItems, defaults.streamBytes),
    staying("undelayed", quick, wide.items, wide.characters)
  ])
  const rate = { metric: "throughput", unit: "items/s", millis: bench.quick ? 300 : 1000, rounds: bench.quick ? 2 : 7 }
  await bench.compare({ ...rate, case: "100ms", subjects: [most, undelayed] })
  await bench.compare({ ...rate, case: "100ms-default", subjects: [usual, undelayed] })
})

// --------------------------------------------------------------------------------------------------------------- calls

/** `stream/remote-call`. */
export const calls = (bench: Bench): Promise<void> => withProcesses(async (own) => {
  const { tcp } = await own(StreamDaemon.start(fresh(bench)))
  const ksi = await own(StreamReader.start(tcp))
  const moleculer = await own(MoleculerTcp.start())
  await bench.compare({
    case: "remote-call", metric: "throughput", unit: "calls/s", ...few(bench),
    subjects: await warmed(
      { name: "ksi", run: (millis) => ksi.ask({ do: "call", inFlight: 64, millis }) },
      { name: "moleculer-tcp", run: (millis) => moleculer.run(64, millis) }
    )
  })
})

// ------------------------------------------------------------------------------------------------------- subscriptions

const every = 5

/** `stream/live`, `stream/live-p99`. */
export const live = (bench: Bench): Promise<void> => withProcesses(async (own) => {
  const daemon = await own(StreamDaemon.start(fresh(bench), true))
  const ksi = await own(StreamReader.start({ url: `unix:${daemon.socket}` }))
  let said = 0
  const emit = (count: number) => {
    said += count
    return daemon.emit(count, every)
  }
  const following = ksi.ask({ do: "follow", bare: StreamDaemon.bareOf(daemon.socket) })
  await emit(1)
  await following
  await emit(200)
  let bareBefore = (await ksi.ask<StreamReader.Heard>({ do: "heard", count: said })).bare.length
  /** Milliseconds, sorted. */
  const turn = rounds(async () => {
    const emitted = await emit(bench.quick ? 300 : 600)
    const { bare, facts } = await ksi.ask<StreamReader.Heard>({ do: "heard", count: said })
    const heard = new Map(facts)
    const since = (from: (fact: StreamDaemon.Said) => number) =>
      emitted.map((fact) => (heard.get(fact[0]) ?? Number.NaN) - from(fact)).toSorted((a, b) => a - b)
    const own = bare.slice(bareBefore).toSorted((a, b) => a - b)
    bareBefore = bare.length
    return { after: since(([, , after]) => after), before: since(([, before]) => before), bare: own }
  })
  for (const [id, q] of [["live", 0.5], ["live-p99", 0.99]] as const) {
    await bench.measure({
      case: id, metric: "latency of a fact", unit: "ms",
      subjects: [
        { name: "ksi", run: turn(({ after }) => quantile(after, q)) }, { name: "bare", run: turn(({ bare }) => quantile(bare, q)) },
        { name: "from-emit", run: turn(({ before }) => quantile(before, q)) }
      ]
    })
  }
})

const idleTurn = async (bench: Bench, count: number) => {
  let figures = { daemon: 0, client: 0, resident: 0 }
  await withProcesses(async (own) => {
    const daemon = await own(StreamDaemon.start(fresh(bench)))
    const program = await own(StreamReader.start({ url: `unix:${daemon.socket}` }))
    const before = { daemon: await daemon.memory(), client: await program.ask<Memory>({ do: "memory" }) }
    const { live, problem } = await program.ask<StreamReader.Opened>({ do: "subscribe", count })
    if (problem !== undefined) bench.say(`subscriptions after ${live} of ${count}: ${problem}`)
    await wait(settle)
    const after = { daemon: await daemon.memory(), client: await program.ask<Memory>({ do: "memory" }) }
    await daemon.emit(1, 0)
    await wait(2 * settle)
    const told = await program.ask<number>({ do: "told" })
    if (told !== live) throw new Error(`of ${live} subscriptions ${told} were told of a fact`)
    const kilobytes = (bytes: number) => bytes / 1024 / live
    figures = {
      daemon: kilobytes(after.daemon.living - before.daemon.living),
      client: kilobytes(after.client.living - before.client.living),
      resident: kilobytes(after.daemon.resident - before.daemon.resident)
    }
  })
  return figures
}

/** `stream/idle-subscriptions`. */
export const idle = async (bench: Bench): Promise<void> => {
  const count = bench.quick ? 1000 : 10_000
  const turn = rounds(() => idleTurn(bench, count))
  await bench.measure({
    case: "idle-subscriptions", metric: "memory of a subscription", unit: "KB", rounds: bench.quick ? 1 : 3,
    subjects: [
      { name: "ksi", run: turn(({ daemon }) => daemon) }, { name: "resident", run: turn(({ resident }) => resident) },
      { name: "client", run: turn(({ client }) => client) }
    ]
  })
}

export const run = async (bench: Bench): Promise<void> => {
  for (const each of [rates, stalled, far, calls, live, idle]) await each(bench)
}
