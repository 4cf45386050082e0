// Programs beside a real daemon that work for its consumer groups: killed, restarted, and in another language.
import { afterAll, describe, expect, it } from "vitest"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Home, root } from "./Daemon.ts"

const folder = mkdtempSync(join(tmpdir(), "ksi-workers-"))
const running: Array<ChildProcess> = []
afterAll(() => {
  for (const child of running) child.kill("SIGKILL")
  rmSync(folder, { recursive: true })
})

/** A program that has said that it works. */
const begin = async (command: string, ...args: ReadonlyArray<string>): Promise<ChildProcess> => {
  const child = spawn(command, args, {
    cwd: root, stdio: ["ignore", "pipe", "inherit"],
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], NODE_COMPILE_CACHE: join(root, "node_modules", ".cache", "ksi") }
  })
  running.push(child)
  await once(child.stdout, "data")
  return child
}
const node = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source"]

const ask = async (home: Home, event: string, data: object) => {
  const [reply] = await home.frames({ event, data })
  expect(reply, event).toMatchObject({ ok: true })
  return reply?.["data"] as { readonly [key: string]: unknown }
}

let ids = 0
/** So many facts of ten streams. */
const say = (home: Home, count: number) =>
  ask(home, "store:import", {
    events: Array.from({ length: count }, () => ({ specversion: "1.0", id: `${++ids}`, source: "/test", type: "t:said", subject: `s-${ids % 10}`, data: { n: ids } }))
  })

describe("workers in processes of their own", () => {
  it("one is killed, the daemon starts anew: every fact is handled, each stream in its order", async () => {
    await using home = new Home()
    const told = join(folder, "told")
    writeFileSync(told, "")
    const lines = () => readFileSync(told, "utf8").split("\n").slice(0, -1).map((line) => line.split(" "))
    const until = async (condition: () => boolean) => {
      while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
    }
    const daemon = await home.start()
    const [one, two] = await Promise.all([1, 2].map(() => begin(process.execPath, ...node, join(import.meta.dirname, "fixtures", "worker.ts"), home.socket, told, "3")))
    // When both are there: one alone may be done before the other has started.
    await say(home, 200)
    const hadSome = (child: ChildProcess | undefined) => lines().some(([pid]) => pid === String(child?.pid))
    await until(() => hadSome(one) && hadSome(two))
    one?.kill("SIGKILL")
    const before = lines().length
    await say(home, 100)
    await until(() => lines().length > before + 20)
    // What the other has is reported before the daemon goes: it need not be handled again.
    const stopping = performance.now()
    expect(await daemon.kill("SIGTERM")).toMatchObject({ code: 0 })
    expect(performance.now() - stopping).toBeLessThan(5000)
    await home.start()
    await say(home, 50)
    await until(() => new Set(lines().map(([, position]) => position)).size === 350)
    await ask(home, "consumer:settled", { group: "counting" })
    expect((await ask(home, "consumer:list", {}))["items"]).toMatchObject([{ group: "counting", status: "following", position: 350, lag: 0, parked: 0, members: 4 }])
    const all = lines()
    expect(all.length - 350, "handled again").toBeLessThanOrEqual(4)
    for (let stream = 0; stream < 10; stream++) {
      const first = [...new Set(all.filter(([, , id]) => id === `s-${stream}`).map(([, position]) => Number(position)))]
      expect(first).toHaveLength(35)
      expect(first).toEqual(first.toSorted((a, b) => a - b))
    }
  }, 60_000)
})

// Nothing but the standard library, and the frames as the README shows them.
const python = `
import json, socket, sys
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(sys.argv[1])

def send(frame):
    daemon.sendall(json.dumps(frame).encode() + b"\\n")

send({"event": "consumer:work", "stream": True, "stream_id": "w", "data": {
    "group": "printing", "events": ["t:*"], "start": "start", "concurrency": 2, "maxAttempts": 2, "retry": {"firstMillis": 1, "mostMillis": 1}}})
for line in daemon.makefile():
    frame = json.loads(line)
    fact = frame.get("data", {})
    if frame.get("stream_id") != "w":
        assert frame["ok"], frame
    elif fact.get("kind") == "begun":
        print("works", flush=True)
    elif fact.get("kind") == "fact":
        broken = fact["data"]["n"] == int(sys.argv[3]) and fact["attempt"] < 4
        with open(sys.argv[2], "a") as told:
            told.write("%s %s %s %s\\n" % (fact["position"], fact["streamId"], fact["attempt"], "fails" if broken else "done"))
        send({"event": "consumer:done", "data": {"ticket": fact["ticket"], **({"error": "no paper"} if broken else {})}})
    else:
        sys.exit(json.dumps(frame))
`

const hasPython = spawnSync("python3", ["--version"]).status === 0
if (!hasPython) console.log("python3 is not installed here: a worker in Python is not tried")

it.skipIf(!hasPython)("a worker in Python, with plain frames: handles facts, reports failures until one is parked, and gets it again", async () => {
  await using home = new Home()
  const [script, told] = [join(folder, "worker.py"), join(folder, "python")]
  writeFileSync(script, python)
  await home.start()
  await say(home, 20)
  const worker = await begin("python3", script, home.socket, told, String(ids - 9))
  await ask(home, "consumer:settled", { group: "printing" })
  expect((await ask(home, "consumer:parked", { group: "printing" }))["items"]).toMatchObject([
    { position: 11, attempts: 2, error: "no paper" }
  ])
  await say(home, 10)
  await ask(home, "consumer:settled", { group: "printing" })
  expect((await ask(home, "consumer:parked", { group: "printing" }))["items"]).toMatchObject([{ position: 11, attempts: 2 }, { position: 21, attempts: 0 }])
  expect(await ask(home, "consumer:retry", { group: "printing" })).toMatchObject({ handled: 2, parked: 0 })
  const lines = readFileSync(told, "utf8").trimEnd().split("\n").map((line) => line.split(" "))
  expect(lines.filter(([position]) => position === "11" || position === "21").map((line) => line.join(" "))).toEqual([
    `11 s-${(ids - 19) % 10} 1 fails`, `11 s-${(ids - 19) % 10} 2 fails`, `11 s-${(ids - 19) % 10} 3 fails`, `11 s-${(ids - 19) % 10} 4 done`, `21 s-${(ids - 19) % 10} 1 done`
  ])
  expect(new Set(lines.map(([position]) => position)).size).toBe(30)
  worker.kill("SIGKILL")
  expect(existsSync(home.socket)).toBe(true)
}, 30_000)
