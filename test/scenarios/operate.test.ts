// What the README says of operating the store: its commands are run as they stand there, beside a daemon that stores facts.
import { describe, expect, it } from "vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import { join } from "node:path"
import { ksi } from "../cli/commandLine.ts"
import { Home, root } from "./Daemon.ts"

const readme = Fs.readFileSync(join(root, "README.md"), "utf8")
const [, section = ""] = /\n## Operate the store\n([^]*?)\n## /.exec(readme) ?? []
const unit = (name: string): string => new RegExp(`\`\`\`ini\n(# /etc/systemd/system/${name}\n[^]*?)\`\`\``).exec(section)?.[1] ?? ""

const events = (from: number, count: number): string =>
  Array.from({ length: count }, (_, n) => `${JSON.stringify({ specversion: "1.0", id: `e${from + n}`, source: "/t", type: "a:b", subject: `s-${n % 7}`, data: { n } })}\n`).join("")

/** Runs a command in this process. */
const run = (home: Home, ...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path } }))

describe("the README", () => {
  it("has commands that do what it says", async () => {
    await using home = new Home()
    const file = join(home.path, "events.ndjson")
    const commands = [...section.matchAll(/^\$ ksi (.*?)(?: +#.*)?$/gm)].map(([, words = ""]) => words.split(" "))
    expect(commands.map(([name]) => name)).toEqual(["backup", "verify", "compact", "stop", "verify", "restore"])
    await home.start()
    Fs.writeFileSync(file, events(0, 500))
    expect((await run(home, "import", file)).code).toBe(0)
    const said: Array<string> = []
    for (const words of commands) {
      const ended = await run(home, ...words.map((word) => word.replace(/^var\//, `${home.path}/`)))
      expect([ended.code, words.join(" "), ended.stderr.replace(/^stopping\n/, "")]).toEqual([0, words.join(" "), ""])
      said.push(ended.stdout)
      // What came after the backup is gone after the restore.
      if (words[0] !== "backup") continue
      Fs.writeFileSync(file, events(500, 200))
      expect((await run(home, "import", file)).code).toBe(0)
    }
    expect(said[0]).toContain("backed up everything up to position 500")
    expect(said[1]).toContain("ksi.db is sound: format 3, 700 facts")
    expect(said[4]).toContain("monday.db is sound: format 3, 500 facts")
    const [, kept = ""] = /the store that was there is (.*)\n/.exec(said[5] ?? "") ?? []
    expect((await run(home, "verify", kept)).stdout).toContain("700 facts")
    await home.start()
    expect((await run(home, "restore", join(home.path, "monday.db")))).toMatchObject({ code: 5, stdout: "", stderr: expect.stringMatching(/^✗ StoreLocked .*\n +next +ksi stop/) })
    expect((await run(home, "export")).stdout.trimEnd().split("\n")).toHaveLength(500)
  }, 60_000)

  it("has a unit that makes a backup, and a timer for it", async () => {
    await using home = new Home()
    await home.start()
    const [, line = ""] = /^ExecStart=\/bin\/sh -c '(.*)'$/m.exec(unit("ksi-backup.service")) ?? []
    const path = `${join(process.execPath, "..")}:${process.env["PATH"]}`
    // As systemd does: its own percent sign is written twice.
    const command = line.replaceAll("%%", "%").replace("node_modules/.bin/node", process.execPath)
    const made = spawnSync("/bin/sh", ["-c", command], { cwd: root, env: { KSI_HOME: home.path, PATH: path }, encoding: "utf8" })
    expect([made.status, made.stderr, made.stdout]).toEqual([0, "", expect.stringMatching(/backed up a store without facts to .*backup-[1-7]\.db/)])
    expect(unit("ksi-backup.timer")).toContain("OnCalendar=")
    const canVerify = spawnSync("systemd-analyze", ["--version"]).status === 0
    if (canVerify) expect(spawnSync("systemd-analyze", ["calendar", "daily"]).status).toBe(0)
  }, 60_000)
})
