// How much of a stream is kept, at the command line of a real daemon: as the README says it, applied while the daemon runs, and
// still set when it starts again.
import { Effect } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { ksi } from "../cli/commandLine.ts"
import { Home, root } from "./Daemon.ts"

const [, section = ""] = /\n## Keep less\n([^]*?)\n## /.exec(readFileSync(join(root, "README.md"), "utf8")) ?? []
const [, session = ""] = /```\n([^]*?)```/.exec(section) ?? []
const said = session.split(/^\$ ksi /m).slice(1).map((text) => {
  const at = text.indexOf("\n")
  return [text.slice(0, at), text.slice(at + 1)] as const
})

const run = (home: Home, ...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path } }))
const fill = (home: Home, stream: string, count: number) => {
  const file = join(home.path, "facts.ndjson")
  writeFileSync(file, Array.from({ length: count }, (_, n) =>
    `${JSON.stringify({ specversion: "1.0", id: `${stream}-${n}`, source: "/t", type: "sensor:measured", subject: stream, data: { n } })}\n`).join(""))
  return run(home, "import", file)
}
const infoOf = async (home: Home, stream: string): Promise<unknown> => JSON.parse((await run(home, "stream-info", stream, "--json")).stdout)
/** Asks until the daemon has applied what is set. */
const until = async (home: Home, stream: string, count: number): Promise<void> => {
  while ((await infoOf(home, stream) as { readonly count: number }).count !== count) { /* retention is applied on its own */ }
}
const versionsOf = async (home: Home, stream: string) =>
  (await run(home, "stream-log", stream, "--json")).stdout.split("\n").filter((line) => line !== "")
    .map((line) => (JSON.parse(line) as { readonly version: number }).version)

describe("the README", () => {
  it("has commands that say what it says", async () => {
    await using home = new Home()
    await home.start()
    await fill(home, "sensor-1", 3)
    expect(said.map(([command]) => command.split(" ")[0])).toEqual(["stream-keep", "stream-info", "stream-keep", "stream-delete"])
    for (const [command, output] of said) {
      expect([command, await run(home, ...command.split(" "))]).toEqual([command, { code: 0, stdout: output, stderr: "" }])
    }
    const [tombstone = "", ...others] = (await run(home, "stream-log", "sensor-1", "--json")).stdout.trimEnd().split("\n")
    expect(others).toEqual([])
    expect(JSON.parse(tombstone)).toMatchObject({ type: "store:stream_deleted", version: 4, data: { reason: "replaced" } })
  })
})

describe("a daemon", () => {
  it("removes what is not kept any more, and its settings outlive it", async () => {
    await using home = new Home()
    const daemon = await home.start("--retain", "1 second")
    await fill(home, "a", 6)
    await fill(home, "b", 3)
    expect((await run(home, "stream-keep", "a", "--max-count", "2", "--metadata", "{\"by\":\"ann\"}", "--json")).stdout)
      .toBe("{\"streamId\":\"a\",\"settings\":{\"maxCount\":2,\"metadata\":{\"by\":\"ann\"}}}\n")
    await until(home, "a", 2)
    expect(await versionsOf(home, "a")).toEqual([5, 6])
    expect(await versionsOf(home, "b")).toEqual([1, 2, 3])
    const exported = (await run(home, "export")).stdout.trimEnd().split("\n").map((line) => (JSON.parse(line) as { readonly id: string }).id)
    expect(exported).toEqual(["a-4", "a-5", "b-0", "b-1", "b-2"])
    await daemon.kill("SIGTERM")

    await home.start("--retain", "1 second")
    const settings = { maxCount: 2, metadata: { by: "ann" } }
    expect(await infoOf(home, "a")).toEqual({ streamId: "a", version: 6, firstVersion: 5, count: 2, isDeleted: false, settings })
    await fill(home, "a", 9)
    await until(home, "a", 2)
    // 2 of the nine were there, the others are new again: their ids were not known any more.
    expect(await versionsOf(home, "a")).toEqual([12, 13])
    // Limits are said anew as a whole, what is noted stays; a fact that is old enough goes whatever else holds.
    expect((await run(home, "stream-keep", "a", "--max-age", "1s")).stdout).toBe("a:\nkeeps a fact for 1 second after it was stored\nnotes {\"by\":\"ann\"}\n")
    await until(home, "a", 0)
    expect((await run(home, "stream-info", "a")).stdout).toMatch(/^a: version 13, no facts\n/)
    expect((await run(home, "stream-keep", "a", "--metadata", "{}")).stdout).toBe("a:\nkeeps a fact for 1 second after it was stored\n")
  }, 30_000)

  it("refuses what cannot be undone until it is forced, and says what is not there", async () => {
    await using home = new Home()
    await home.start()
    await fill(home, "order-1", 7)
    const refused = "✗ Usage  7 facts of order-1 would be gone for good, and it would take no fact any more; say --force to delete it\n" +
      "  next       ksi stream-delete order-1 --force\n"
    expect(await run(home, "stream-delete", "order-1")).toEqual({ code: 2, stdout: "", stderr: refused })
    expect(await versionsOf(home, "order-1")).toHaveLength(7)
    expect(await run(home, "stream-delete", "order-1", "--force", "--expected-version", "6")).toMatchObject({ code: 6, stdout: "", stderr: expect.stringContaining("VersionConflict") })
    expect(await run(home, "stream-keep", "order-2", "--max-count", "5")).toEqual({
      code: 0, stdout: "order-2:\nkeeps the newest 5 facts\n", stderr: "there is no stream \"order-2\" yet; nearest: order-1\n"
    })
    expect(await run(home, "stream-keep", "order-1", "--max-count", "0")).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("PayloadInvalid") })
    for (const command of [["stream-info"], ["stream-delete"], ["stream-delete", "--force"]]) {
      const [name = "", ...flags] = command
      expect(await run(home, name, "order-9", ...flags)).toMatchObject({ code: 3, stdout: "", stderr: expect.stringMatching(/nearest +order-1\n/) })
    }
    expect((await run(home, "stream-delete", "order-1", "--force", "--json")).stdout).toBe("{\"streamId\":\"order-1\",\"already\":false,\"version\":8}\n")
    expect((await run(home, "stream-delete", "order-1")).stdout).toBe("order-1 was deleted before; its tombstone is version 8\n")
    expect((await run(home, "stream-info", "order-1")).stdout).toBe("order-1: version 8, deleted: what is left is its tombstone\n")
    expect(await run(home, "stream-keep", "order-1", "--max-count", "5")).toMatchObject({ code: 6, stdout: "", stderr: expect.stringContaining("StreamDeleted") })
    expect(await run(home, "stream-delete", "ksi-grants", "--force")).toMatchObject({ code: 2, stdout: "" })
  })
})
