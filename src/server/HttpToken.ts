/**
 * The token that makes an HTTP client the owner: a text in a file that only the owner of the home can read.
 *
 * The rule: who can read `run/http.token` could open the Unix socket as well, so both make one the owner. The file is new at
 * each start and gone when the daemon has stopped; the token of a daemon that was killed opens nothing.
 *
 * **Example**
 *
 * ```ts
 * const owner = (directory: string) => Effect.map(HttpToken.make(directory), (token) => `Authorization: Bearer ${token}`)
 * HttpToken.fileName                          // "http.token"
 * ```
 *
 * **Gotchas** For what shall outlive the daemon (a scraper, a script on another machine) make a token that does:
 * `ksi token create`.
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as Scope from "effect/Scope"
import * as KsiError from "../event/KsiError.ts"

/** The file's name, in `run` of the home. */
export const fileName = "http.token"

/** Makes the token and its file in this directory, which is closed to others; both are gone with the scope. Fails with `ListenFailed`. */
export const make = (
  directory: string
): Effect.Effect<string, KsiError.KsiError, Scope.Scope | FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = (yield* Path.Path).join(directory, fileName)
    const { uuidV4 } = yield* SecureRandom.SecureRandom
    const secret = `${yield* uuidV4()}${yield* uuidV4()}`.replaceAll("-", "")
    const token = `ksi_http_${secret}`
    const write = Effect.gen(function*() {
      yield* fs.makeDirectory(directory, { recursive: true, mode: 0o700 })
      // A file that is there keeps its mode: a new one takes its place.
      yield* fs.remove(file, { force: true })
      yield* fs.writeFileString(file, `${token}\n`, { mode: 0o600, flag: "wx" })
    })
    yield* Effect.acquireRelease(write, () => Effect.ignore(fs.remove(file, { force: true }))).pipe(
      Effect.catch(({ message }) =>
        KsiError.fail(new KsiError.ListenFailed({ address: file, problem: `the owner's token cannot be written (${message})`, taken: false })))
    )
    return token
  }).pipe(Effect.provide(SecureRandom.layerWebCrypto))
