import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Layer, Stream } from "effect"
import { DeclaredFailure } from "../../src/bus/KsiService.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import { RemoteFailure } from "../../src/wire/Frame.ts"
import { Closed, IoFailed } from "../../src/cli/Io.ts"
import * as Output from "../../src/cli/Output.ts"
import { Kept, world } from "./commandLine.ts"

// One of each reason, its exit code, and how it is told.
const rows: ReadonlyArray<readonly [KsiError.Reason, number, string]> = [
  [
    new KsiError.UnknownEvent({ event: "stock:resrve", similar: ["stock:reserve", "stock:released"], namespaces: ["stock"] }),
    3,
    "✗ UnknownEvent  no event is called \"stock:resrve\"\n  nearest    stock:reserve, stock:released\n  next       ksi discover 'stock:*'\n"
  ],
  [
    new KsiError.NoHandler({ event: "stock:reserve", passed: 2, similar: [] }),
    3,
    "✗ NoHandler  nobody handles \"stock:reserve\" (2 passed)\n  next       ksi describe stock:reserve\n"
  ],
  [
    new KsiError.PayloadInvalid({
      event: "stock:reserve",
      problems: [
        { path: "quantity", problem: "expected an integer, got \"two\"" },
        { path: "items.0.destination", problem: "missing" },
        { path: "", problem: "expected an object" }
      ]
    }),
    2,
    [
      "✗ PayloadInvalid  stock:reserve rejected before any handler ran",
      "  quantity     expected an integer, got \"two\"   (at data.quantity)",
      "  destination  missing   (at data.items.0.destination)",
      "  data         expected an object",
      "  next         ksi describe stock:reserve\n"
    ].join("\n")
  ],
  [
    new KsiError.ReplyInvalid({ event: "stock:reserve", problems: [{ path: "holdId", problem: "missing" }] }),
    70,
    "✗ ReplyInvalid  the handler of stock:reserve answered with an invalid reply\n  holdId     missing   (at reply.holdId)\n  next       ksi describe stock:reserve\n"
  ],
  [
    new KsiError.WrongShape({ event: "stock:reserved", used: "call", expected: "emit" }),
    2,
    "✗ WrongShape  stock:reserved is a fact: use emit, not call\n  next       ksi emit stock:reserved\n"
  ],
  [
    new KsiError.NotFound({ what: "stream", id: "order-1", similar: ["order-10"] }),
    3,
    "✗ NotFound  there is no stream \"order-1\"\n  nearest    order-10\n  next       ksi streams\n"
  ],
  [
    new KsiError.FrameInvalid({ problem: "it is not UTF-8" }),
    2,
    "✗ FrameInvalid  the frame could not be read: it is not UTF-8\n  next       send one JSON object a line, as {\"event\":\"system:health\"}\n"
  ],
  [
    new KsiError.LimitExceeded({ limit: "depth", max: 64, actual: 65, retryable: false }),
    5,
    "✗ LimitExceeded  the limit depth of 64 was reached (65)\n  next       send less at once\n"
  ],
  [
    new KsiError.DeadlineExceeded({ event: "stock:reserve", millis: 50 }),
    5,
    "✗ DeadlineExceeded  stock:reserve did not answer within 50 ms\n  next       ksi describe stock:reserve\n"
  ],
  [
    new KsiError.Rejected({ event: "stock:reserve", middleware: "auth", problem: "no token" }),
    1,
    "✗ Rejected  middleware \"auth\" rejected stock:reserve: no token\n  next       ksi describe stock:reserve\n"
  ],
  [
    new KsiError.HandlerFailed({ event: "stock:reserved", handler: "mail", problem: "no post" }),
    1,
    "✗ HandlerFailed  handler mail of stock:reserved failed again: no post\n  next       ksi dead ls\n"
  ],
  [
    new KsiError.PermissionDenied({ principal: "token:till-1", event: "order:*", action: "subscribe" }),
    4,
    "✗ PermissionDenied  token:till-1 may not subscribe order:*\n  next       ksi permission grant token:till-1 'order:*' --action subscribe\n"
  ],
  [
    new KsiError.Unauthenticated({ problem: "the token is not valid here" }),
    4,
    "✗ Unauthenticated  it is not known who asks: the token is not valid here\n  next       ksi token create --profile standard\n"
  ],
  [
    new KsiError.SlowConsumer({ pattern: "stock:*", buffer: 16, position: 42 }),
    5,
    "✗ SlowConsumer  the subscriber to stock:* was behind by more than its buffer of 16, and is told no more\n  next       ksi subscribe 'stock:*' --from 42\n"
  ],
  [
    new KsiError.VersionConflict({ streamId: "order-1", expected: 1, actual: 2 }),
    6,
    "✗ VersionConflict  stream \"order-1\" is at version 2, not 1\n  next       ksi stream-log order-1\n"
  ],
  [
    new KsiError.ConditionFailed({ position: 7, after: 0 }),
    6,
    "✗ ConditionFailed  a fact that matches the condition of the append is at position 7\n  next       read again, decide again, and append with the new position\n"
  ],
  [
    new KsiError.StreamDeleted({ streamId: "order-1" }),
    6,
    "✗ StreamDeleted  stream \"order-1\" was deleted; no fact can be appended to it any more\n  next       ksi stream-log order-1\n"
  ],
  [
    new KsiError.IdConflict({ source: "/a", id: "1", position: 7 }),
    6,
    "✗ IdConflict  an event \"1\" of source \"/a\" is stored at position 7 with other content\n  next       ksi export --from 7 --to 7\n"
  ],
  [
    new KsiError.IdempotencyConflict({ event: "stock:reserve", key: "k1" }),
    6,
    "✗ IdempotencyConflict  the idempotency key \"k1\" of stock:reserve was used with another payload\n  next       give a new request a new key\n"
  ],
  [
    new KsiError.StoreLocked({ file: "var/ksi.db" }),
    5,
    "✗ StoreLocked  another process is writing var/ksi.db\n  next       ksi stop, or start with another --home\n"
  ],
  [
    new KsiError.StoreFailure({ operation: "append", problem: "disk full" }),
    5,
    "✗ StoreFailure  the store failed to append: disk full\n  next       ksi doctor\n"
  ],
  [
    new KsiError.ConnectionLost({ address: "var/run/daemon.sock", problem: "connect ENOENT", unsent: true }),
    5,
    "✗ ConnectionLost  no daemon answers at var/run/daemon.sock: connect ENOENT\n  next       ksi start\n"
  ],
  [
    new KsiError.ListenFailed({ address: "run/daemon.sock", problem: "a daemon answers there", taken: true }),
    5,
    "✗ ListenFailed  cannot listen at run/daemon.sock: a daemon answers there\n  next       ksi status, or ksi stop\n"
  ],
  [
    new KsiError.PatternInvalid({ pattern: "st*ck", problem: "\"*\" must be a whole segment" }),
    2,
    "✗ PatternInvalid  \"st*ck\" is not a pattern: \"*\" must be a whole segment\n  next       ksi discover\n"
  ],
  [
    new KsiError.PluginInvalid({ plugin: "app.ts", problem: "no default export" }),
    5,
    "✗ PluginInvalid  app.ts cannot start: no default export\n  next       mend the module and start again\n"
  ]
]

const told = (reason: KsiError.Reason) => Output.failureOf(KsiError.make(reason))

describe("what to do next", () => {
  it("leads somewhere", () => {
    const next = (reason: KsiError.Reason) => told(reason).rows.at(-1)?.[1]
    expect(next(new KsiError.StoreFailure({ operation: "open", problem: "p" }))).toBe("ksi start --store-file <another file>")
    expect(next(new KsiError.NotFound({ what: "projection", id: "p", similar: [] }))).toBe("ksi projection ls")
    const later = new KsiError.NotFound({ what: "stream", id: "s", similar: [], detail: "at position 1: it begins at position 2" })
    expect([told(later).headline, next(later)]).toEqual(["there is no stream \"s\" at position 1: it begins at position 2", "ksi stream-log s"])
  })
})

describe("reasons", () => {
  for (const [reason, code, text] of rows) {
    it(`${reason._tag} is told, exit ${code}`, () => {
      expect(Output.render(told(reason), false)).toBe(text)
      expect(told(reason).code).toBe(code)
      expect(Output.exitCodes[reason._tag]).toBe(code)
    })

    it(`${reason._tag} is one line for programs`, () => {
      const line = Output.renderJson(told(reason))
      expect(line.indexOf("\n")).toBe(line.length - 1)
      const { _tag, ...details } = { ...reason }
      expect(JSON.parse(line)).toEqual({
        error: { reason: _tag, message: reason.message, details: JSON.parse(JSON.stringify(details)), retryable: reason.retryable }
      })
    })
  }

  it("leave none out", () => {
    const known = KsiError.Reason.members.map((member) => member.identifier).toSorted()
    expect(known).toEqual(rows.map(([reason]) => reason._tag).toSorted())
  })
})

describe("other failures", () => {
  it("a declared error shows its fields", () => {
    const failure = Output.failureOf(
      new DeclaredFailure({ event: "stock:reserve", error: { _tag: "OutOfStock", sku: "tea", left: 1 }, message: "OutOfStock" })
    )
    expect(Output.render(failure, false)).toBe([
      "✗ DeclaredFailure  stock:reserve failed: OutOfStock",
      "  error      OutOfStock",
      "  sku        tea",
      "  left       1",
      "  next       ksi describe stock:reserve\n"
    ].join("\n"))
    expect(failure.code).toBe(1)
    expect(failure.details).toEqual({ event: "stock:reserve", error: { _tag: "OutOfStock", sku: "tea", left: 1 } })
  })

  it("a declared error without words is told by its tag and fields", () => {
    const wordless = (error: unknown) => {
      const { headline, message } = Output.failureOf(new DeclaredFailure({ event: "a:b", error, message: "a:b failed" }))
      return [headline, message]
    }
    expect(wordless({ _tag: "Poor", missing: 3 })).toEqual(["a:b failed: Poor", "a:b failed: Poor, missing: 3"])
    expect(wordless({ left: 1 })).toEqual(["a:b failed: as declared", "a:b failed: as declared, left: 1"])
    expect(wordless("no")).toEqual(["a:b failed: no", "a:b failed: no"])
  })

  it("a declared error that is no object is shown whole", () => {
    const failure = Output.failureOf(new DeclaredFailure({ event: "a:b", error: "no", message: "no" }))
    expect(failure.rows).toEqual([["error", "no"], ["next", "ksi describe a:b"]])
  })

  it("usage is 2", () => {
    const failure = Output.failureOf(new Output.Usage({ message: "bad", similar: ["good"], next: "ksi --help" }))
    expect(failure.code).toBe(2)
    expect(Output.render(failure, false)).toBe("✗ Usage  bad\n  nearest    good\n  next       ksi --help\n")
  })

  const remote = (cause: string, reason: string, retryable = false) =>
    Output.failureOf(new RemoteFailure({ event: "a:b", cause, reason, message: "m", details: { correlationId: "c" }, retryable }))

  it("a defect over there is 70, with what to look for", () => {
    expect(remote("defect", "Defect").code).toBe(70)
    expect(remote("defect", "Defect").details).toEqual({ event: "a:b", correlationId: "c" })
  })
  it("a request that the daemon interrupted is unavailable", () => {
    expect(remote("interrupt", "Interrupted")).toMatchObject({ reason: "ConnectionLost", code: 5 })
  })
  it("a reason of a newer daemon is unavailable where it may be tried again, else a defect", () => {
    expect(remote("ksi", "Newer", true)).toMatchObject({ reason: "Newer", code: 5 })
    expect(remote("ksi", "Newer")).toMatchObject({ reason: "Newer", code: 70 })
  })
  it("a full disk is no quiet end", () => {
    const failure = Output.failureOf(new IoFailed({ stream: "stdout", problem: "ENOSPC" }))
    expect([failure.code, failure.message]).toEqual([5, "stdout failed: ENOSPC"])
  })
  it("anything else is a defect", () => {
    expect(Output.failureOf(new Error("boom"))).toMatchObject({ reason: "Defect", message: "boom", code: 70 })
    expect(Output.failureOf(undefined)).toMatchObject({ reason: "Defect", message: "nothing", code: 70 })
  })
})

describe("render", () => {
  it("colours only when asked", () => {
    const failure = told(new KsiError.NoHandler({ event: "a:b", passed: 0, similar: [] }))
    expect(Output.render(failure, true)).toContain("\u001b[31m✗\u001b[0m")
    expect(Output.render(failure, false)).not.toContain("\u001b")
  })
  it("keeps lines of one text together", () => {
    const failure = Output.failureOf(new DeclaredFailure({ event: "a:b", error: "one\ntwo", message: "m" }))
    expect(Output.render(failure, false)).toContain("  error      one\n             two\n")
  })
})

const reported = (cause: Cause.Cause<unknown>, json: boolean) =>
  Effect.gen(function*() {
    const stderr = new Kept()
    const stdout = new Kept()
    const code = yield* Output.report(cause, json).pipe(Effect.provide(world({ stderr, stdout })))
    return { code, stderr: stderr.text, stdout: stdout.text }
  })

describe("report", () => {
  it.effect("says it once, on stderr", () =>
    Effect.gen(function*() {
      const cause = Cause.fail(KsiError.make(new KsiError.StoreLocked({ file: "f" })))
      const human = yield* reported(cause, false)
      expect(human).toMatchObject({ code: 5, stdout: "" })
      expect(human.stderr).toContain("✗ StoreLocked")
      const json = yield* reported(cause, true)
      expect(JSON.parse(json.stderr)).toMatchObject({ error: { reason: "StoreLocked" } })
    }))
  for (
    const [name, cause, code] of [
      ["a reader that went away", Cause.fail(new Closed()), 0],
      ["a command that has said all", Cause.fail(new Output.Ended({ code: 1 })), 1],
      ["interruption", Cause.interrupt(1), 130]
    ] as const
  ) {
    it.effect(`is silent after ${name}`, () =>
      Effect.map(reported(cause, true), (seen) => expect(seen).toEqual({ code, stderr: "", stdout: "" })))
  }
})

describe("printing", () => {
  const printed = <E, R>(json: boolean, effect: Effect.Effect<void, E, R>) =>
    Effect.gen(function*() {
      const stdout = new Kept()
      const stderr = new Kept()
      yield* effect.pipe(Effect.provide(Layer.mergeAll(world({ stdout, stderr }), Layer.succeed(Output.Json, json))))
      return [stdout.text, stderr.text]
    })

  it.effect("documents are compact for programs, indented for people", () =>
    Effect.gen(function*() {
      expect(yield* printed(true, Output.document({ a: [1] }))).toEqual(["{\"a\":[1]}\n", ""])
      expect(yield* printed(false, Output.document({ a: 1 }))).toEqual(["{\n  \"a\": 1\n}\n", ""])
      expect(yield* printed(true, Output.documentOr({ a: 1 }, () => "words\n"))).toEqual(["{\"a\":1}\n", ""])
      expect(yield* printed(false, Output.documentOr({ a: 1 }, () => "words\n"))).toEqual(["words\n", ""])
    }))
  it.effect("narration is for people only", () =>
    Effect.gen(function*() {
      expect(yield* printed(false, Output.narrate("so"))).toEqual(["", "so\n"])
      expect(yield* printed(true, Output.narrate("so"))).toEqual(["", ""])
    }))
  it.effect("items are lines for programs, columns for people; a wider page widens those after it", () =>
    Effect.gen(function*() {
      const source = Stream.fromArray(["a", "bbb", "c"]).pipe(Stream.rechunk(1))
      const show = Output.items(source, (item) => `<${item}>`, (item) => [item, "end"])
      expect(yield* printed(true, show)).toEqual(["<a>\n<bbb>\n<c>\n", ""])
      expect(yield* printed(false, show)).toEqual(["a  end\nbbb  end\nc    end\n", ""])
      expect(yield* printed(false, Output.items(Stream.empty, String, () => []))).toEqual(["", ""])
      const headed = (items: typeof source) => Output.items(items, (item) => `<${item}>`, (item) => [item, "end"], ["item", "what"])
      expect(yield* printed(false, headed(source))).toEqual(["item  what\na     end\nbbb   end\nc     end\n", ""])
      expect(yield* printed(true, headed(source))).toEqual(["<a>\n<bbb>\n<c>\n", ""])
      expect(yield* printed(false, headed(Stream.empty))).toEqual(["", ""])
    }))
  it.effect("on a terminal a row is cut to its width, and nowhere else", () =>
    Effect.gen(function*() {
      const shown = Effect.fnUntraced(function*(stdout: Kept, json: boolean) {
        yield* Output.items(Stream.make("a", "b"), () => "x".repeat(30), (item) => [item, "ü😀".repeat(10)]).pipe(
          Effect.provide(Layer.mergeAll(world({ stdout }), Layer.succeed(Output.Json, json)))
        )
        return stdout.text.split("\n")[1]
      })
      const terminal = () => Object.assign(new Kept(true), { columns: 9 })
      expect(yield* shown(terminal(), false)).toBe("b  ü😀ü😀ü…")
      expect(yield* shown(new Kept(), false)).toBe(`b  ${"ü😀".repeat(10)}`)
      expect(yield* shown(terminal(), true)).toBe("x".repeat(30))
      expect(["", "abc", "abcd", "😀😀😀"].map((line) => Output.shortened(line, 3))).toEqual(["", "abc", "ab…", "😀😀😀"])
    }))
  it("numbers are grouped and counted", () => {
    expect([0, 999, 1000, 3790, 1234567].map(Output.grouped)).toEqual(["0", "999", "1,000", "3,790", "1,234,567"])
    expect([Output.counted(1, "stream"), Output.counted(3790, "stream")]).toEqual(["1 stream", "3,790 streams"])
  })
  it("columns are aligned and the last one is left as it is", () => {
    expect(Output.aligned([["a", "b", "c"], ["long", "b", ""]])).toEqual(["a     b  c", "long  b"])
  })
})
