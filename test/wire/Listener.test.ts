import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Logger, Scope } from "effect"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Limits from "../../src/event/Limits.ts"
import type { KsiError } from "../../src/event/KsiError.ts"
import * as Listener from "../../src/wire/Listener.ts"
import { eventually, folder, makeCounts, Plain, start } from "./Daemon.ts"

const modeOf = (path: string) => (Fs.statSync(path).mode & 0o777).toString(8)
const refusal = <A, R>(effect: Effect.Effect<A, KsiError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason._tag === "ListenFailed" ? reason : expect.fail(reason.message))
const pathIn = Effect.map(folder, (place) => Path.join(place, "run", "daemon.sock"))
const echo = (value: unknown) => ({ event: "t:echo", data: { value }, correlation_id: value })

describe("the place", () => {
  it.live("only its owner can enter", () =>
    Effect.gen(function*() {
      const { context, path } = yield* start()
      expect([modeOf(Path.dirname(path)), modeOf(path)]).toEqual(["700", "600"])
      expect(Context.get(context, Listener.Listener).address).toBe(path)
    }))

  it.live("a directory that others can enter is closed to them", () =>
    Effect.gen(function*() {
      const path = yield* pathIn
      Fs.mkdirSync(Path.dirname(path), { mode: 0o755 })
      yield* start({ path })
      expect(modeOf(Path.dirname(path))).toBe("700")
    }))

  it.live("a directory that everybody shares is left alone", () =>
    Effect.gen(function*() {
      const path = yield* pathIn
      Fs.mkdirSync(Path.dirname(path))
      Fs.chmodSync(Path.dirname(path), 0o1777)
      expect((yield* refusal(start({ path }))).problem).toContain("shared by everybody")
      expect(modeOf(Path.dirname(path))).toBe("777")
    }))

  it.live("a path that is too long is named", () =>
    Effect.gen(function*() {
      const path = Path.join(yield* folder, "ü".repeat(50), "s")
      const { address, problem } = yield* refusal(start({ path }))
      expect(address).toBe(path)
      expect(problem).toContain(`${Buffer.byteLength(path)} bytes`)
      expect(problem).toContain("107")
    }))

  it.live("what a dead daemon left behind is removed, a file that is no socket is not", () =>
    Effect.gen(function*() {
      const path = yield* pathIn
      Fs.mkdirSync(Path.dirname(path))
      // A server that hands its socket's file to another name leaves the first one behind, as a killed process does.
      const server = Net.createServer()
      yield* Effect.promise(() => new Promise<void>((resolve) => server.listen(`${path}.old`, () => resolve())))
      Fs.renameSync(`${path}.old`, path)
      yield* Effect.promise(() => new Promise((resolve) => server.close(resolve)))
      expect(Fs.existsSync(path)).toBe(true)
      const plain = yield* Effect.scoped(Effect.gen(function*() {
        yield* start({ path })
        return yield* Effect.flatMap(Plain.connect(path), (client) => client.ask(echo(1)))
      }))
      expect(plain.data.result).toBe(1)
      expect(Fs.existsSync(path)).toBe(false)
      Fs.writeFileSync(path, "mine")
      expect((yield* refusal(start({ path }))).problem).toContain("not a socket")
      expect(Fs.readFileSync(path, "utf8")).toBe("mine")
    }))

  it.live("a second daemon is told so, and the first goes on", () =>
    Effect.gen(function*() {
      const { path } = yield* start()
      expect(yield* refusal(start({ path }))).toMatchObject({ taken: true, problem: "a daemon listens there already" })
      const plain = yield* Plain.connect(path)
      expect((yield* plain.ask(echo(2))).data.result).toBe(2)
    }))

  it.live("no more than `connections`; one too many hears why", () =>
    Effect.gen(function*() {
      const { context, path } = yield* start()
      const listener = Context.get(context, Listener.Listener)
      const first = yield* Plain.connect(path)
      const second = yield* Plain.connect(path)
      const third = yield* Plain.connect(path)
      const [line] = yield* third.received(1)
      expect(line?.data).toMatchObject({ reason: "LimitExceeded", details: { limit: "connections", max: 2 }, retryable: true })
      yield* third.ended
      expect(listener.connections()).toBe(2)
      first.socket.destroy()
      yield* eventually(() => listener.connections() === 1)
      const fourth = yield* Plain.connect(path)
      expect((yield* fourth.ask(echo(4))).data.result).toBe(4)
      expect((yield* second.ask(echo(2))).data.result).toBe(2)
    }).pipe(Effect.provideService(Limits.Limits, { ...Limits.defaults, connections: 2 })))
})

describe("clients", () => {
  it.live("a thousand requests at once on one connection: each gets its own answer", () =>
    Effect.gen(function*() {
      const { path } = yield* start()
      const plain = yield* Plain.connect(path)
      const ids = Array.from({ length: 1000 }, (_, i) => i)
      plain.send(...ids.map((i) => ({ event: i % 3 === 0 ? "t:later" : "t:echo", data: { value: `v${i}` }, correlation_id: i })))
      const replies = yield* plain.received(1000)
      expect(replies.map(({ correlation_id }) => Number(correlation_id)).toSorted((a, b) => a - b)).toEqual(ids)
      for (const { correlation_id, data } of replies) expect(data.result).toBe(`v${correlation_id}`)
      expect(new Set(replies.map(({ data }) => data._ksi_context._event_id)).size).toBe(1000)
      // Answers leave together: far fewer chunks than answers.
      expect(plain.chunks).toBeLessThan(100)
    }))

  it.live("one that vanishes takes everything with it, and nothing is logged", () => {
    const logged: Array<unknown> = []
    return Effect.gen(function*() {
      const { context, counts, path } = yield* start()
      const plain = yield* Plain.connect(path)
      plain.send({ event: "pubsub:subscribe", pattern: "*", subscription_id: "s" }, { event: "t:forever" }, { event: "t:forever" })
      yield* eventually(() => counts.running === 2)
      plain.socket.destroy()
      yield* eventually(() => counts.interrupted === 2)
      yield* eventually(() => Context.get(context, Subscriptions).count() === 0)
      yield* eventually(() => Context.get(context, Listener.Listener).connections() === 0)
      expect(logged).toEqual([])
    }).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => logged.push(message))])))
  })

  it.live("one that vanishes while its requests wait for their turn is noticed too", () =>
    Effect.gen(function*() {
      const { context, counts, path } = yield* start()
      const plain = yield* Plain.connect(path)
      plain.send(...Array.from({ length: 10 }, () => ({ event: "t:forever" })))
      yield* eventually(() => counts.running === 4)
      plain.socket.destroy()
      yield* eventually(() => counts.interrupted === 4)
      yield* eventually(() => Context.get(context, Listener.Listener).connections() === 0)
    }).pipe(Effect.provideService(Limits.Limits, { ...Limits.defaults, connectionRequests: 4 })))

  it.live("one that has shut down its half gets every answer, then the end", () =>
    Effect.gen(function*() {
      const { path } = yield* start()
      const plain = yield* Plain.connect(path)
      plain.send({ event: "t:later", data: { value: 1 } })
      plain.socket.end(JSON.stringify({ event: "t:later", data: { value: 2 } }))
      const replies = yield* plain.received(2)
      expect(replies.map(({ data }) => data.result)).toEqual([1, 2])
      yield* plain.ended
    }))

  it.live("one that comes and leaves without a word, or shuts down its half, or says nothing for a while", () =>
    Effect.gen(function*() {
      const { context, path } = yield* start()
      const count = () => Context.get(context, Listener.Listener).connections()
      const [silent, leaving, half] = [yield* Plain.connect(path), yield* Plain.connect(path), yield* Plain.connect(path)]
      yield* eventually(() => count() === 3)
      leaving.socket.destroy()
      half.socket.end()
      yield* half.ended
      yield* eventually(() => count() === 1)
      expect((yield* silent.ask(echo(1))).data.result).toBe(1)
      expect((yield* silent.ask(echo(2))).data.result).toBe(2)
    }))

  it.live("one that never reads is held back, not buffered", () =>
    Effect.gen(function*() {
      const { path } = yield* start()
      const lazy = yield* Plain.connect(path)
      lazy.socket.pause()
      const line = `${JSON.stringify(echo("x".repeat(10_000)))}\n`
      let taken = 0
      const total = 3000
      for (let i = 0; i < total; i++) lazy.socket.write(line, () => taken++)
      const plain = yield* Plain.connect(path)
      // Meanwhile others are served, and what the daemon has taken in stops growing.
      let before = -1
      while (before !== taken) {
        before = taken
        for (let i = 0; i < 50; i++) yield* plain.ask(echo(i))
      }
      expect(taken).toBeLessThan(total / 2)
      lazy.socket.resume()
      const replies = yield* lazy.received(total)
      expect(replies.every(({ ok }) => ok)).toBe(true)
    }).pipe(Effect.provideService(Limits.Limits, { ...Limits.defaults, connectionBufferBytes: 100_000 })))

  it.live("what one emits another hears, from the first on and then live, without a gap", () =>
    Effect.gen(function*() {
      const { path } = yield* start()
      const writer = yield* Plain.connect(path)
      const reader = yield* Plain.connect(path)
      const emit = (from: number, to: number) => {
        for (let n = from; n <= to; n++) writer.send({ event: "t:happened", data: { n } })
      }
      emit(1, 300)
      yield* writer.received(100)
      reader.send({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "s", from: "start", correlation_id: "s" })
      emit(301, 600)
      yield* writer.received(600)
      const told = (yield* reader.received(601)).slice(1)
      expect(told.map(({ position }) => position)).toEqual(Array.from({ length: 600 }, (_, i) => i + 1))
      expect(told.map(({ data }) => data.n)).toEqual(Array.from({ length: 600 }, (_, i) => i + 1))
    }))
})

describe("closing", () => {
  const closing = Effect.fnUntraced(function*(drain: number | undefined) {
    const scope = yield* Scope.make()
    const counts = makeCounts()
    const path = yield* pathIn
    yield* start({ path, counts, ...(drain === undefined ? {} : { drain }) }).pipe(Scope.provide(scope))
    const plain = yield* Plain.connect(path)
    return { close: Scope.close(scope, Exit.void), counts, path, plain }
  })

  it.live("without a drain interrupts what runs, and says so", () =>
    Effect.gen(function*() {
      const { close, counts, path, plain } = yield* closing(undefined)
      plain.send({ event: "t:forever", correlation_id: 1 })
      yield* eventually(() => counts.running === 1)
      yield* close
      expect(counts).toMatchObject({ running: 0, interrupted: 1 })
      const [reply] = yield* plain.received(1)
      expect(reply).toMatchObject({ correlation_id: 1, data: { cause: "interrupt" } })
      yield* plain.ended
      expect(Fs.existsSync(path)).toBe(false)
    }))

  it.live("with a drain lets requests finish and accepts nobody", () =>
    Effect.gen(function*() {
      const { close, counts, path, plain } = yield* closing(5000)
      plain.send({ event: "t:forever", deadline_ms: 60 }, { event: "pubsub:subscribe", pattern: "*", subscription_id: "s" })
      yield* eventually(() => counts.running === 1)
      const closed = yield* Effect.forkChild(close, { startImmediately: true })
      const refused = yield* Effect.callback<string>((resume) => {
        Net.connect(path).on("error", ({ message }) => resume(Effect.succeed(message)))
      })
      expect(refused).toMatch(/ENOENT|ECONNREFUSED/)
      const replies = yield* plain.received(2)
      expect(replies.map(({ data }) => data.reason ?? data.status).toSorted()).toEqual(["DeadlineExceeded", "subscribed"])
      yield* Fiber.join(closed)
    }))

  it.live("does not wait for those that never said anything", () =>
    Effect.gen(function*() {
      const { close, plain } = yield* closing(60_000)
      yield* close
      yield* plain.ended
    }))

  it.live("does not wait for ever", () =>
    Effect.gen(function*() {
      const { close, counts, plain } = yield* closing(30)
      plain.send({ event: "t:forever" })
      yield* eventually(() => counts.running === 1)
      yield* close
      expect(counts.interrupted).toBe(1)
    }))
})

