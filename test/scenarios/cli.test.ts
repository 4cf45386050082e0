// Every command against a real daemon, for people and for programs; and what only a process of its own can show: exit
// codes, pipes that close or stall, Ctrl-C.
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { Kept, ksi } from "../cli/commandLine.ts"
import { Home, root } from "./Daemon.ts"

const home = new Home()
const at = (name: string) => join(home.path, name)
/** Runs a command line in this process. */
const run = (argv: ReadonlyArray<string>, stdin = "") => Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path }, stdin }))
const linesOf = (text: string) => text.trimEnd().split("\n").map((line) => JSON.parse(line) as Record<string, unknown>)

const event = (n: number, more: object = {}) => ({
  specversion: "1.0", id: `e${n}`, source: "/test", type: "order:placed", subject: `order-${n % 3}`,
  time: `2018-03-15T12:00:${String(n).padStart(2, "0")}.50Z`, data: { n, total: n * 1.5 }, ...more
})
const ndjson = (events: ReadonlyArray<object>) => events.map((each) => `${JSON.stringify(each)}\n`).join("")

beforeAll(async () => {
  await home.start("test/cli/app.ts")
})
afterAll(() => home[Symbol.asyncDispose]())

describe("asking", () => {
  it("call: the reply without the wire's dress", async () => {
    expect(await run(["call", "app:add", "a=1", "b=2"])).toEqual({ code: 0, stdout: "3\n", stderr: "" })
    expect(await run(["call", "app:echo", "value.x=1", "--json"])).toEqual({ code: 0, stdout: "{\"value\":{\"x\":1}}\n", stderr: "" })
    expect(await run(["call", "app:echo", "value.x=1"])).toEqual({ code: 0, stdout: "{\n  \"value\": {\n    \"x\": 1\n  }\n}\n", stderr: "" })
    expect((await run(["send", "app:add", "a=1", "b=2", "--json"])).stdout).toBe("3\n")
    expect((await run(["call", "app:isbn", "isbn=12"])).stdout).toBe("\"12\"\n")
  })
  it("data from the flag, a file and stdin; pairs go over it", async () => {
    writeFileSync(at("data.json"), "\uFEFF{\"a\":1,\"b\":1}")
    expect((await run(["call", "app:add", "--data", "{\"a\":1,\"b\":1}", "b=4"])).stdout).toBe("5\n")
    expect((await run(["call", "app:add", "b=5", "--data", `@${at("data.json")}`])).stdout).toBe("6\n")
    expect((await run(["call", "app:add", "--data", "-"], "{\"a\":3,\"b\":4}")).stdout).toBe("7\n")
  })
  it("emit: id and position", async () => {
    const reply = await run(["emit", "app:noted", "text=first", "--json"])
    expect(reply).toMatchObject({ code: 0, stderr: "" })
    expect(JSON.parse(reply.stdout)).toEqual({ event_id: expect.any(String), position: expect.any(Number) })
    expect(Object.keys(JSON.parse((await run(["send", "app:noted", "text=second"])).stdout) as object)).toEqual(["event_id", "position"])
  })
  it("once with an idempotency key, whichever the word", async () => {
    const noted = async (word: string, text: string, ...more: ReadonlyArray<string>) =>
      await run([word, "app:noted", `text=${text}`, "--json", ...more])
    const first = await noted("emit", "once", "--idempotency-key", "k1")
    expect(first).toMatchObject({ code: 0, stderr: "" })
    expect(await noted("emit", "once", "--idempotency-key", "k1")).toEqual(first)
    expect(await noted("send", "once", "--idempotency-key=k1")).toEqual(first)
    expect((await noted("emit", "once")).stdout).not.toBe(first.stdout)
    expect(await noted("emit", "twice", "--idempotency-key", "k1")).toMatchObject({ code: 6, stdout: "" })
    const add = async (b: number) => await run(["call", "app:add", "a=1", `b=${b}`, "--idempotency-key", "k1"])
    expect(await add(2)).toMatchObject({ code: 0, stdout: "3\n" })
    expect(await add(2)).toMatchObject({ code: 0, stdout: "3\n" })
    expect(await add(3)).toMatchObject({ code: 6, stdout: "" })
    for (const key of ["", "k".repeat(257)]) {
      const { code, stderr } = await noted("emit", "never", `--idempotency-key=${key}`)
      expect([code, stderr]).toEqual([2, expect.stringContaining("--idempotency-key must have 1 to 256 characters")])
    }
    expect((await run(["emit", "--help"])).stdout).toContain("--idempotency-key KEY")
  })
  it("in the trace that the environment names; a malformed one is nobody's error", async () => {
    const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    const noted = async (env: Record<string, string>) => {
      const emitted = await Effect.runPromise(ksi(["emit", "app:noted", "text=traced", "--json"], { env: { KSI_HOME: home.path, ...env } }))
      expect(emitted).toMatchObject({ code: 0, stderr: "" })
      const { position } = JSON.parse(emitted.stdout) as { readonly position: number }
      const [fact] = linesOf((await run(["export", "--from", String(position), "--to", String(position)])).stdout)
      return [fact?.["traceparent"], fact?.["tracestate"]]
    }
    expect(await noted({ TRACEPARENT: traceparent, TRACESTATE: "a=1" })).toEqual([traceparent, "a=1"])
    expect(await noted({ TRACEPARENT: "00-1", TRACESTATE: "a=1" })).toEqual([undefined, undefined])
    expect((await run(["call", "--help"])).stdout).toContain("TRACEPARENT=")
  })

  const failures: ReadonlyArray<readonly [argv: ReadonlyArray<string>, code: number, reason: string, text: string]> = [
    [["call", "app:refuse", "why=tea"], 1, "DeclaredFailure", "✗ DeclaredFailure  app:refuse failed: refused: tea\n  error      Refused\n  why        tea\n"],
    [["call", "app:add", "a=1", "b=two"], 2, "PayloadInvalid", "✗ PayloadInvalid  app:add rejected before any handler ran\n  b          "],
    [["call", "app:noted", "text=x"], 2, "WrongShape", "✗ WrongShape  app:noted is a fact: use emit, not call\n  next       ksi emit app:noted\n"],
    [["emit", "app:add"], 2, "WrongShape", "✗ WrongShape  app:add is a request: use call, not emit\n  next       ksi call app:add\n"],
    [["call", "app:ad"], 3, "UnknownEvent", "✗ UnknownEvent  no event is called \"app:ad\"\n  nearest    app:add"],
    [["discover", "a*p:x"], 2, "PatternInvalid", "  next       ksi discover\n"],
    [["describe", "app:ad"], 3, "UnknownEvent", "  next       ksi discover 'app:*'\n"],
    [["stream-log", "nothing"], 3, "NotFound", "✗ NotFound  there is no stream \"nothing\""],
    [["time", "at", "1", "--projection", "latst"], 3, "NotFound", "  nearest    latest\n  next       ksi projection ls\n"],
    [["call", "app:poor"], 1, "DeclaredFailure", "✗ DeclaredFailure  app:poor failed: Poor\n  error      Poor\n  missing    3\n"],
    [["subscribe", "order::x"], 2, "PatternInvalid", "✗ PatternInvalid  \"order::x\" is not a pattern: it has an empty segment\n"],
    [["call", "app:crash"], 70, "Defect", "✗ Defect"],
    [["call", "app:lie"], 70, "ReplyInvalid", "✗ ReplyInvalid  the handler of app:lie answered with an invalid reply\n  n          "]
  ]
  it.for(failures)("%j is exit %i, %s", async ([argv, code, reason, text]) => {
    const human = await run(argv)
    expect([human.code, human.stdout]).toEqual([code, ""])
    expect(human.stderr).toContain(text)
    expect(human.stderr).not.toContain("the inside of the handler")
    const json = await run([...argv, "--json"])
    expect([json.code, json.stdout]).toEqual([code, ""])
    expect(json.stderr.indexOf("\n")).toBe(json.stderr.length - 1)
    expect(JSON.parse(json.stderr)).toEqual({
      error: { reason, message: expect.any(String), details: expect.any(Object), retryable: false }
    })
  })
})

describe("looking", () => {
  it("status and health", async () => {
    const status = await run(["status", "--json"])
    expect(JSON.parse(status.stdout)).toMatchObject({ status: "running", socket: home.socket, pid: expect.any(Number) })
    expect((await run(["status"])).stdout).toMatch(/^status {4}running\nversion {3}/)
    expect(JSON.parse((await run(["health", "--json"])).stdout)).toMatchObject({ status: "healthy", store: { kind: "sqlite" } })
    expect((await run(["health"])).stdout).toMatch(/^store\.kind +sqlite$/m)
  })
  it("discover and describe", async () => {
    const { stdout } = await run(["discover", "app:*"])
    expect(stdout).toMatch(/^app {2}9 events/)
    expect(stdout).toMatch(/^ {2}app:add +request +Adds two numbers\.$/m)
    expect(JSON.parse((await run(["discover", "app:*", "--json"])).stdout)).toMatchObject({ namespaces: { app: { count: 9 } } })
    expect(await run(["discover", "nobody:*"])).toEqual({ code: 0, stdout: "", stderr: "no event matches nobody:*\n" })
    expect(await run(["discover", "stor"])).toEqual({ code: 0, stdout: "", stderr: "no event matches stor:*; nearest: store\n" })
    expect((await run(["discover", "app:ad"])).stderr).toBe("no event matches app:ad; nearest: app:add\n")
    expect((await run(["describe", "app:crash"])).stdout).toMatch(/\npayload\n {2}none\n\nexamples\n {2}ksi call app:crash\n[^]*\nhandlers, in order\n {2}app:crash {2}concurrent\n[^]*\nsuccess schema\n {2}null\n$/)
    expect((await run(["describe", "app:add"])).stdout).toMatch(/^app:add {2}request, 1 handler\n {2}Adds two numbers\.\n\npayload\n {2}a {2}number/)
    expect(JSON.parse((await run(["describe", "app:add", "--json"])).stdout)).toMatchObject({ event: "app:add", schemas: { payload: { type: "object" } } })
  })
})

describe("facts", () => {
  const lossless = "{\"specversion\":\"1.0\",\"id\":\"big\",\"source\":\"/test\",\"type\":\"x.y/Z\",\"data\":{\"n\":12345678901234567890,\"s\":\"ü\"},\"ext\":\"1\"}"
  const events = Array.from({ length: 30 }, (_, n) => event(n))

  it("import, again, and with lines that are none", async () => {
    writeFileSync(at("events.ndjson.gz"), gzipSync(ndjson(events) + lossless))
    const first = await run(["import", at("events.ndjson.gz"), "--json"])
    expect(first).toMatchObject({ code: 0, stderr: "" })
    expect(JSON.parse(first.stdout)).toMatchObject({ imported: 31, duplicates: 0, rejected: 0, rejections: [], eventsPerSecond: expect.any(Number) })
    expect((await run(["import", at("events.ndjson.gz")])).stdout).toMatch(/^nothing new, 31 events there already in /)

    const bad = `${ndjson([event(1, { data: "other" })])}\n{"half\n${ndjson([event(40), { ...event(41), type: 7 }])}`
    const human = await run(["import", "-"], bad)
    expect([human.code, human.stdout.split(" in ")[0]]).toEqual([1, "imported 1 event, 3 lines rejected"])
    expect(human.stderr).toMatch(/✗ line 1 {2}an event "e1" of source "\/test" is stored at position \d+ with other content\n/)
    expect(human.stderr).toMatch(/✗ line 3 {2}not JSON/)
    expect(human.stderr).toMatch(/✗ line 5 {2}.*"type"/)
    const json = await run(["import", "-", "--json"], bad)
    expect([json.code, json.stderr]).toEqual([1, ""])
    const summary = JSON.parse(json.stdout) as { readonly rejections: ReadonlyArray<{ readonly line: number; readonly reason: string }> }
    expect(summary).toMatchObject({ imported: 0, duplicates: 1, rejected: 3 })
    expect(summary.rejections.map(({ line, reason }) => [line, reason]).toSorted()).toEqual([[1, "IdConflict"], [3, "LineInvalid"], [5, "PayloadInvalid"]])
  })
  it("so many rejected lines are told, all are counted", async () => {
    const many = "nope\n".repeat(1500)
    const json = JSON.parse((await run(["import", "-", "--json"], many)).stdout) as { readonly rejected: number; readonly rejections: ReadonlyArray<unknown> }
    expect([json.rejected, json.rejections.length]).toEqual([1500, 1000])
    const human = await run(["import", "-"], many)
    expect([human.code, human.stdout.split(" in ")[0]]).toEqual([1, "imported 0 events, 1,500 lines rejected"])
    expect(human.stderr.split("\n").slice(999)).toEqual([expect.stringMatching(/^✗ line 1000 /), "  further rejected lines are only counted", ""])
  })
  it("a file that is cut off says so", async () => {
    const packed = gzipSync(ndjson(events))
    writeFileSync(at("cut.gz"), packed.subarray(0, packed.length - 12))
    const cut = await run(["import", at("cut.gz")])
    expect(cut.code).toBe(5)
    expect(cut.stderr).toContain("the gzip data end too early; the file is cut off")
  })
  it("export gives back what came in, and takes bounds", async () => {
    const all = await run(["export"])
    expect(all.stdout).toContain("\"data\":{\"n\":12345678901234567890,\"s\":\"ü\"}")
    const exported = linesOf(all.stdout)
    expect(exported.map(({ position }) => position)).toEqual(exported.map((_, i) => i + 1))
    for (const each of events) {
      const { position, version, ...back } = exported.find(({ id }) => id === each.id) ?? {}
      expect(back).toEqual(each)
      expect([position, version]).toEqual([expect.any(Number), expect.any(Number)])
    }
    expect(linesOf((await run(["export", "--from", "2", "--to", "3", "--json"])).stdout).map(({ position }) => position)).toEqual([2, 3])
    expect(linesOf((await run(["export", "--stream", "order-1"])).stdout).map(({ id }) => id)).toContain("e1")
    expect(await run(["import", "-"], all.stdout)).toMatchObject({ code: 0, stdout: expect.stringMatching(/^nothing new/) })
  })
  it("streams and stream-log", async () => {
    expect((await run(["streams", "order-"])).stdout).toBe("order-0  v10\norder-1  v11\norder-2  v10\n")
    expect(await run(["streams", "zzz"])).toEqual({ code: 0, stdout: "", stderr: "no streams that start with \"zzz\"\n" })
    expect((await run(["streams", "order-", "--json"])).stdout.split("\n")[0]).toBe("{\"streamId\":\"order-0\",\"version\":10}")
    expect((await run(["stream-log", "order-0"])).stdout.split("\n")[0]).toMatch(/^v1 +\d+ +2018-03-15T12:00:00\.50Z {2}order:placed {2}\{"n":0,"total":0\}$/)
    expect(linesOf((await run(["stream-log", "order-0", "--json"])).stdout).map(({ version }) => version)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  })
  it("time at an instant and a position", async () => {
    const seen = await run(["time", "at", "2018-03-15T12:00:05Z", "--json"])
    expect(linesOf(seen.stdout)).toEqual([3, 4, 2].map((n) => ({
      streamId: `order-${n % 3}`, version: n < 3 ? 1 : 2, lastEvent: "order:placed", lastEventId: `e${n}`,
      timestamp: `2018-03-15T12:00:0${n}.50Z`, state: { n, total: n * 1.5 }
    })))
    expect(Object.keys(linesOf(seen.stdout)[0] ?? {})).toEqual(["streamId", "version", "lastEvent", "lastEventId", "timestamp", "state"])
    expect(seen.stderr).toBe("")
    const human = await run(["time", "at", "2018-03-15T12:00:05Z", "--stream", "order-2"])
    expect(human.stdout).toBe("order-2  v1  order:placed  2018-03-15T12:00:02.50Z  {\"n\":2,\"total\":3}\n")
    expect(human.stderr).toBe("1 stream as of 2018-03-15T12:00:05Z\n")
    expect((await run(["time", "at", "1"])).stderr).toBe("1 stream as of position 1\n")
    expect((await run(["time", "at", "999999"])).stderr).toMatch(/^\d+ streams as of position \d{1,3} \(the last\)\n$/)
    expect((await run(["time", "at", "2100-01-01", "--recorded"])).stderr).toMatch(/ streams as of 2100-01-01, by when facts were recorded\n$/)
    const early = await run(["time", "at", "1", "--stream", "order-2"])
    expect([early.code, early.stderr]).toEqual([3, expect.stringMatching(
      /^✗ NotFound {2}there is no stream "order-2" at position 1: it begins at position \d+, 2018-03-15T12:00:02.50Z\n {2}next {7}ksi stream-log order-2\n$/
    )])
  })
  it("trace, as a tree, a diagram and JSON", async () => {
    const tree = await run(["trace", "e4"])
    expect(tree).toMatchObject({ code: 0, stderr: "" })
    expect(tree.stdout).toMatch(/^0 requests, 1 fact in 0 ms\n\+0 ms {4}• order:placed {2}#\d+ {2}order-1 v\d+ {2}←\n$/)
    const failed = await run(["call", "app:poor", "--json"])
    expect(failed.code).toBe(1)
    const { events: [request] } = JSON.parse((await run(["call", "event_log:query", "pattern=app:poor", "limit=1", "--json"])).stdout) as {
      readonly events: ReadonlyArray<{ readonly event_id: string }>
    }
    const id = request?.event_id ?? ""
    expect((await run(["trace", id])).stdout).toMatch(/^1 request, 0 facts, 1 failed in .+\n\+0 ms {2}.+ms {2}✗ app:poor {2}Poor {2}←\n$/)
    expect(linesOf((await run(["trace", id, "--json"])).stdout)).toMatchObject([{ kind: "request", id, event: "app:poor", outcome: "failure", reason: "Poor" }])
    expect((await run(["trace", id, "--mermaid"])).stdout).toMatch(/^flowchart TD\n {2}n0\["app:poor<br\/>.*ms<br\/>Poor"\]:::failed\n/)
    expect(await run(["trace", "nobody"])).toMatchObject({ code: 3, stdout: "", stderr: expect.stringContaining("✗ NotFound  there is no request or fact \"nobody\"") })
  })
  it("export as a test that runs", async () => {
    const { code, stderr, stdout } = await run(["export", "--as", "test", "--stream", "notes", "--to", "1", "--app", "../app.ts"])
    expect([code, stderr]).toEqual([0, ""])
    expect(stdout).toContain("import app, { App as AppEvents } from \"../app.ts\"")
    expect(stdout).toContain("    .when(Noted.of({ text: \"first\" }))\n    .thenEmits(Noted.of({ text: \"first\" }))\n")
    expect(JSON.parse((await run(["export", "--as", "test", "--stream", "notes", "--to", "1", "--app", "../app.ts", "--json"])).stdout)).toEqual({ text: stdout })
    expect(await run(["export", "--as", "test", "--trace", "nobody"])).toMatchObject({ code: 3, stdout: "" })
    expect(await run(["export", "--trace", "nobody"])).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("are for --as test") })
  })
  it("time diff, find, blame and branch: promised lines for programs, words for people", async () => {
    const log = linesOf((await run(["stream-log", "order-0", "--json"])).stdout)
    const [first = 0, second = 0, third = 0] = log.map(({ position }) => Number(position))
    const diff = ["time", "diff", `${first}`, `${second}`, "--stream", "order-0"]
    expect((await run([...diff, "--json"])).stdout).toBe("[{\"op\":\"replace\",\"path\":\"/n\",\"value\":3},{\"op\":\"replace\",\"path\":\"/total\",\"value\":4.5}]\n")
    expect(await run(diff)).toMatchObject({
      code: 0, stdout: "order-0  v1 order:placed → v2 order:placed\n  ~ n      0 → 3\n  ~ total  0 → 4.5\n", stderr: `between position ${first} and position ${second}\n`
    })
    expect((await run(["time", "diff", "start", "now", "--stream", "order-0"])).stderr).toBe("between start and now\n")
    expect((await run(["time", "at", "now", "--stream", "order-0", "--json"])).stdout).toBe((await run(["time", "at", "999999", "--stream", "order-0", "--json"])).stdout)
    const found = { position: second, id: "e3", event: "order:placed", version: 2, timestamp: "2018-03-15T12:00:03.50Z", before: { n: 0, total: 0 }, after: { n: 3, total: 4.5 } }
    for (const how of [[], ["--monotone"]]) {
      const { code, stdout } = await run(["time", "find", "--stream", "order-0", "--where", "state.total > 1", "--json", ...how])
      expect([code, stdout]).toEqual([0, `${JSON.stringify(found)}\n`])
    }
    expect((await run(["time", "find", "--where", "event.id == \"e3\""])).stdout.split("\n")[0]).toBe(`order:placed  position ${second}, v2 of order-0, 2018-03-15T12:00:03.50Z`)
    expect((await run(["time", "blame", "--stream", "order-0", "total", "--at", `${third}`, "--json"])).stdout)
      .toBe(`{"field":"total","position":${third},"id":"e6","event":"order:placed","timestamp":"2018-03-15T12:00:06.50Z","value":9}\n`)
    const branch = await run(["time", "branch", "--stream", "order-0", "--at", `${second}`, "--drop", "e3"])
    expect(branch).toEqual({
      code: 0, stderr: "1 of 1 stream would have another state; nothing was written\n",
      stdout: `order-0  v2 as it was, v1 as it would have been\n  ~ n         3 → 0\n  ~ total     4.5 → 0\n    parts at  position ${second}, order:placed\n`
    })
    expect(await run(["time", "compare", "latest", "latest"])).toEqual({ code: 0, stdout: "", stderr: "latest and latest say the same after every fact\n" })
  })
  it("on a terminal a state and its blame are told field by field, for other programs in columns", async () => {
    const seen = (...argv: ReadonlyArray<string>) =>
      Effect.runPromise(ksi(["time", ...argv, "--stream", "order-2"], { env: { KSI_HOME: home.path, NO_COLOR: "1" }, stdout: new Kept(true) }))
    expect((await seen("at", "2018-03-15T12:00:05Z")).stdout).toBe("order-2  v1 order:placed, 2018-03-15T12:00:02.50Z\n    n      2\n    total  3\n")
    expect((await seen("blame", "--at", "2018-03-15T12:00:05Z")).stdout)
      .toMatch(/^order:placed {2}position \d+, 2018-03-15T12:00:02\.50Z\n {4}n {6}2\n {4}total {2}3\n$/)
    expect((await seen("blame", "--json")).stdout).toMatch(/^\{"field":"n",/)
    expect((await run(["time", "blame", "--stream", "order-2"])).stdout).toMatch(/^field +value +position +event +time\nn +/)
  })
  it("time find says where an expression is wrong, and exits with 3 when nothing is found", async () => {
    const find = (where: string, ...more: ReadonlyArray<string>) => run(["time", "find", "--where", where, ...more])
    expect(await find("state.total >")).toEqual({
      code: 2, stdout: "", stderr: "✗ Usage  --where: unexpected end of the expression, at column 14\n  state.total >\n               ^\n  next       ksi time find --help\n"
    })
    const undecided = await find("state.nothing > 1", "--stream", "order-0")
    expect([undecided.code, undecided.stdout]).toEqual([2, ""])
    expect(undecided.stderr).toMatch(/^✗ Usage {2}--where: cannot be decided after the order:placed at position \d+: no such key: nothing, at column 7\n {2}state\.nothing > 1\n {8}\^\n/)
    expect(undecided.stderr).toContain("next       say which are meant with --stream, --prefix or --pattern, or ask first, as in has(state.total) && state.total > 100\n")
    // Streams of another kind have no total: they are left out by their ids, or by the events that may be found.
    expect((await find("state.total > 1")).code).toBe(2)
    for (const only of [["--prefix", "order-"], ["--pattern", "order:placed"], ["--pattern", "order"]]) {
      expect((await find("state.total > 1", ...only)).stdout).toMatch(/^order:placed /)
    }
    expect(await find("state.total > 1e9", "--prefix", "order-", "--pattern", "order")).toMatchObject({
      code: 3, stderr: expect.stringContaining("there is no fact of order:* after which \"state.total > 1e9\" holds in any stream order-…")
    })
    expect((await find("true", "--prefix", "order-", "--stream", "order-0")).code).toBe(2)
    const none = await find("state.total > 1e9", "--stream", "order-0", "--json")
    expect([none.code, none.stdout, JSON.parse(none.stderr)]).toEqual([3, "", { error: expect.objectContaining({ reason: "NotFound" }) }])
    expect((await find("true", "--stream", "order-00")).code).toBe(3)
    expect((await run(["time", "blame", "--stream", "order-0", "totl"])).stderr).toContain("nearest    total\n")
    expect((await run(["time", "branch", "--drop", "e999999"])).code).toBe(3)
    expect((await run(["time", "branch"])).code).toBe(2)
  })
  it("subscribe from the start, with a limit", async () => {
    const json = await run(["subscribe", "order:*", "--from", "start", "--limit", "2", "--json"])
    expect(linesOf(json.stdout).map(({ event_id }) => event_id)).toEqual(["e0", "e1"])
    const bare = await run(["subscribe", "app", "--from", "2", "--limit", "1"])
    expect([bare.stdout.includes("app:noted"), bare.stderr]).toEqual([true, "following app:* from position 2 on\n"])
    const undefinedOne = await run(["subscribe", "order", "--from", "start", "--limit", "1"])
    expect(undefinedOne.stderr).toBe("following order:* from the start\n")
    const misspelt = home.spawn("subscribe", "ap")
    await misspelt.tells("nearest: app\n")
    expect((await misspelt.kill("SIGINT")).stderr)
      .toBe("following ap:* from now on\nno event is defined that ap:* matches; imported facts need no definition; nearest: app\n")
    expect((await run(["subscribe", "order:*", "--from", "start", "--limit", "1"])).stdout)
      .toMatch(/^\d+ {2}2018-03-15T12:00:00\.500Z {2}order:placed {2}order-0 {2}\{"n":0,"total":0\}\n$/)
  })
})

describe("as a process", () => {
  const many = 20_000
  beforeAll(async () => {
    writeFileSync(at("many.ndjson"), ndjson(Array.from({ length: many }, (_, n) => event(n, { source: "/many", time: undefined, subject: `many-${n % 100}` }))))
    expect((await run(["import", at("many.ndjson")])).code).toBe(0)
  })

  const shell = (line: string) => {
    const main = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", join(root, "src", "main.ts")]
    const command = [process.execPath, ...main].map((word) => `'${word}'`).join(" ")
    const child = spawn("bash", ["-c", line.replaceAll("KSI", command)], { env: { ...process.env, KSI_HOME: home.path } })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
    return once(child, "close").then(() => ({ stdout, stderr }))
  }

  it("a reader that goes away ends the command quietly, exit 0", async () => {
    const { stderr, stdout } = await shell("KSI export | head -1 >/dev/null; echo ${PIPESTATUS[0]}")
    expect([stdout, stderr]).toEqual(["0\n", ""])
  })
  it("a reader that is slow gets everything, in order", async () => {
    const { stderr, stdout } = await shell("KSI export --json | (sleep 1; cat) | tail -n +1 | wc -l")
    expect([Number(stdout) >= many, stderr]).toEqual([true, ""])
  })
  it("exit codes leave the process, and piped output is plain", async () => {
    const { stderr, stdout } = await shell("KSI call app:add a=1 b=2; echo $?; KSI call app:refuse why=x 2>&1 >/dev/null; echo $?")
    expect(stderr).toBe("")
    expect(stdout).toBe("3\n0\n✗ DeclaredFailure  app:refuse failed: refused: x\n  error      Refused\n  why        x\n  next       ksi describe app:refuse\n1\n")
  })
  it("Ctrl-C is 130, and says nothing", async () => {
    const subscriber = home.spawn("subscribe", "app:noted", "--from", "start", "--json")
    const caller = home.spawn("call", "app:hang")
    await subscriber.says("first")
    expect(await subscriber.kill("SIGINT")).toMatchObject({ code: 130, stderr: "" })
    expect(await caller.kill("SIGINT")).toMatchObject({ stdout: "", stderr: "" })
  })
  it("subscribe goes on when the daemon is back; stop frees the home", async () => {
    const head = (JSON.parse((await run(["health", "--json"])).stdout) as { readonly position: number }).position
    const subscriber = home.spawn("subscribe", "app:noted", "--from", String(head + 1), "--limit", "2", "--json")
    await run(["emit", "app:noted", "text=before"])
    await subscriber.says("before")
    expect(await run(["stop", "--json"])).toMatchObject({ code: 0, stderr: "", stdout: expect.stringMatching(/^\{"status":"stopped"/) })
    expect(existsSync(home.socket)).toBe(false)
    await home.start("test/cli/app.ts")
    await run(["emit", "app:noted", "text=after"])
    const { code, stderr, stdout } = await subscriber.ended()
    expect([code, stderr]).toEqual([0, ""])
    expect(linesOf(stdout).map(({ data, position }) => [position, data])).toEqual([[head + 1, { text: "before" }], [head + 2, { text: "after" }]])
  })
  it("stop waits for modules that take their time: the next start finds the home free", async () => {
    await using other = new Home()
    for (let round = 0; round < 2; round++) {
      const daemon = await other.start("test/cli/slowly.ts")
      expect(await other.ksi("stop")).toEqual({ code: 0, stdout: "stopped\n", stderr: "stopping\n" })
      const ended = await Promise.race([daemon.ended(), new Promise<undefined>((resolve) => setTimeout(resolve, 250, undefined))])
      expect(ended?.code).toBe(0)
    }
  })
})
