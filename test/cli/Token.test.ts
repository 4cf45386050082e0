import { expect, it } from "@effect/vitest"
import * as Token from "../../src/cli/Token.ts"

it("a time is a number and a unit", () => {
  expect(["45s", "10m", "12h", "30d", "4w"].map(Token.secondsOf)).toEqual([45, 600, 43_200, 2_592_000, 2_419_200])
  for (const text of ["", "0s", "d", "30", "30 d", "1.5h", "-1d", "1y", "99999999999d"]) expect(Token.secondsOf(text), text).toBeUndefined()
})

it("a token is its id, what it may, since when, until when, and who made it", () => {
  const token = { id: "till-1a2b3c4d", profiles: ["standard"], created: 1521115200, expires: 1521115260, valid: true, by: "owner" }
  expect(Token.columns(token)).toEqual(["till-1a2b3c4d", "standard", "2018-03-15T12:00:00.000Z", "expires 2018-03-15T12:01:00.000Z", "owner"])
  expect(Token.columns({ ...token, valid: false, profiles: [] }).slice(1, 4)).toEqual(["no profile", "2018-03-15T12:00:00.000Z", "expired"])
  const { expires: _, ...forEver } = token
  expect(Token.columns(forEver)[3]).toBe("never expires")
})
