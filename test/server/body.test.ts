// How a body is read, over a real connection.
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { once } from "node:events"
import * as NodeHttp from "node:http"
import type { AddressInfo } from "node:net"
import { describe, expect } from "vitest"
import { readText } from "../../src/server/internal/exchange.ts"

const mebibyte = 1024 * 1024

/** Posts so many bytes at once; what was read of them, and the most that was read within one turn of the event loop. */
const reading = (length: number, max: number) =>
  Effect.promise(async () => {
    let most = 0
    let read = 0
    let inTurn = 0
    let turning = true
    const nextTurn = (): void => {
      inTurn = 0
      if (turning) setImmediate(nextTurn)
    }
    const server = NodeHttp.createServer((request, response) => {
      nextTurn()
      // Before the listener that may pause.
      request.on("data", (chunk: Buffer) => {
        read += chunk.length
        inTurn += chunk.length
        most = Math.max(most, inTurn)
      })
      readText(request, max, (text, problem) => response.end(problem ?? String(text.length)))
    }).listen(0, "127.0.0.1")
    await once(server, "listening")
    const { port } = server.address() as AddressInfo // of a server that listens on a port
    const answer = await fetch(`http://127.0.0.1:${port}`, { method: "POST", body: "x".repeat(length) }).then((said) => said.text())
    await new Promise((resolve) => server.close(resolve))
    turning = false
    return { answer, most, read }
  })

describe("a long body", () => {
  it.live("is read a piece in each turn of the event loop, so that others get theirs", () =>
    Effect.gen(function*() {
      const { answer, most, read } = yield* reading(16 * mebibyte, 32 * mebibyte)
      expect([answer, read]).toEqual([String(16 * mebibyte), 16 * mebibyte])
      assert.isBelow(most, mebibyte / 2)
    }))

  it.live("is thrown away in the same way where it is longer than is allowed", () =>
    Effect.gen(function*() {
      const { answer, most } = yield* reading(16 * mebibyte, mebibyte)
      expect(answer).toBe("too long")
      assert.isBelow(most, mebibyte / 2)
    }))
})
