// The daemon is killed in the middle of an import, twice; the import is repeated each time. Every event is there exactly
// once, positions have no gaps, and their order is that of the lines.
import { expect, it } from "vitest"
import { existsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { gzipSync } from "node:zlib"
import { Home, root, type Running } from "./Daemon.ts"

const lines = 30_000
const event = (n: number) => ({
  specversion: "1.0", id: `e${n}`, source: "/crash", type: "order:placed", subject: `order-${n % 500}`,
  data: { n, note: "x".repeat(80) }
})
/** Feeds the lines into an import; the last thousand only after `killed`, so that it is not through before. */
const feed = async ({ child: { stdin } }: Running, killed: Promise<unknown>) => {
  // It may be gone while it is still being fed.
  stdin?.on("error", () => {})
  const write = (from: number, to: number) => stdin?.write(Array.from({ length: to - from }, (_, i) => `${JSON.stringify(event(from + i))}\n`).join(""))
  for (let n = 0; n < lines - 1000; n += 500) {
    write(n, n + 500)
    await setTimeout(5)
  }
  await killed
  write(lines - 1000, lines)
  stdin?.end()
}
const exportedBy = async (home: Home) => {
  const { code, stdout } = await home.ksi("export")
  expect(code).toBe(0)
  return stdout === "" ? [] : stdout.trimEnd().split("\n").map((line) => JSON.parse(line) as { readonly id: string; readonly position: number })
}

it("kill -9 in mid-import loses nothing and doubles nothing", async () => {
  await using home = new Home()
  const file = join(home.path, "events.ndjson.gz")
  writeFileSync(file, gzipSync(Array.from({ length: lines }, (_, n) => `${JSON.stringify(event(n))}\n`).join("")))

  let daemon = await home.start()
  for (const killAt of [3000, 9000]) {
    const watcher = home.spawn("subscribe", "*", "--from", "start", "--limit", String(killAt), "--json")
    const importer = home.spawn("import", "-")
    const fed = feed(importer, watcher.ended())
    expect((await watcher.ended()).code).toBe(0)
    await daemon.kill("SIGKILL")
    await fed
    const { code, stderr, stdout } = await importer.ended()
    expect([code, stdout]).toEqual([5, ""])
    expect(stderr).toContain("✗ ConnectionLost")
    // Nothing is said where nothing new was stored yet.
    const acknowledged = Number(/stopped after ([\d,]+) events; import again/.exec(stderr)?.[1]?.replaceAll(",", "") ?? 0)

    daemon = await home.start()
    const kept = await exportedBy(home)
    expect(kept.length).toBeGreaterThanOrEqual(Math.max(acknowledged, killAt))
    expect(kept.length).toBeLessThan(lines)
    expect(kept.map(({ position }) => position)).toEqual(kept.map((_, i) => i + 1))
    expect(kept.map(({ id }) => id)).toEqual(kept.map((_, n) => `e${n}`))
  }

  const last = await home.ksi("import", file, "--json")
  expect(last).toMatchObject({ code: 0, stderr: "" })
  const { duplicates, imported } = JSON.parse(last.stdout) as { readonly duplicates: number; readonly imported: number }
  expect(imported).toBeGreaterThan(0)
  expect(imported + duplicates).toBe(lines)
  const all = await exportedBy(home)
  expect(all.map(({ id, position }) => [id, position])).toEqual(Array.from({ length: lines }, (_, n) => [`e${n}`, n + 1]))
})

const data = join(root, "..", "shared", "data", "domestic-declarations.ndjson.gz")
const present = existsSync(data)
if (!present) process.stdout.write("the import of real declarations is skipped: their file is not beside this checkout\n")

it.runIf(present)("real declarations come in once, packed as they are", async () => {
  await using home = new Home()
  await home.start()
  const first = await home.ksi("import", data, "--json")
  expect(first).toMatchObject({ code: 0, stderr: "" })
  expect(JSON.parse(first.stdout)).toMatchObject({ imported: 55_628, duplicates: 0, rejected: 0 })
  const again = await home.ksi("import", data)
  expect(again.stdout).toMatch(/^nothing new, 55,628 events there already in /)
  const seen = await home.ksi("time", "at", "2018-03-15T12:00:00Z", "--json")
  expect(seen.code).toBe(0)
  expect(Object.keys(JSON.parse(seen.stdout.split("\n")[0] ?? "") as object)).toEqual([
    "streamId", "version", "lastEvent", "lastEventId", "timestamp", "state"
  ])
})
