// Following over HTTP: server-sent events.
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect } from "effect"
import { TestClock } from "effect/testing"
import { Journal } from "../../src/bus/Journal.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import { eventually, Happened } from "../wire/Daemon.ts"
import { ask, post, Raw, start } from "./Server.ts"

interface Message {
  readonly id: string | undefined
  readonly event: string | undefined
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly data: any
}

/** The chunks of a body, put together. */
const bodyOf = (text: string): string => {
  let rest = text.slice(text.indexOf("\r\n\r\n") + 4)
  let body = ""
  for (;;) {
    const [size] = /^[0-9a-f]+(?=\r\n)/.exec(rest) ?? []
    const length = parseInt(size ?? "0", 16)
    if (size === undefined || length === 0) return body
    body += rest.slice(size.length + 2, size.length + 2 + length)
    rest = rest.slice(size.length + 4 + length)
  }
}

/** Reads the text as the standard says a browser does. */
const messagesOf = (raw: Raw): ReadonlyArray<Message> =>
  bodyOf(raw.text).split("\n\n").slice(0, -1).flatMap((block) => {
    const field = (name: string) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
    const data = field("data")
    return data === undefined && field("id") === undefined ? [] : [{ id: field("id"), event: field("event"), data: data === undefined ? undefined : JSON.parse(data) as unknown }]
  })

const follow = Effect.fnUntraced(function*(port: number, search = "", headers = "") {
  const raw = yield* Raw.connect(port)
  raw.socket.write(`GET /subscribe${search} HTTP/1.1\r\nHost: localhost:${port}\r\n${headers}\r\n`)
  yield* eventually(() => raw.text.includes("retry: 1000") || raw.closed || raw.text.includes("problem+json"))
  return raw
})

const say = (context: Context.Context<KsiService>, ...numbers: ReadonlyArray<number>) =>
  Effect.forEach(numbers, (n) => Context.get(context, KsiService).emit(Happened, { n }), { discard: true })

const positions = (raw: Raw) => messagesOf(raw).flatMap(({ data }) => data === undefined ? [] : [data.position as number])

describe("following", () => {
  it.live("tells what is stored and what comes, each with its position", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      yield* say(context, 1, 2)
      const raw = yield* follow(port, "?pattern=t:*&from=start")
      expect(raw.text.split("\r\n")).toContain("content-type: text/event-stream")
      yield* say(context, 3)
      yield* eventually(() => positions(raw).length === 3)
      const [begin, first, , last] = messagesOf(raw)
      expect(begin).toEqual({ id: "0", event: undefined, data: undefined })
      expect(first).toMatchObject({ id: "1", event: undefined, data: { event: "t:happened", data: { n: 1 }, position: 1, version: 1, stream_id: "t" } })
      expect(last).toMatchObject({ id: "3", data: { data: { n: 3 }, position: 3 } })
    }))

  it.live("goes on after what was heard last, without a gap and without a repeat, whatever the query says", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      yield* say(context, 1, 2, 3)
      for (const search of ["", "?from=start", "?from=1", "?from=now"]) {
        const raw = yield* follow(port, search, "Last-Event-ID: 2\r\n")
        yield* eventually(() => positions(raw).length >= 1)
        expect(positions(raw)).toEqual([3])
        expect(messagesOf(raw)[0]?.id).toBe("2")
      }
    }))

  it.live("a client that was cut before it heard anything goes on where it began", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      yield* say(context, 1)
      const first = yield* follow(port)
      const [begin] = messagesOf(first)
      first.socket.destroy()
      yield* say(context, 2, 3)
      const again = yield* follow(port, "", `Last-Event-ID: ${begin?.id ?? ""}\r\n`)
      yield* eventually(() => positions(again).length === 2)
      expect(positions(again)).toEqual([2, 3])
    }))

  it.live("goes on after a fact that is not of its pattern, and after none where it says nothing", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const permissions = Context.get(context, Permissions)
      yield* say(context, 1)
      // A fact of KSI's own, which has a place in the same order.
      yield* permissions.createToken({ by: "owner" })
      const head = Context.get(context, Journal).head()
      expect(head).toBeGreaterThan(1)
      yield* say(context, 2)
      const raw = yield* follow(port, "?pattern=t:*", `Last-Event-ID: ${head}\r\n`)
      yield* eventually(() => positions(raw).length === 1)
      expect(messagesOf(raw).map(({ data, id }) => [id, data?.data.n])).toEqual([[String(head), undefined], [String(head + 1), 2]])
      const begun = yield* follow(port, "?pattern=t:*&from=start", "Last-Event-ID: \r\n")
      yield* eventually(() => positions(begun).length === 2)
      expect(positions(begun)).toEqual([1, head + 1])
    }))

  it.live("hears requests where it asks for them, without a position", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* follow(port, "?pattern=t:echo&requests=true")
      yield* post(port, "t:echo", { value: 1 })
      yield* eventually(() => messagesOf(raw).length === 2)
      expect(messagesOf(raw)[1]).toMatchObject({ id: undefined, data: { event: "t:echo", data: { value: 1 } } })
    }))

  it.effect("is kept alive with comments where there is nothing to tell", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* follow(port)
      for (const beats of [1, 2]) {
        yield* TestClock.adjust("14 seconds")
        expect(bodyOf(raw.text).match(/^:\n\n/gm) ?? []).toHaveLength(beats - 1)
        yield* TestClock.adjust("1 second")
        yield* eventually(() => bodyOf(raw.text).match(/^:\n\n/gm)?.length === beats)
      }
    }))

  it.live("ends its subscription with the connection", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const { count } = Context.get(context, Subscriptions)
      const raw = yield* follow(port)
      expect(count()).toBe(1)
      raw.socket.destroy()
      yield* eventually(() => count() === 0)
    }))

  it.live("a reader that stops holds nobody up, and misses no fact", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start({ limits: { subscriptionBuffer: 4 } })
      const slow = yield* follow(port, "?from=start")
      slow.socket.pause()
      const quick = yield* follow(port, "?from=start")
      const numbers = Array.from({ length: 20_000 }, (_, n) => n)
      yield* say(context, ...numbers)
      yield* eventually(() => quick.text.includes("id: 20000\n"))
      expect(slow.text).not.toContain("id: 20000\n")
      slow.socket.resume()
      yield* eventually(() => slow.text.includes("id: 20000\n"))
      expect(positions(slow)).toEqual(numbers.map((n) => n + 1))
    }))

  it.live("hears only what is for it, and is ended when that is nothing any more", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const permissions = Context.get(context, Permissions)
      const { id, principal, token } = yield* permissions.createToken({ by: "owner" })
      const bearer = `Authorization: Bearer ${token}\r\n`
      const refused = yield* follow(port, "?pattern=t:*", bearer)
      yield* eventually(() => refused.text.includes("}"))
      expect([refused.text.slice(9, 12), refused.text.includes("PermissionDenied")]).toEqual(["403", true])
      yield* permissions.grant({ by: "owner", principal, rule: { pattern: "t:happened", actions: ["subscribe"], allow: true } })
      const raw = yield* follow(port, "?pattern=*", bearer)
      // The grant itself, and the token, are facts too, and not for it.
      yield* say(context, 1)
      yield* eventually(() => positions(raw).length === 1)
      expect(messagesOf(raw).flatMap(({ data }) => data?.event ?? [])).toEqual(["t:happened"])
      yield* permissions.revokeToken({ id, by: "owner" })
      yield* eventually(() => raw.text.includes("event: error"))
      yield* say(context, 2)
      expect(messagesOf(raw).at(-1)).toMatchObject({ event: "error", data: { status: 401, reason: "Unauthenticated" } })
      expect(positions(raw).filter((position) => position !== undefined)).toHaveLength(1)
    }))

  const wrong: ReadonlyArray<readonly [search: string, headers: Readonly<Record<string, string>>, path: string]> = [
    ["?from=soon", {}, "from"], ["?from=-1", {}, "from"], ["", { "last-event-id": "x" }, "Last-Event-ID"], ["?from=start", { "last-event-id": "-1" }, "Last-Event-ID"],
    ["", { "last-event-id": "1, 2" }, "Last-Event-ID"], ["", { "last-event-id": "9".repeat(16) }, "Last-Event-ID"], ["?from=x", { "last-event-id": "0" }, "from"], ["?from=", {}, "from"], ["?requests=yes", {}, "requests"],
    ["?overflow=block", {}, "overflow"], ["?overflow=x", {}, "overflow"], ["?buffer=0", {}, "buffer"], ["?buffer=x", {}, "buffer"], ["?patern=x", {}, "patern"],
    ["?pattern=a&pattern=b", {}, "pattern"], ["?from=1&from=2", {}, "from"], ["?subscription_id=x", {}, "subscription_id"], ["?from=99999999999999999999", {}, "from"], ["?from=1.5", {}, "from"], ["?buffer=", {}, "buffer"]
  ]
  for (const [search, headers, path] of wrong) {
    it.live(`${search} ${JSON.stringify(headers)} is refused`, () =>
      Effect.gen(function*() {
        const { port } = yield* start()
        const said = yield* ask(port, "GET", `/subscribe${search}`, headers)
        expect([said.status, said.body.reason, said.body.details.problems[0].path]).toEqual([400, "PayloadInvalid", path])
      }))
  }

  it.live("a buffer beyond the limit, and a place that nobody has reached", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { subscriptionBuffer: 8 } })
      expect((yield* ask(port, "GET", "/subscribe?buffer=9")).body).toMatchObject({ status: 413, reason: "LimitExceeded", details: { limit: "subscriptionBuffer" } })
      // As of a store that was in memory, or was restored: who waited for what comes after would hear nothing for long.
      const beyond = yield* ask(port, "GET", "/subscribe", { "last-event-id": "1" })
      expect([beyond.status, beyond.body.details.problems[0]]).toEqual([400, { path: "Last-Event-ID", problem: expect.stringContaining("the store ends at position 0") }])
      const raw = yield* follow(port, "?from=1000")
      expect(messagesOf(raw)[0]?.id).toBe("999")
    }))

  it.live("a pattern that is none", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      expect((yield* ask(port, "GET", "/subscribe?pattern=::")).body.reason).toBe("PatternInvalid")
    }))
})
