// HTTP of a real daemon: where it is, who the owner is, what becomes of it when its port is taken or it is told to stop.
import { describe, expect, it } from "vitest"
import { once } from "node:events"
import { existsSync, readFileSync, statSync } from "node:fs"
import { connect, type Socket } from "node:net"
import { join } from "node:path"
import { Home, root, Running } from "./Daemon.ts"

const urlIn = (stdout: string): string => /http:\/\/[\d.:]+/.exec(stdout)?.[0] ?? expect.fail(`no URL in ${stdout}`)
const json = { "content-type": "application/json" }

/** A body as it is read here: anything may be in it. */
// oxlint-disable-next-line typescript/no-explicit-any
const bodyOf = async (response: Response): Promise<any> => response.json()

const shop = join(root, "scratchpad", "examples", "05_service.ts")

/** A connection to an URL's port, by hand. */
const open = async (url: string): Promise<Socket> => {
  const socket = connect({ port: Number(new URL(url).port), host: "127.0.0.1", allowHalfOpen: true }).on("error", () => {})
  await once(socket, "connect")
  return socket
}
const head = (url: string, line: string, ...headers: ReadonlyArray<string>) => [`${line} HTTP/1.1`, `Host: ${new URL(url).host}`, ...headers, "", ""].join("\r\n")
const ordered = (url: string, sku: string) => {
  const body = JSON.stringify({ sku, quantity: 1 })
  return head(url, "POST /events/shop:ordered", "Content-Type: application/json", `Content-Length: ${body.length}`) + body
}
const said = async (socket: Socket): Promise<string> => {
  let text = ""
  for await (const chunk of socket.setEncoding("utf8")) text += String(chunk)
  return text
}

describe("HTTP of a daemon", () => {
  it("says where it is; the token beside the socket makes its bearer the owner, and is gone with the daemon", async () => {
    await using home = new Home()
    const daemon = await home.start("--port", "0")
    const url = urlIn(daemon.stdout)
    const file = join(home.path, "run", "http.token")
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(JSON.parse((await home.ksi("status", "--json")).stdout)).toMatchObject({ url })
    expect((await fetch(`${url}/health/ready`)).status).toBe(200)
    expect((await fetch(`${url}/events/system:shutdown`, { method: "POST", headers: json, body: "{}" })).status).toBe(401)
    expect(existsSync(file)).toBe(true)
    const authorization = `Bearer ${readFileSync(file, "utf8").trim()}`
    const stopped = await fetch(`${url}/events/system:shutdown`, { method: "POST", headers: { ...json, authorization }, body: "{}" })
    expect([stopped.status, await bodyOf(stopped)]).toEqual([200, { status: "shutting_down" }])
    expect((await daemon.ended()).code).toBe(0)
    expect(existsSync(file)).toBe(false)
  })

  it("a port that is taken is named; the daemon that has it goes on, and the other leaves nothing reachable behind", async () => {
    await using home = new Home()
    await using other = new Home()
    const url = urlIn((await home.start("--port", "0")).stdout)
    const { code, stderr, stdout } = await other.ksi("start", "--port", new URL(url).port)
    expect([code, stdout]).toEqual([5, ""])
    expect(stderr).toContain(`✗ ListenFailed  cannot listen at ${url}: the port is in use`)
    expect(stderr).toContain("next       ksi start --port <another port>")
    expect(existsSync(other.socket)).toBe(false)
    expect((await fetch(`${url}/health/live`)).status).toBe(200)
    // The store is not held any more.
    const again = await other.start("--port", "0")
    expect(urlIn(again.stdout)).not.toBe(url)
  })

  it("what Kubernetes puts into KSI_PORT is ignored with a warning, and off is no HTTP", async () => {
    await using home = new Home()
    const started = new Running(["start", "--store", "memory", "--port", "0"], { KSI_HOME: home.path, KSI_PORT: "tcp://10.0.0.1:4600" })
    await started.says("ksi is ready")
    await started.tells("KSI_PORT is ignored: Kubernetes sets it for a service of this name")
    urlIn(started.stdout)
    await started.kill("SIGTERM")
    await using silent = new Home()
    const daemon = await silent.start("--port", "off")
    expect(daemon.stdout).not.toContain("http")
    expect(existsSync(join(silent.path, "run", "http.token"))).toBe(false)
  })

  it("lets a request end that runs when it is told to stop, and tells nobody else anything", async () => {
    await using home = new Home()
    const daemon = await home.start("--port", "0", "test/scenarios/fixtures/slow.ts")
    const url = urlIn(daemon.stdout)
    const asked = fetch(`${url}/events/slow:answer`, { method: "POST", headers: json, body: "{}" })
    await daemon.tells("it has begun")
    daemon.child.kill("SIGTERM")
    await daemon.tells("stopping")
    await expect(fetch(`${url}/health/live`)).rejects.toThrow()
    const answered = await asked
    expect([answered.status, await bodyOf(answered)]).toEqual([200, "done"])
    expect((await daemon.ended()).code).toBe(0)
  })

  it("who sends no more gets the places of its facts; who goes away leaves each stored as a whole, or not at all", async () => {
    await using home = new Home()
    const url = urlIn((await home.start("--port", "0", shop)).stdout)
    const half = await open(url)
    half.end(ordered(url, "half") + ordered(url, "half"))
    // An interim response may come first.
    expect((await said(half)).match(/HTTP\/1\.1 [2-9]\d\d/g)).toEqual(["HTTP/1.1 201", "HTTP/1.1 201"])
    const gone = await Promise.all(Array.from({ length: 40 }, () => open(url)))
    for (const [n, socket] of gone.entries()) socket.write(ordered(url, `gone-${n}`), () => socket.destroy())
    const last = await fetch(`${url}/events/shop:ordered`, { method: "POST", headers: json, body: "{\"sku\":\"last\",\"quantity\":1}" })
    const { position } = await bodyOf(last)
    const { stdout } = await home.ksi("export", "--json")
    const facts = stdout.trim().split("\n").map((line) => JSON.parse(line) as { position: number; version: number; data: object })
    expect(facts.map(({ position }) => position)).toEqual(facts.map((_, n) => n + 1))
    expect(facts.length).toBeGreaterThanOrEqual(position)
    expect(facts.every(({ data, version }) => version > 0 && Object.keys(data).length === 2)).toBe(true)
  })

  it("is gone at once, whoever is connected and silent: kept alive, following, a WebSocket; its port is free for the next", async () => {
    await using home = new Home()
    await using next = new Home()
    const daemon = await home.start("--port", "0", "--drain", "20 seconds")
    const url = urlIn(daemon.stdout)
    const requests = [
      head(url, "GET /health/live"),
      head(url, "GET /subscribe?requests=true"),
      head(url, "GET /ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
      "GET /heal"
    ]
    const sockets = await Promise.all(requests.map(() => open(url)))
    for (const [n, socket] of sockets.entries()) socket.write(requests[n] ?? "")
    await Promise.all(sockets.slice(0, 3).map((socket) => once(socket, "data")))
    const began = performance.now()
    daemon.child.kill("SIGTERM")
    await daemon.tells("stopping")
    const again = await next.start("--port", new URL(url).port)
    expect(urlIn(again.stdout)).toBe(url)
    expect((await daemon.ended()).code).toBe(0)
    expect(performance.now() - began).toBeLessThan(10_000)
    for (const socket of sockets) socket.destroy()
  })

  it("goes on after a fact that is not kept any more with those that are, also where it was the last", async () => {
    await using home = new Home()
    const daemon = await home.start("--port", "0", shop)
    let url = urlIn(daemon.stdout)
    const orders = async (sku: string, count: number) => {
      for (let n = 0; n < count; n++) {
        expect((await fetch(`${url}/events/shop:ordered`, { method: "POST", headers: json, body: JSON.stringify({ sku, quantity: n + 1 }) })).status).toBe(201)
      }
    }
    /** The places that are told first to one that heard this last. */
    const after = async (last: number, count: number): Promise<ReadonlyArray<number>> => {
      const aborting = new AbortController()
      const following = await fetch(`${url}/subscribe?pattern=shop:*`, { headers: { "last-event-id": String(last) }, signal: aborting.signal })
      expect(following.status).toBe(200)
      let text = ""
      const decoder = new TextDecoder()
      const ids = () => text.match(/(?<=^id: )\d+(?=\ndata)/gm)?.map(Number) ?? []
      for await (const chunk of following.body ?? []) {
        text += decoder.decode(chunk, { stream: true })
        if (ids().length >= count) break
      }
      aborting.abort()
      return ids()
    }
    await orders("tea", 6)
    expect(await after(2, 4)).toEqual([3, 4, 5, 6])
    expect((await home.ksi("stream-keep", "shop-tea", "--truncate-before", "5")).code).toBe(0)
    expect((await home.ksi("compact")).code).toBe(0)
    expect(await after(2, 2)).toEqual([5, 6])
    // Nothing is left of it, and the next daemon still knows where it was.
    expect((await home.ksi("stream-keep", "shop-tea", "--truncate-before", "7")).code).toBe(0)
    expect((await home.ksi("compact")).code).toBe(0)
    await daemon.kill("SIGTERM")
    url = urlIn((await home.start("--port", "0", shop)).stdout)
    await orders("rum", 1)
    const [next = 0] = await after(6, 1)
    expect(next).toBeGreaterThan(6)
    const beyond = await fetch(`${url}/subscribe`, { headers: { "last-event-id": String(next + 1) } })
    expect([beyond.status, (await bodyOf(beyond)).details.problems]).toEqual([400, [{ path: "Last-Event-ID", problem: expect.stringContaining(`the store ends at position ${next}`) }]])
  })

  it("shares its bounds with the socket: long lines that come in by the one leave no room in the other", async () => {
    await using home = new Home()
    const daemon = await home.start("--port", "0", "--limit-incoming-bytes", "32 KiB")
    const long = (length: number) => `{"event":"system:discover","data":{"module":"${"x".repeat(length)}"},"correlation_id":"long"}`
    const frames: Array<unknown> = []
    const webSocket = new WebSocket(`${urlIn(daemon.stdout).replace("http", "ws")}/ws`)
    webSocket.addEventListener("message", ({ data }) => frames.push(JSON.parse(String(data))))
    await once(webSocket, "open")
    const answer = async (text: string) => {
      webSocket.send(text)
      await once(webSocket, "message")
      return frames.at(-1)
    }
    expect(await answer(long(20_000))).toMatchObject({ ok: true, correlation_id: "long" })
    const socket = connect(home.socket)
    await once(socket, "connect")
    socket.write(`{"event":"wire:hello","version":1}\n${long(20_000).slice(0, -10)}`)
    // It has been read when the line before it is answered: both come in one write.
    await once(socket, "data")
    expect(await answer(long(20_000))).toMatchObject({ ok: false, correlation_id: "long", data: { reason: "LimitExceeded", details: { limit: "incomingBytes" } } })
    expect(await answer("{\"event\":\"system:health\"}")).toMatchObject({ ok: true })
    socket.destroy()
    webSocket.close()
  })
})
