// What the README says of leaving the daemon running: the unit is one for systemd, and what the Dockerfile runs does run.
import { beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { root } from "./Daemon.ts"

const readme = Fs.readFileSync(join(root, "README.md"), "utf8")
const block = (language: string, first: string): string => {
  const [, text] = new RegExp(`\`\`\`${language}\n(${first}[^]*?)\`\`\``).exec(readme) ?? []
  if (text === undefined) throw new Error(`the README has no such ${language}`)
  return text
}
const folder = (): string => {
  const path = Fs.mkdtempSync(join(tmpdir(), "ksi-leave-"))
  onTestFinished(() => Fs.rmSync(path, { recursive: true, force: true }))
  return path
}

describe("the systemd unit", () => {
  const unit = block("ini", "# /etc/systemd/system/ksi.service")
  const setting = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(unit)?.[1]

  const canVerify = spawnSync("systemd-analyze", ["--version"]).status === 0
  if (!canVerify) process.stdout.write("the unit is not verified: there is no systemd-analyze here\n")
  it.runIf(canVerify)("is one", () => {
    const file = join(folder(), "ksi.service")
    // Where this checkout is: what it starts must be there.
    Fs.writeFileSync(file, unit.replaceAll("/srv/ksi", root))
    const { status, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", file], { encoding: "utf8" })
    // Of the machine's other units it may complain.
    expect(stderr.split("\n").filter((line) => line.includes("ksi.service"))).toEqual([])
    expect(status).toBe(0)
  })

  it("starts what the npm script starts, and waits longer than the daemon drains", () => {
    const { scripts } = JSON.parse(Fs.readFileSync(join(root, "package.json"), "utf8")) as { readonly scripts: Record<string, string> }
    const [, ...words] = setting("ExecStart")?.split(" ") ?? []
    expect(scripts["start"]).toContain(`node ${words.join(" ")}`)
    const [, drain] = /\| `drain` \|.*\| `(\d+) seconds` \|/.exec(readme) ?? []
    expect(Number(drain)).toBeGreaterThan(0)
    // Drained, interrupted, closed.
    expect(Number(setting("TimeoutStopSec"))).toBeGreaterThanOrEqual(Number(drain) + 10)
    expect(setting("RestartPreventExitStatus")).toBe("2")
  })
})

describe("the Dockerfile", () => {
  const file = block("dockerfile", "FROM")
  const instructions = (name: string) => file.split("\n").filter((line) => line.startsWith(`${name} `)).map((line) => line.slice(name.length + 1))
  const command = (name: string): ReadonlyArray<string> => {
    const [text = ""] = instructions(name)
    // An instruction in its exec form is JSON.
    return JSON.parse(text.slice(text.indexOf("["))) as ReadonlyArray<string>
  }
  let image = ""
  beforeAll(() => {
    // The last stage: what the build makes, beside the package's own file.
    image = Fs.mkdtempSync(join(tmpdir(), "ksi-image-"))
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc")
    const built = spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json", "--outDir", join(image, "dist")], { cwd: root, encoding: "utf8" })
    expect(built).toMatchObject({ status: 0, stdout: "" })
    Fs.copyFileSync(join(root, ".ci", "command.js"), join(image, "dist", "command.js"))
    Fs.copyFileSync(join(root, "package.json"), join(image, "package.json"))
    Fs.symlinkSync(join(root, "node_modules"), join(image, "node_modules"))
    return () => Fs.rmSync(image, { recursive: true, force: true })
  })

  it("copies what is there, and builds as the package does", () => {
    const copied = instructions("COPY").filter((line) => !line.startsWith("--from")).flatMap((line) => line.split(" ").slice(0, -1))
    expect(copied).toContain("package-lock.json")
    for (const path of copied) expect(Fs.existsSync(join(root, path)), path).toBe(true)
    const { bin, engines, files, scripts } = JSON.parse(Fs.readFileSync(join(root, "package.json"), "utf8")) as {
      readonly bin: { readonly ksi: string }; readonly engines: { readonly node: string }; readonly files: ReadonlyArray<string>; readonly scripts: Record<string, string>
    }
    expect(files).toContain("dist")
    expect(scripts["build"]).toBe("node .ci/build.mjs")
    expect(copied).toContain(".ci")
    expect(file).toContain("npm run build")
    expect(command("ENTRYPOINT")).toContain(bin.ksi.replace("./", ""))
    expect(instructions("FROM").every((line) => line.startsWith(`node:${engines.node.replace(">=", "")}-`))).toBe(true)
    // The flag of the package's own first line.
    expect(Fs.readFileSync(join(root, ".ci", "command.js"), "utf8").split("\n")[0]).toContain(command("ENTRYPOINT")[1])
  })

  it("runs a daemon whose health is well, as a process that stops when it is told", async () => {
    const home = folder()
    const [given = ""] = instructions("ENV")
    const named = Object.fromEntries(given.split(" ").map((pair) => pair.split("=") as [string, string]))
    expect(instructions("VOLUME")).toEqual([named["KSI_HOME"]])
    // Of two daemons on one port one would not start.
    const env = { ...named, KSI_HOME: home, KSI_PORT: "off", PATH: `${dirname(process.execPath)}:${process.env["PATH"]}` }
    const [program = "", ...words] = [...command("ENTRYPOINT"), ...command("CMD")]
    const daemon = spawn(program, words, { cwd: image, env, stdio: ["ignore", "pipe", "pipe"] })
    onTestFinished(() => void daemon.kill("SIGKILL"))
    let told = ""
    daemon.stdout.setEncoding("utf8").on("data", (text: string) => (told += text))
    while (!told.includes("ksi is ready")) await once(daemon.stdout, "data")
    const [check = "", ...args] = command("HEALTHCHECK")
    const healthy = () => spawnSync(check, args, { cwd: image, env, encoding: "utf8" })
    expect(healthy()).toMatchObject({ status: 0, stderr: "", stdout: expect.stringContaining("healthy") })
    daemon.kill("SIGTERM")
    expect(await once(daemon, "close")).toEqual([0, null])
    // Docker takes any other code than 0 for ill.
    expect(healthy().status).not.toBe(0)
  })
})
