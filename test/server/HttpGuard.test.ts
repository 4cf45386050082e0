import { describe, expect, it } from "@effect/vitest"
import * as HttpGuard from "../../src/server/HttpGuard.ts"

const guard = HttpGuard.make({ host: "127.0.0.1", port: 4600, hosts: ["ksi.example", "Other.Example:8443", "[fd00::1]"] })
const reasonOf = (headers: HttpGuard.Headers) => guard(headers)?.reason

describe("the name that was asked for", () => {
  const ours = [
    "localhost:4600", "LOCALHOST:4600", "localhost.:4600", "127.0.0.1:4600", "[::1]:4600", "ksi.example", "ksi.example:80",
    "ksi.example:4600", "KSI.example.", "other.example:8443", "[fd00::1]:4600", "[FD00::1]"
  ]
  for (const host of ours) it(`${host} is ours`, () => expect(reasonOf({ host })).toBeUndefined())

  const foreign = [
    undefined, "", "localhost", "localhost:80", "localhost:46000", "127.0.0.1", "127.0.0.2:4600", "0.0.0.0:4600", "[::]:4600",
    // A name of the attacker's own that leads to 127.0.0.1 (DNS rebinding), in the disguises that it may put on.
    "evil.example", "evil.example:4600", "localhost.evil.example:4600", "evil-localhost:4600", "127.0.0.1.evil.example:4600",
    "ksi.example.evil.example", "xksi.example", "ksi.examplex", "localhost:4600@evil.example", "localhost:4600, evil.example",
    "localhost:4600/", "user@localhost:4600", "localhost:4600#", "local\u212aost:4600", "other.example", "other.example:8444", "2130706433:4600",
    "[::ffff:127.0.0.1]:4600"
  ]
  for (const host of foreign) it(`${String(host)} is foreign`, () => expect(reasonOf({ host })).toBe("ForeignHost"))

  it("port 80 need not be said, and no other may be left out", () => {
    const plain = HttpGuard.make({ host: "localhost", port: 80, hosts: [] })
    expect([plain({ host: "localhost" }), plain({ host: "localhost:80" })]).toEqual([undefined, undefined])
    expect(plain({ host: "localhost:4600" })?.reason).toBe("ForeignHost")
  })

  it("the address that is listened on is a name, unless it is every address", () => {
    const one = HttpGuard.make({ host: "192.168.1.5", port: 4600, hosts: [] })
    expect([one({ host: "192.168.1.5:4600" }), one({ host: "192.168.1.6:4600" })?.reason]).toEqual([undefined, "ForeignHost"])
    const six = HttpGuard.make({ host: "FE80::1", port: 4600, hosts: [] })
    expect(six({ host: "[fe80::1]:4600" })).toBeUndefined()
    for (const host of ["0.0.0.0", "::"]) {
      expect(HttpGuard.make({ host, port: 4600, hosts: [] })({ host: `${HttpGuard.inUrl(host)}:4600` })?.reason).toBe("ForeignHost")
    }
  })

  it("what was let in is remembered, what was not is looked at again, and never are there many of them", () => {
    for (let n = 0; n < 1000; n++) {
      expect(reasonOf({ host: `ksi.example:${n}` })).toBeUndefined()
      expect(reasonOf({ host: `evil${n}.example` })).toBe("ForeignHost")
    }
  })

  it("says which name it was, and no more of it than a line", () => {
    expect(guard({ host: `${"e".repeat(10_000)}.example` })?.detail.length).toBeLessThan(200)
    expect(guard({})?.detail).toContain("none")
  })
})

describe("the page that asks", () => {
  const host = "localhost:4600"
  const ours = ["http://localhost:4600", "http://127.0.0.1:4600", "HTTP://LOCALHOST:4600", "http://[::1]:4600", "https://ksi.example", "http://ksi.example:81", "https://other.example:8443"]
  for (const origin of ours) it(`${origin} is ours`, () => expect(reasonOf({ host, origin })).toBeUndefined())

  const foreign = [
    "", "null", "http://localhost", "http://localhost:3000", "https://localhost", "http://evil.example", "http://evil.example:4600", "file://", "localhost:4600",
    "chrome-extension://abc", "http://localhost:4600.evil.example", "http://localhost:4600/", "http://localhost:4600, http://evil.example", "ftp://localhost:4600"
  ]
  for (const origin of foreign) it(`${JSON.stringify(origin)} is foreign`, () => expect(reasonOf({ host, origin })).toBe("ForeignOrigin"))

  for (const [site, reason] of [
    [undefined, undefined], ["same-origin", undefined], ["none", undefined], ["same-site", "ForeignOrigin"], ["cross-site", "ForeignOrigin"],
    ["", "ForeignOrigin"], ["Same-Origin", "ForeignOrigin"], ["same-origin, cross-site", "ForeignOrigin"], [["same-origin"], "ForeignOrigin"]
  ] as const) {
    it(`Sec-Fetch-Site: ${String(site)}`, () => expect(reasonOf({ host, "sec-fetch-site": site })).toBe(reason))
  }

  it("the browser's word counts beside an origin that is ours", () =>
    expect(reasonOf({ host, origin: "http://localhost:4600", "sec-fetch-site": "cross-site" })).toBe("ForeignOrigin"))
})

describe("addresses", () => {
  for (const host of ["localhost", "127.0.0.1", "127.8.9.10", "::1", "[::1]"]) {
    it(`${host} is a loopback address`, () => expect(HttpGuard.isLoopback(host)).toBe(true))
  }
  for (const host of ["0.0.0.0", "::", "192.168.0.1", "localhost.example", "127.0.0.1.example", "128.0.0.1", ""]) {
    it(`${JSON.stringify(host)} is none`, () => expect(HttpGuard.isLoopback(host)).toBe(false))
  }
  it("IPv6 stands in brackets in a URL", () =>
    expect(["::1", "[::1]", "localhost"].map(HttpGuard.inUrl)).toEqual(["[::1]", "[::1]", "localhost"]))
  it("a name for hosts has no scheme, no path and no blank", () =>
    expect(["a.b", "a.b:1", "[::1]:2", "http://a.b", "a.b/c", "a b", "", "*.a.b", "a:b:c"].map(HttpGuard.isHost))
      .toEqual([true, true, true, false, false, false, false, false, false]))
})
