// The scripts, run by the shells they are for, as they do when somebody presses TAB.
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Completions from "../../src/cli/Completions.ts"
import { Running } from "../scenarios/Daemon.ts"
import { ksi } from "./commandLine.ts"

/** What a shell offers after these words, the last of which is being written. */
type Ask = (script: string, words: ReadonlyArray<string>, cwd: string) => ReadonlyArray<string>

const quoted = (words: ReadonlyArray<string>) => words.map((word) => `'${word}'`).join(" ")
const run = (shell: string, args: ReadonlyArray<string>, cwd: string) => {
  const { status, stderr, stdout } = spawnSync(shell, args, { cwd, encoding: "utf8", timeout: 10_000, env: { PATH: process.env["PATH"] ?? "", HOME: cwd, TERM: "dumb" } })
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" })
  return stdout.split(/\r?\n/).filter((line) => line !== "")
}

const shells: Readonly<Record<Completions.Shell, Ask>> = {
  // What `complete -F` has registered is called as readline calls it.
  bash: (script, words, cwd) => run("bash", ["--norc", "-c", `. ${script}
    COMP_WORDS=(${quoted(words)}); COMP_CWORD=${words.length - 1}; COMP_LINE="\${COMP_WORDS[*]}"; COMP_POINT=\${#COMP_LINE}
    function=$(complete -p ksi); function=\${function#*-F }; function=\${function%% *}
    $function ksi '${words.at(-1)}' '${words.at(-2)}'
    printf '%s\\n' "\${COMPREPLY[@]}"`], cwd),
  // zsh completes only where somebody types: it gets a terminal and a TAB, and notes what is added to the list.
  zsh: (script, words, cwd) => {
    const found = join(cwd, "found")
    writeFileSync(join(cwd, ".zshrc"), `PROMPT=; autoload -Uz compinit; compinit -u -d ${cwd}/dump; . ${script}
      compadd() {
        [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]] && { builtin compadd "$@"; return }
        local -a found; builtin compadd -A found "$@"; print -rl -- $found >> ${found}; builtin compadd "$@"
      }
      leave() { kill -9 $$ }
      zle -N leave; bindkey '^X' leave; bindkey '^I' list-choices; print ready\n`)
    writeFileSync(found, "")
    run("zsh", ["-f", "-c", `zmodload zsh/zpty; zpty it 'ZDOTDIR=${cwd} exec zsh -i'; zpty -r it line '*ready*'
      zpty -w -n it $'${words.join(" ")}\\t\\x18'; while zpty -r it line; do :; done; true`], cwd)
    return readFileSync(found, "utf8").split("\n")
  },
  fish: (script, words, cwd) =>
    run("fish", ["--no-config", "-c", `source ${script}; complete -C '${words.join(" ")}'`], cwd).map((line) => line.split("\t")[0] ?? "")
}

const cases: ReadonlyArray<readonly [words: ReadonlyArray<string>, offers: ReadonlyArray<string>, not: ReadonlyArray<string>]> = [
  [["ksi", "st"], ["start", "status", "stop", "streams", "stream-log", "stream-info", "stream-keep", "stream-delete"], ["call", "--json"]],
  [["ksi", "token", ""], ["create", "ls", "revoke"], ["start", "grant"]],
  [["ksi", "stream-keep", "--max"], ["--max-count", "--max-age"], ["--everything"]],
  [["ksi", "consumer", ""], ["ls", "parked", "retry", "discard"], ["rebuild"]],
  [["ksi", "projection", "get", "--p"], ["--prefix"], ["--stream"]],
  [["ksi", "permission", "gr"], ["grant"], ["check"]],
  [["ksi", "start", "--s"], ["--store", "--store-file", "--sync", "--socket"], ["--limit-depth", "--no-json"]],
  [["ksi", "start", "--sync", ""], ["full", "normal"], ["start"]],
  [["ksi", "start", "--log-level", "w"], ["warn"], ["debug"]],
  [["ksi", "token", "create", "--profile", "t"], ["trusted"], ["owner"]],
  [["ksi", "export", "--"], ["--stream", "--from", "--json", "--home", "--help"], ["--sync"]],
  [["ksi", "import", "fac"], ["facts.ndjson"], ["app.ts"]],
  [["ksi", "start", "ap"], ["app.ts"], ["facts.ndjson"]],
  [["ksi", "help", "subs"], ["subscribe"], ["status"]],
  [["ksi", "completions", ""], ["bash", "zsh", "fish"], ["powershell"]]
]

for (const shell of ["bash", "zsh", "fish"] as const) {
  const found = spawnSync(shell, ["-c", "exit 0"]).status === 0
  if (!found) console.info(`${shell} is not installed here: its completions are made, and not tried`)
  describe.skipIf(!found)(shell, () => {
    const cwd = mkdtempSync(join(tmpdir(), "ksi-tab-"))
    const script = join(cwd, "script")
    beforeAll(async () => {
      for (const name of ["facts.ndjson", "app.ts"]) writeFileSync(join(cwd, name), "")
      const { code, stderr, stdout } = await new Running(["completions", shell]).ended()
      expect([code, stderr]).toEqual([0, ""])
      writeFileSync(script, stdout)
    })
    afterAll(() => rmSync(cwd, { recursive: true }))
    for (const [words, offers, not] of cases) {
      it(`${words.join(" ")}<TAB>`, () => {
        const offered = shells[shell](script, words, cwd)
        for (const word of offers) expect(offered).toContain(word)
        for (const word of not) expect(offered).not.toContain(word)
      })
    }
  })
}

describe("the script", () => {
  for (const shell of ["bash", "zsh", "fish"] as const) {
    it.effect(`of ${shell} says how it is installed, as the help does`, () =>
      Effect.gen(function*() {
        const { stdout } = yield* ksi(["completions", shell])
        expect(stdout).toContain(`#   ${Completions.installation[shell]}\n`)
        expect(stdout).not.toContain("--completions")
        expect((yield* ksi(["completions", "--help"])).stdout).toContain(Completions.installation[shell])
      }))
  }
  it.effect("is only for shells that are known", () =>
    Effect.gen(function*() {
      expect(yield* ksi(["completions", "bsh"])).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("nearest    bash") })
    }))
})
