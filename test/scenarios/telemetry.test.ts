// A daemon as a process of its own and a collector that it tells: traces, logs and metrics of what goes over its socket; and
// a collector that is away, hangs or answers nonsense, which must be nobody's harm.
import { describe, expect, it, onTestFinished } from "vitest"
import { createServer } from "node:net"
import { once } from "node:events"
import type { AddressInfo } from "node:net"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Answer, Collector, plain, type Span } from "../server/Collector.ts"
import { Home, Running } from "./Daemon.ts"

const shop = "test/scenarios/fixtures/traced.ts"
const parentId = "00f067aa0ba902b7"
const traceOf = (n: number) => String(n).padStart(32, "a")
const traceparent = (n: number, flags = "01") => `00-${traceOf(n)}-${parentId}-${flags}`
const kinds = ["unspecified", "internal", "server", "client", "producer", "consumer"]

const start = (home: Home, url: string, ...more: ReadonlyArray<string>) =>
  home.start("--otlp", url, "--service-name", "tea-shop", ...more, shop)

/** A span with the names of those above it, and what it says. */
const treeOf = (spans: ReadonlyArray<Span>, n: number) => {
  const own = spans.filter(({ traceId }) => traceId === traceOf(n))
  const nameOf = (id: string | undefined) => own.find(({ spanId }) => spanId === id)?.name ?? id
  return Object.fromEntries(own.map(({ attributes, kind, name, parentSpanId }) => {
    const said = plain(attributes)
    return [name, [kinds[kind], nameOf(parentSpanId), said["ksi.outcome"], ...(said["error.type"] === undefined ? [] : [said["error.type"]])]]
  }))
}

describe("a collector", () => {
  it("gets one tree for each request, lines that belong to it, the figures; and nothing of what was said", async () => {
    await using home = new Home()
    await using to = await Collector.start()
    const headers = join(home.path, "headers")
    writeFileSync(headers, "x-key=s3cret\n")
    const daemon = await start(home, to.url, "--otlp-headers-file", headers, "--resource-attributes", "service.namespace=shops")
    const ask = (n: number, event: string, sku: string, flags?: string) => ({ event, data: { sku }, traceparent: traceparent(n, flags) })
    await home.frames(ask(1, "shop:order", "my-tea"), ask(2, "shop:order", "no-tea"), ask(3, "shop:break", "my-tea"),
      ask(4, "shop:order", "glass"), ask(5, "shop:order", "my-tea", "00"), { event: "shop:nobody" })
    const env = { KSI_HOME: home.path, TRACEPARENT: traceparent(6) }
    expect((await new Running(["call", "shop:order", "sku=my-tea"], env).ended()).code).toBe(0)
    const { code, stderr } = await daemon.kill("SIGTERM")
    expect(code).toBe(0)

    const whole = {
      "shop:order": ["server", parentId, "success"],
      "shop:reserve": ["internal", "shop:order", "success"],
      "shop:ordered": ["producer", "shop:order", "success"],
      "process shop:ordered": ["consumer", "shop:ordered", "success"],
      "shop:ship": ["internal", "process shop:ordered", "success"]
    }
    expect(treeOf(to.spans, 1)).toEqual(whole)
    expect(treeOf(to.spans, 2)).toEqual({
      "shop:order": ["server", parentId, "failure", "SoldOut"], "shop:reserve": ["internal", "shop:order", "failure", "SoldOut"]
    })
    expect(treeOf(to.spans, 3)).toEqual({ "shop:break": ["server", parentId, "defect", "RangeError"] })
    expect(treeOf(to.spans, 4)).toEqual({ ...whole, "process shop:ordered": ["consumer", "shop:ordered", "failure", "SoldOut"] })
    expect(treeOf(to.spans, 5)).toEqual({})
    expect(treeOf(to.spans, 6)).toMatchObject(whole)

    const order = to.spans.find(({ name, traceId }) => name === "shop:order" && traceId === traceOf(1))
    const said = plain(order?.attributes ?? [])
    expect(said).toMatchObject({ "ksi.event": "shop:order", "ksi.principal": "owner", "rpc.method": "shop:order", "ksi.id": said["ksi.correlation_id"] })
    const line = to.lines.find(({ body, spanId }) => body.stringValue === "ordering" && spanId === order?.spanId)
    expect(line?.traceId).toBe(traceOf(1))
    expect(plain(line?.attributes ?? [])).toMatchObject({ event: "shop:order", id: said["ksi.id"], correlationId: said["ksi.correlation_id"] })
    const died = to.lines.find(({ body }) => JSON.stringify(body).includes("died"))
    expect([died?.traceId, died?.severityText]).toEqual([traceOf(3), "Error"])

    const logged = stderr.trimEnd().split("\n").map((text) => JSON.parse(text) as { readonly message: string; readonly annotations: Record<string, string> })
    expect(logged.find(({ annotations, message }) => message === "ordering" && annotations["span_id"] === order?.spanId)?.annotations)
      .toEqual({ event: "shop:order", id: said["ksi.id"], correlationId: said["ksi.correlation_id"], trace_id: traceOf(1), span_id: order?.spanId })

    const points = to.metrics.find(({ name }) => name === "ksi_requests_total")?.sum?.dataPoints.map(({ asDouble, attributes }) => [plain(attributes), asDouble])
    expect(points).toContainEqual([{ event: "shop:order", outcome: "success" }, 4])
    expect(points).toContainEqual([{ event: "shop:order", outcome: "failure" }, 1])
    expect(points).toContainEqual([{ event: "other", outcome: "failure" }, 1])
    expect(to.metrics.map(({ name }) => name)).toEqual(expect.arrayContaining(["ksi_request_duration_seconds", "ksi_facts_total", "ksi_store_position", "ksi_dead_letters_total"]))

    expect(to.received.every((each) => each.headers["x-key"] === "s3cret")).toBe(true)
    for (const { text } of to.received) {
      expect(text).toContain("tea-shop")
      expect(text).toContain("service.namespace")
      for (const hidden of ["my-tea", "no-tea", "glass", "s3cret"]) expect(text).not.toContain(hidden)
    }
  })

  const answers: ReadonlyArray<readonly [how: string, answer: Answer | undefined, mostMillis: number]> = [
    ["is not there", undefined, 6000],
    ["never answers", () => {}, 9000],
    ["answers 500", (_, response) => void response.writeHead(500).end("no"), 6000],
    ["answers nonsense", (_, response) => void response.writeHead(200).end("\0\0\0"), 6000]
  ]
  it.concurrent.for(answers)("that %s harms nobody: the daemon serves, tells it at most once, and stops in time", async ([how, answer, mostMillis], { expect }) => {
    await using home = new Home()
    await using to = await Collector.start()
    if (answer !== undefined) to.answer = answer
    const closed = createServer().listen(0, "127.0.0.1")
    await once(closed, "listening")
    const { port } = closed.address() as AddressInfo
    closed.close()
    const daemon = await start(home, answer === undefined ? `http://127.0.0.1:${port}` : to.url)
    const replies = await home.frames(...Array.from({ length: 400 }, () => ({ event: "shop:reserve", data: { sku: "tea" } })))
    expect(replies.every(({ ok }) => ok === true)).toBe(true)
    const before = performance.now()
    const { code, stderr } = await daemon.kill("SIGTERM")
    expect([code, performance.now() - before < mostMillis]).toEqual([0, true])
    expect(stderr.match(/telemetry does not reach/g)?.length ?? 0).toBe(how === "answers nonsense" ? 0 : 1)
    expect(to.most).toBeLessThanOrEqual(8)
  })
})

describe("without one", () => {
  const loads = "import{registerHooks}from'node:module';registerHooks({load:(url,context,next)=>(process._rawDebug(url),next(url,context))})"

  it("nothing of it is loaded, and a line says which event it is of all the same", async () => {
    await using home = new Home()
    const env = { KSI_HOME: home.path, NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(loads)}` }
    const start = async (...args: ReadonlyArray<string>) => {
      const daemon = new Running(["start", ...args, shop], env)
      onTestFinished(async () => void (await daemon.kill("SIGKILL")))
      await daemon.says("ksi is ready")
      return daemon
    }
    const isOf = (text: string) => /\/observability\/|\/http\/HttpClient|server\/Telemetry/.test(text)
    const on = await (await start("--otlp", "http://127.0.0.1:9")).kill("SIGTERM")
    expect(isOf(on.stderr)).toBe(true)
    const daemon = await start()
    expect((await home.ksi("call", "shop:order", "sku=tea")).code).toBe(0)
    const { stderr } = await daemon.kill("SIGTERM")
    expect(isOf(stderr)).toBe(false)
    const line = stderr.split("\n").find((text) => text.includes("\"ordering\"")) ?? "{}"
    const { annotations } = JSON.parse(line) as { readonly annotations: Record<string, string> }
    expect(Object.keys(annotations)).toEqual(["event", "id", "correlationId"])
  })
})
