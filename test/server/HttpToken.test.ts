import { NodeServices } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import { join } from "node:path"
import { KsiError } from "../../src/event/KsiError.ts"
import * as HttpToken from "../../src/server/HttpToken.ts"
import { folder } from "../wire/Daemon.ts"

const modeOf = (path: string) => (Fs.statSync(path).mode & 0o777).toString(8)

describe("the owner's token", () => {
  it.live("is in a file that only its owner can read, and gone with the scope", () =>
    Effect.gen(function*() {
      const directory = join(yield* folder, "run")
      const file = join(directory, HttpToken.fileName)
      const token = yield* Effect.scoped(Effect.map(HttpToken.make(directory), (token) => {
        expect([modeOf(directory), modeOf(file), Fs.readFileSync(file, "utf8")]).toEqual(["700", "600", `${token}\n`])
        return token
      }))
      expect(token).toMatch(/^ksi_http_[0-9a-f]{64}$/)
      expect(Fs.existsSync(file)).toBe(false)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is another one at each start; a file that was left behind, or a link, gives nothing away", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const file = join(directory, HttpToken.fileName)
      const elsewhere = join(directory, "elsewhere")
      Fs.writeFileSync(elsewhere, "mine")
      Fs.symlinkSync(elsewhere, file)
      const first = yield* Effect.scoped(HttpToken.make(directory))
      Fs.writeFileSync(file, "old", { mode: 0o644 })
      yield* Effect.scoped(Effect.map(HttpToken.make(directory), (second) => {
        expect(second).not.toBe(first)
        expect([modeOf(file), Fs.readFileSync(file, "utf8")]).toEqual(["600", `${second}\n`])
      }))
      expect(Fs.readFileSync(elsewhere, "utf8")).toBe("mine")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("where it cannot be written the file is named", () =>
    Effect.gen(function*() {
      const directory = join(yield* folder, "file")
      Fs.writeFileSync(directory, "")
      const error = yield* Effect.flip(Effect.scoped(HttpToken.make(directory)))
      expect(error).toBeInstanceOf(KsiError)
      expect(error.reason).toMatchObject({ _tag: "ListenFailed", address: join(directory, HttpToken.fileName), taken: false })
    }).pipe(Effect.provide(NodeServices.layer)))
})
