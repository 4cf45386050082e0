/**
 * `ksi bench`: how fast the running daemon answers a request of the user's own, over its socket.
 *
 * The rule: what is printed was measured. Only calls that succeeded count as calls and have a latency; failures are told
 * beside them by reason, so that failing fast never looks fast. Ctrl-C or a daemon that goes away ends the measuring,
 * and what was measured by then is printed all the same.
 *
 * **Example**
 *
 * ```ts
 * const tally = new Bench.Tally()
 * for (let millis = 1; millis <= 100; millis++) tally.answered(millis)
 * Math.round(tally.quantile(0.5))             // 50
 * tally.max                                   // 100
 * ```
 *
 * **Gotchas** With `--rate` a call that had to wait for its turn (all of `--inflight` were under way) is measured from
 * when it was due, else from when it was sent: the coarse timer that starts calls is not the daemon's latency. The client
 * is one process on one connection, and its own work is in the figures.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import * as Call from "./Call.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** What is done, and for how long. */
export interface Plan {
  /** How long calls are started, in milliseconds. */
  readonly millis: number
  /** Calls under way at once, at most. */
  readonly inflight: number
  /** Calls started a second, whatever becomes of them; without it the next one follows an answer. */
  readonly rate?: number | undefined
}

/** How often calls failed for one reason, and what the first of them said. */
export interface Failures {
  readonly reason: string
  readonly count: number
  readonly message: string
}

/** What was measured. */
export interface Report {
  readonly seconds: number
  /** Calls that succeeded. */
  readonly calls: number
  readonly calls_per_second: number
  /** Milliseconds, each at most one in a hundred too high; of the calls that succeeded, if any. */
  readonly latency_ms: { readonly p50: number; readonly p90: number; readonly p99: number; readonly max: number } | null
  readonly failures: ReadonlyArray<Failures>
  /** Calls without an answer when the measuring ended. */
  readonly unanswered: number
  /** With a rate: calls that were due and had no turn. */
  readonly not_started: number
}

// Each bucket reaches one in a hundred further than the one before, from a microsecond on.
const growth = Math.log(1.01)

/** Counts outcomes in constant memory, however many there are. */
export class Tally {
  /** The longest latency, in milliseconds. */
  max = 0
  calls = 0
  started = 0
  private failed = 0
  private readonly buckets = new Map<number, number>()
  private readonly reasons = new Map<string, Failures>()

  /** A call succeeded after so many milliseconds. */
  answered(millis: number): void {
    const bucket = Math.max(0, Math.ceil(Math.log(millis * 1000) / growth))
    this.buckets.set(bucket, (this.buckets.get(bucket) ?? 0) + 1)
    this.max = Math.max(this.max, millis)
    this.calls++
  }

  /** A call failed. */
  refused(error: unknown): void {
    const { message, reason } = Output.failureOf(error)
    const before = this.reasons.get(reason)
    this.reasons.set(reason, { reason, count: (before?.count ?? 0) + 1, message: before?.message ?? message })
    this.failed++
  }

  /** The latency that this part of the calls did not exceed, in milliseconds. */
  quantile(part: number): number {
    let left = Math.ceil(part * this.calls)
    for (const [bucket, count] of [...this.buckets].toSorted(([a], [b]) => a - b)) {
      left -= count
      if (left <= 0) return Math.min(this.max, Math.exp(bucket * growth) / 1000)
    }
    return this.max
  }

  /** Everything so far, after so many milliseconds of a plan. */
  report(elapsed: number, { millis, rate }: Plan): Report {
    const [p50, p90, p99] = [this.quantile(0.5), this.quantile(0.9), this.quantile(0.99)]
    const due = rate === undefined ? 0 : Math.ceil(Math.min(elapsed, millis) * rate / 1000)
    return {
      seconds: rounded(elapsed / 1000),
      calls: this.calls,
      calls_per_second: elapsed === 0 ? 0 : rounded(this.calls / elapsed * 1000),
      latency_ms: this.calls === 0 ? null : { p50: rounded(p50), p90: rounded(p90), p99: rounded(p99), max: rounded(this.max) },
      failures: [...this.reasons.values()].toSorted((a, b) => b.count - a.count),
      unanswered: this.started - this.calls - this.failed,
      not_started: Math.max(0, due - this.started)
    }
  }
}

const rounded = (value: number): number => Math.round(value * 1000) / 1000

// How long answers are waited for when no more calls are started.
const graceMillis = 1000

/**
 * Calls as planned, and gives every report to `tell`: exactly one, also when it is interrupted. Fails as a call does
 * whose failure is `fatal`.
 */
export const measure = Effect.fnUntraced(function*<E, R, E2, R2>(
  call: Effect.Effect<unknown, E, R>,
  plan: Plan,
  fatal: (error: E) => boolean,
  tell: (report: Report) => Effect.Effect<void, E2, R2>
) {
  const clock = yield* Clock.Clock
  const origin = clock.monotonicTimeNanosUnsafe()
  const now = () => Number(clock.monotonicTimeNanosUnsafe() - origin) / 1e6
  const tally = new Tally()
  let lastAt = 0
  const ended = (error?: E) =>
    Effect.suspend(() => {
      lastAt = now()
      return error !== undefined && fatal(error) ? Effect.fail(error) : Effect.void
    })
  const once = Effect.fnUntraced(function*(began: number) {
    tally.started++
    const result = yield* Effect.result(call)
    if (Result.isSuccess(result)) tally.answered(now() - began)
    else tally.refused(result.failure)
    yield* ended(Result.isFailure(result) ? result.failure : undefined)
  })
  const closed = Effect.gen(function*() {
    while (now() < plan.millis) yield* once(now())
  })
  let next = 0
  const open = (interval: number) =>
    Effect.gen(function*() {
      for (let due = next++ * interval; due < plan.millis && now() < plan.millis; due = next++ * interval) {
        const early = due - now()
        if (early > 0) yield* Effect.sleep(early)
        yield* once(early > 0 ? now() : due)
      }
    })
  const worker = plan.rate === undefined ? closed : open(1000 / plan.rate)
  return yield* Effect.replicateEffect(worker, plan.inflight, { concurrency: "unbounded", discard: true }).pipe(
    Effect.timeoutOption(plan.millis + graceMillis),
    Effect.andThen(Effect.sync(() => tally.calls)),
    // The time that answers were waited for counts as far as they came.
    Effect.onExit(() => tell(tally.report(Math.max(Math.min(now(), plan.millis), lastAt), plan)))
  )
})

const units: { readonly [unit: string]: number } = { ms: 1, s: 1000, m: 60_000 }

/** A duration such as `500ms`, `5s` or `2m` in milliseconds; the failure is a sentence. */
export const millisOf = (text: string): Result.Result<number, string> => {
  const [, amount = "", unit = ""] = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m)$/.exec(text) ?? []
  const millis = Number(amount) * (units[unit] ?? 0)
  return millis > 0 ? Result.succeed(millis) : Result.fail(`expected a duration such as 500ms, 5s or 2m, found "${text}"`)
}

const row = (label: string, text: string) => `${label.padEnd(12)}${text}\n`

/** A report in words. */
export const render = (report: Report): string => {
  const { calls, calls_per_second: rate, failures, latency_ms: latency, not_started: missed, seconds, unanswered } = report
  const shown = (millis: number) => millis < 10 ? millis.toFixed(2) : millis.toFixed(1)
  return [
    row("calls", `${Output.grouped(calls)} in ${seconds.toFixed(2)} s`),
    row("calls/s", Output.grouped(Math.round(rate))),
    latency === null ? "" : row("latency ms", Object.entries(latency).map(([name, millis]) => `${name} ${shown(millis)}`).join("   ")),
    row("failures", Output.grouped(failures.reduce((sum, { count }) => sum + count, 0))),
    ...failures.map(({ count, message, reason }) => row("", `${reason} ${Output.grouped(count)}: ${message}`)),
    unanswered === 0 ? "" : row("unanswered", Output.grouped(unanswered)),
    missed === 0 ? "" : row("not started", `${Output.grouped(missed)}: they were due, and all calls that may be under way were`)
  ].join("")
}

const usage = (message: string, next = "ksi bench --help") => Effect.fail(new Output.Usage({ message, similar: [], next }))

const maxInflight = Limits.defaults.connectionRequests
const openInflight = 64

const planOf = Effect.fnUntraced(function*(options: {
  readonly duration: string
  readonly rate: Option.Option<number>
  readonly inflight: Option.Option<number>
}) {
  const millis = millisOf(options.duration)
  if (Result.isFailure(millis)) return yield* usage(`--for: ${millis.failure}`)
  const rate = Option.getOrUndefined(options.rate)
  if (rate !== undefined && !(rate > 0)) return yield* usage(`--rate: expected more than 0, found ${rate}`)
  const inflight = Option.getOrElse(options.inflight, () => rate === undefined ? 1 : openInflight)
  if (inflight < 1 || inflight > maxInflight) return yield* usage(`--inflight: expected 1 to ${maxInflight}, found ${inflight}`)
  const plan: Plan = { millis: millis.success, inflight, rate }
  return plan
})

/** A fact stays for good; nobody stores thousands by mistake. */
const allowed = (event: string, emits: boolean, expected: "call" | "emit") => {
  if (expected === "emit" && !emits) {
    return usage(`${event} is a fact: every one of them would be stored for good, unless --emit says that this is wanted`, `ksi bench ${event} --emit`)
  }
  return expected === "call" && emits ? KsiError.fail(new KsiError.WrongShape({ event, used: "emit", expected })) : Effect.void
}

const isLost = (address: string) => (error: unknown): boolean =>
  KsiError.is(error) && error.reason._tag === "ConnectionLost" && error.reason.address === address

const { data, event, pairs } = Call.fields("request")

/** `ksi bench`. */
export const bench = Command.make(
  "bench",
  {
    event,
    pairs,
    data,
    rate: Flag.Finite("rate").pipe(
      Flag.withDescription("Calls started a second; without it the next call follows an answer"),
      Flag.withMetavar("N"),
      Flag.optional
    ),
    duration: Flag.String("for").pipe(
      Flag.withDescription("How long, as 500ms, 5s or 2m"), Flag.withMetavar("DURATION"), Flag.withDefault("5s")
    ),
    inflight: Flag.Int("inflight").pipe(
      Flag.withDescription(`Calls under way at once, at most ${maxInflight}; default 1, with --rate ${openInflight}`),
      Flag.withMetavar("N"),
      Flag.optional
    ),
    emit: Flag.Boolean("emit").pipe(Flag.withDescription("Emit a fact; every one of them is stored for good"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function*(given) {
    const plan = yield* planOf(given)
    const { body, expected, remote } = yield* Call.prepared(given, Remote.connectWith({ outstanding: plan.inflight }))
    if (expected === "stream") return yield* KsiError.fail(new KsiError.WrongShape({ event: given.event, used: "bench", expected }))
    yield* allowed(given.event, given.emit, expected)
    const pace = plan.rate === undefined ? `${plan.inflight} in flight` : `${plan.rate} a second, at most ${plan.inflight} in flight`
    yield* Output.narrate(`${expected === "emit" ? "emitting" : "calling"} ${given.event} for ${given.duration}, ${pace}`)
    const calls = yield* measure(
      remote.callRaw(given.event, JSON.stringify(body)),
      plan,
      isLost(remote.address),
      (report) => Output.documentOr({ event: given.event, ...report }, () => render(report))
    )
    if (calls === 0) return yield* Effect.fail(new Output.Ended({ code: Output.exitCodes.HandlerFailed }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Measure how fast the daemon answers a request; its handlers really run"),
  Command.withExamples([{ command: "ksi bench stock:reserve sku=tea quantity=1 --inflight 16 --for 10s" }])
)
