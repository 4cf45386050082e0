/** What the bus promises to those who ask and those who answer. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Causation from "../../../../src/bus/Causation.ts"
import { DeadLetters } from "../../../../src/bus/DeadLetters.ts"
import { DeclaredFailure } from "../../../../src/bus/KsiService.ts"
import * as Router from "../../../../src/bus/Router.ts"
import type { Envelope } from "../../../../src/event/Envelope.ts"
import * as Event from "../../../../src/event/Event.ts"
import * as EventGroup from "../../../../src/event/EventGroup.ts"
import * as KsiError from "../../../../src/event/KsiError.ts"
import { Ksi } from "../../../../src/Ksi.ts"
import * as DeadLetter from "../../../../src/plugins/DeadLetter.ts"
import { EventStore } from "../../../../src/store/EventStore.ts"
import { below, type Check, must, oneOf, pause, same, simulate, together, upTo } from "./Check.ts"

const current = Effect.map(Causation.Current, (envelope) => envelope)
const tagOf = (result: Result.Result<unknown, unknown>): string => {
  if (Result.isSuccess(result)) return "success"
  const { failure } = result
  if (failure instanceof DeclaredFailure) return failure.reason
  return KsiError.is(failure) ? failure.reason._tag : "unknown"
}
const dispatch = (name: string, data: unknown, labels: Partial<Causation.Origin> = {}) =>
  Effect.flatMap(Router.Router, (router) => router.dispatch(router.envelope(name, data, labels)))

// --------------------------------------------------------------------------------------------------------------- chains

const Tagged = { tag: Schema.String }
const Start = Event.make("chain:start", { payload: { ...Tagged, width: Schema.Int }, success: Schema.String })
const Step = Event.make("chain:step", { payload: { ...Tagged, depth: Schema.Int }, success: Schema.String })
const Began = Event.fact("chain:began", { payload: { ...Tagged, by: Schema.String }, streamId: ({ tag }) => `chain-${tag}` })
const Followed = Event.fact("chain:followed", { payload: { ...Tagged, cause: Schema.String, by: Schema.String }, streamId: ({ tag }) => `chain-${tag}` })
const Chains = EventGroup.make(Start, Step, Began, Followed)

interface Seen {
  readonly tag: string
  readonly handler: string
  readonly id: string
  readonly correlationId: string
  readonly causationId: string | undefined
  readonly depth: number
  readonly principal: string
}

const chains = (seen: Array<Seen>) => {
  const note = (handler: string, tag: string) =>
    Effect.map(current, (envelope) => {
      if (envelope === undefined) return ""
      const { causationId, correlationId, depth, principal } = envelope.metadata
      seen.push({ tag, handler, id: envelope.id, correlationId, causationId, depth, principal })
      return envelope.id
    })
  const handlers = Chains.toLayer({
    *"chain:start"({ tag, width }) {
      const ksi = yield* Ksi
      const id = yield* note("start", tag)
      yield* pause(2)
      yield* ksi.emit(Began, { tag, by: id })
      yield* Effect.forEach(upTo(width), (n) => ksi.call(Step, { tag, depth: n }), together)
      yield* note("start again", tag)
      return tag
    },
    *"chain:step"({ depth, tag }) {
      const ksi = yield* Ksi
      const id = yield* note("step", tag)
      yield* pause(3)
      if (depth > 0) yield* ksi.call(Step, { tag, depth: depth - 1 })
      yield* ksi.emit(Began, { tag, by: id })
      return tag
    },
    *"chain:began"({ tag }) {
      const id = yield* note("began", tag)
      yield* pause(3)
      yield* (yield* Ksi).emit(Followed, { tag, cause: id, by: id })
    },
    *"chain:followed"({ tag }) {
      yield* note("followed", tag)
    }
  })
  return Layer.merge(Ksi.serve(Chains).pipe(Layer.provide(handlers)), Router.observe("chain:began", ({ data }) =>
    note("observer", String(Reflect.get(Object(data), "tag")))))
}

/** Whatever happens because of a request is of its chain, of its principal, and happens once. */
const causes: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    const seen: Array<Seen> = []
    return simulate({
      seed, order, nodes: { one: chains(seen) }, ...(seed % 2 === 0 ? {} : { disk: {} }),
      program: ({ calm, nodes: { one } }) => Effect.gen(function*() {
        const tags = ["a", "b", "c", "d", "e"]
        const answers = yield* Effect.forEach(tags, (tag, n) =>
          Effect.andThen(pause(5), one.use(dispatch("chain:start", { tag, width: n % 3 }, { clientCorrelationId: `label ${tag}`, clientId: `client ${tag}` }))), together)
        yield* same("answers", answers.map((answer) => answer.kind === "value" ? answer.value : "fact"), tags)
        yield* calm
        const facts = yield* one.use(Effect.flatMap(EventStore, ({ read }) => read({ from: 1, limit: 1000 })))
        yield* chained(tags, seen, facts)
        const before = seen.length
        yield* one.use(Effect.flatMap(Ksi, (ksi) => Stream.runDrain(Stream.take(ksi.subscribe("*", { from: "start" }), facts.length))))
        yield* Effect.andThen(one.stop, one.start)
        yield* calm
        if (seed % 2 === 1) yield* one.use(Effect.flatMap(Ksi, (ksi) => Stream.runDrain(Stream.take(ksi.subscribe("*", { from: 1 }), facts.length))))
        yield* Effect.sleep("1 minute")
        yield* calm
        yield* same("how often something was handled, after reading it all again and a restart", seen.length, before)
      })
    })
  })

/** Who dies in the middle begins nothing again of what it had begun. */
const once: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    const seen: Array<Seen> = []
    return simulate({
      seed, order, nodes: { one: chains(seen) }, disk: { crash: seed % 2 === 0 ? 0.01 : 0 },
      program: ({ calm, nodes: { one } }) => Effect.gen(function*() {
        const living = Effect.forEach(["a", "b", "c"], (tag, n) =>
          Effect.andThen(pause(20), Effect.exit(one.use(dispatch("chain:start", { tag, width: n % 3 })))), together)
        const dying = Effect.forEach(upTo(2), () => pause(30).pipe(
          Effect.andThen(oneOf([one.kill, one.stop])), Effect.flatten, Effect.andThen(pause(5)), Effect.andThen(one.start)), { discard: true })
        yield* Effect.all([living, dying], together)
        yield* calm
        yield* Effect.sleep("1 minute")
        yield* one.use(dispatch("chain:start", { tag: "after", width: 1 }))
        yield* calm
        const handled = new Set<string>()
        for (const { handler, id, tag } of seen.filter((each) => each.handler !== "start again")) {
          yield* must(!handled.has(`${handler} ${id}`), `${handler} of ${tag} handled ${id} twice`)
          handled.add(`${handler} ${id}`)
        }
      })
    })
  })

const chained = (tags: ReadonlyArray<string>, seen: ReadonlyArray<Seen>, facts: ReadonlyArray<{ readonly id: string; readonly name: string; readonly data: unknown; readonly attributes: { readonly [key: string]: unknown } }>) =>
  Effect.gen(function*() {
    const factTag = ({ data }: { readonly data: unknown }) => String(Reflect.get(Object(data), "tag"))
    const roots = new Set<string>()
    for (const tag of tags) {
      const own = seen.filter((each) => each.tag === tag)
      const root = own.find(({ handler }) => handler === "start")?.id ?? ""
      roots.add(root)
      for (const each of own) yield* must(each.correlationId === root, `${each.handler} of ${tag} is of the chain ${each.correlationId}, expected ${root}`)
      for (const fact of facts.filter((each) => factTag(each) === tag)) {
        yield* must(fact.attributes["correlationid"] === root, `${fact.name} of ${tag} is of the chain ${String(fact.attributes["correlationid"])}, expected ${root}`)
        yield* must(fact.attributes["causationid"] === Reflect.get(Object(fact.data), "by"), `${fact.name} of ${tag} has another cause than who said it`)
        yield* must(fact.attributes["clientcorrelationid"] === `label ${tag}`, `${fact.name} of ${tag} has the label ${String(fact.attributes["clientcorrelationid"])}`)
        const times = (handler: string) => own.filter((each) => each.handler === handler && each.id === fact.id).length
        const name = fact.name === "chain:began" ? "began" : "followed"
        yield* must(times(name) === 1, `${fact.name} of ${tag} was handled ${times(name)} times`)
        if (name === "began") yield* must(times("observer") === 1, `${fact.name} of ${tag} was observed ${times("observer")} times`)
      }
      const steps = own.filter(({ handler }) => handler === "step")
      for (const step of steps) {
        const cause = [...steps, ...own.filter(({ handler }) => handler === "start")].find(({ id }) => id === step.causationId)
        yield* must(cause !== undefined && cause.depth + 1 === step.depth, `a step of ${tag} is not caused by one of its chain`)
      }
    }
    yield* same("chains", roots.size, tags.length)
    yield* must(facts.length > 0 && facts.filter(({ name }) => name === "chain:began").length === facts.filter(({ name }) => name === "chain:followed").length, "not every reaction said its fact")
  })

// ------------------------------------------------------------------------------------------------------------- deadlines

const Work = Event.make("work:do", { payload: { id: Schema.String, levels: Schema.Int, key: Schema.String }, success: Schema.Int })

interface Line {
  readonly id: string
  readonly at: number
  readonly what: "begin" | "step" | "end"
}

const now = Effect.clockWith((clock) => Effect.sync(() => clock.currentTimeMillisUnsafe()))

const working = (log: Array<Line>, deadlines: Map<string, Array<number>>) => {
  const note = (id: string, what: Line["what"]) => Effect.map(now, (at) => void log.push({ id, at, what }))
  interface Task {
    readonly id: string
    readonly levels: number
    readonly key: string
  }
  const run = ({ id, key, levels }: Task) =>
    Effect.gen(function*() {
      const { metadata: { deadline } } = (yield* current) ?? { metadata: { deadline: undefined } }
      deadlines.set(id, [...deadlines.get(id) ?? [], deadline ?? Infinity])
      const ksi = yield* Ksi
      for (let n = 0; n < 4; n++) {
        yield* pause(4)
        yield* note(id, "step")
      }
      if (levels > 0) {
        yield* Effect.forEach(upTo(1 + (levels % 2)), (n) => Effect.gen(function*() {
          const below = { id, levels: levels - 1, key: `${key}${n}` }
          const how = yield* oneOf(["call", "dispatch", "key", "later"])
          if (how === "call") return yield* ksi.call(Work, below)
          // One that wants less for itself, or more than there is.
          const later = how === "later" ? { deadline: (yield* now) + 1_000_000 } : {}
          return yield* ksi.dispatch("work:do", below, { ...later, ...how === "key" ? { idempotencyKey: `${id} ${below.key}` } : {} })
        }), together)
      }
      return levels
    }).pipe(Effect.catchTag("DeclaredFailure", Effect.die))
  const bracketed = (payload: Task) =>
    Effect.acquireUseRelease(note(payload.id, "begin"), () => run(payload), () => note(payload.id, "end"))
  return Layer.mergeAll(
    Router.handle(Work, ({ levels }) => levels < 0 ? Effect.succeed(-1) : Effect.andThen(pause(1), Router.pass)),
    Router.handle(Work, bracketed, { execution: "sequential", key: ({ key }) => key })
  )
}

/** Who is not waited for any more stops: in its handlers, below them, and before they begin. */
const given: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    const log: Array<Line> = []
    const deadlines = new Map<string, Array<number>>()
    const over = new Map<string, number>()
    return simulate({
      seed, order, nodes: { one: working(log, deadlines) },
      program: ({ calm, nodes: { one } }) => Effect.gen(function*() {
        const started = new Map<string, number>()
        const limits = new Map<string, number>()
        yield* Effect.forEach(upTo(8), (n) => Effect.gen(function*() {
          const id = `${n}`
          yield* pause(10)
          const at = yield* now
          started.set(id, at)
          const millis = yield* oneOf([3, 8, 15, 30, 200])
          const how = yield* oneOf(["deadline", "interrupt", "deadline", "wait"] as const)
          const call = one.use(dispatch("work:do", { id, levels: yield* below(4), key: yield* oneOf(["k", "l", id]) }, {
            ...how === "deadline" ? { deadline: at + millis } : {}, ...(yield* below(2)) === 0 ? { idempotencyKey: id } : {}
          }))
          if (how === "deadline") limits.set(id, at + millis)
          const result = yield* Effect.result(how === "interrupt" ? Effect.timeout(call, millis) : call)
          const end = yield* now
          over.set(id, end)
          if (how === "deadline") yield* must(end <= at + millis, `${id} was answered at ${end - at} ms, its deadline was ${millis}`)
          if (how === "deadline" && Result.isFailure(result)) yield* same(`how ${id} failed`, tagOf(result), "DeadlineExceeded")
          if (how === "wait") yield* must(Result.isSuccess(result), `${id} failed: ${tagOf(result)}`)
        }), together)
        yield* calm
        for (const { at, id, what } of log) yield* must(at <= (over.get(id) ?? 0), `${what} of ${id} ${at - (over.get(id) ?? 0)} ms after its caller was gone`)
        for (const id of over.keys()) {
          const count = (what: Line["what"]) => log.filter((line) => line.id === id && line.what === what).length
          yield* same(`ends of ${id}`, count("end"), count("begin"))
          const limit = limits.get(id)
          if (limit !== undefined) yield* must((deadlines.get(id) ?? []).every((deadline) => deadline <= limit), `below ${id} a deadline is later than its own`)
        }
      })
    })
  })

// --------------------------------------------------------------------------------------------------------------- answers

class No extends Schema.TaggedError<No>()("No", { by: Schema.Int }) {}
const Ask = Event.make("ask:who", { payload: {}, success: Schema.Int, error: No })
const Nobody = Event.make("ask:nobody", { payload: {}, success: Schema.Int })

interface Answering {
  readonly how: "pass" | "answer" | "fail" | "die" | "nested"
  readonly millis: number
  readonly execution: "concurrent" | "sequential"
}

const answering = (them: ReadonlyArray<Answering>) => {
  const one = ({ execution, how, millis }: Answering, by: number) =>
    Router.handle(Ask, () => Effect.gen(function*() {
      yield* millis === 0 ? Effect.void : Effect.sleep(millis)
      if (how === "pass") return yield* Router.pass
      if (how === "fail") return yield* new No({ by })
      if (how === "die") return yield* Effect.die(new Error(`${by}`))
      if (how === "nested") return yield* Effect.catchTag((yield* Ksi).call(Nobody, {}), "KsiError", () => Effect.succeed(by))
      return by
    }), { execution })
  // Each after the one before it: registered in this order.
  return them.map(one).reduce((first, second) => Layer.provideMerge(second, first), Router.handle(Nobody, () => Router.pass))
}

/** The first in the order of registration who does not pass is who answers. */
const firstAnswer: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    // Which handlers there are is of the seed too, and known before the world is.
    const digits = upTo(20).map((n) => Math.floor(Math.abs(Math.sin(seed * 97 + n * 13.7)) * 1000))
    const how = ["pass", "answer", "pass", "fail", "die", "nested", "pass"] as const
    const them = upTo(2 + (digits[0] ?? 0) % 3).map((n): Answering => ({
      how: how[(digits[3 * n + 1] ?? 0) % how.length] ?? "pass", millis: (digits[3 * n + 2] ?? 0) % 4, execution: (digits[3 * n + 3] ?? 0) % 2 === 0 ? "concurrent" : "sequential"
    }))
    const first = them.findIndex((each) => each.how !== "pass")
    const decided = them[first]?.how
    const expected = decided === undefined ? "NoHandler" : decided === "fail" ? `No ${first}` : decided === "die" ? `died ${first}` : `${first}`
    return simulate({
      seed, order, nodes: { one: answering(them) },
      program: ({ nodes: { one } }) => Effect.forEach(upTo(3), () => Effect.gen(function*() {
        yield* pause(3)
        const exit = yield* Effect.exit(one.use(Effect.flatMap(Ksi, (ksi) => ksi.call(Ask, {}))))
        const told = Exit.match(exit, {
          onSuccess: String,
          onFailure: ({ reasons: [reason] }) => {
            if (reason?._tag === "Die") return `died ${reason.defect instanceof Error ? reason.defect.message : ""}`
            if (reason?._tag !== "Fail") return "interrupted"
            return reason.error instanceof No ? `No ${reason.error.by}` : reason.error.reason._tag
          }
        })
        yield* same(`who answers of ${JSON.stringify(them)}`, told, expected)
      }), together)
    })
  })

// ------------------------------------------------------------------------------------------------------------------ keys

const Pay = Event.make("pay:out", { payload: { to: Schema.String, cents: Schema.Int }, success: Schema.String, error: No })
const Refund = Event.make("pay:back", { payload: { to: Schema.String, cents: Schema.Int }, success: Schema.String, error: No })
const Pays = EventGroup.make(Pay, Refund)

const paying = (done: Array<string>) => {
  const run = (name: string) => ({ cents, to }: { readonly to: string; readonly cents: number }) =>
    Effect.gen(function*() {
      const envelope: Envelope | undefined = yield* current
      yield* pause(10)
      if (cents === 13) {
        done.push(`${name} ${envelope?.metadata.idempotencyKey ?? ""} ${to} ${cents}`)
        return yield* new No({ by: 13 })
      }
      done.push(`${name} ${envelope?.metadata.idempotencyKey ?? ""} ${to} ${cents}`)
      return `${name} to ${to}: ${cents}, number ${done.length}`
    })
  return Ksi.serve(Pays).pipe(Layer.provide(Pays.toLayer({ "pay:out": run("out"), "pay:back": run("back") })))
}

/** The same key is carried out once, and answers the same; with anything else it is a conflict. */
const keys: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    const done: Array<string> = []
    const told = new Map<string, Set<string>>()
    // A run that was interrupted leaves nothing behind: it may have done its work all the same.
    const isImpatient = seed % 3 === 0
    return simulate({
      seed, order, nodes: { bank: paying(done) }, disk: seed % 2 === 0 ? undefined : {},
      program: ({ calm, nodes: { bank } }) => Effect.gen(function*() {
        const one = Effect.gen(function*() {
          yield* pause(30)
          const name = yield* oneOf(["pay:out", "pay:back"])
          const key = yield* oneOf(["k1", "k2", "k3"])
          const payload = { to: yield* oneOf(["ann", "ann", "ann", "bob"]), cents: yield* oneOf([1, 1, 1, 13]) }
          const data = (yield* below(2)) === 0 ? payload : { cents: payload.cents, to: payload.to }
          const call = bank.use(dispatch(name, data, { idempotencyKey: key }))
          const result = yield* Effect.result(isImpatient && (yield* below(4)) === 0 ? Effect.timeout(call, 5) : call)
          const text = Result.isSuccess(result) ? JSON.stringify(result.success) : tagOf(result)
          // One who comes while another payload is under way is refused, and may be right later, where that one was interrupted.
          if (text === "unknown" || text === "IdempotencyConflict") return
          const id = `${name} ${key} ${payload.to} ${payload.cents}`
          told.set(id, (told.get(id) ?? new Set()).add(text))
        })
        yield* Effect.forEach(upTo(14), () => one, together)
        yield* calm
        yield* seed % 2 === 0 ? Effect.void : Effect.andThen(bank.kill, bank.start)
        yield* Effect.forEach(upTo(6), () => one, together)
        yield* calm
        for (const [id, answers] of told) yield* must(answers.size <= 1, `${id} was answered ${[...answers].join(" and ")}`)
        for (const name of ["out", "back"]) {
          for (const key of ["k1", "k2", "k3"]) {
            const runs = done.filter((line) => line.startsWith(`${name} ${key} `))
            yield* must(isImpatient || runs.length <= 1, `${name} under ${key} was carried out ${runs.length} times: ${runs.join(", ")}`)
            const answered = [...told].filter(([id]) => id.startsWith(`pay:${name} ${key} `))
            yield* must(answered.length <= 1, `${name} under ${key} was answered with several payloads: ${answered.map(([id]) => id).join(", ")}`)
          }
        }
      })
    })
  })

// ---------------------------------------------------------------------------------------------------------------- letters

const Sent = Event.fact("mail:sent", { payload: { n: Schema.Int, how: Schema.Literals(["fine", "fail", "die", "slow"]) }, streamId: ({ n }) => `mail-${n % 2}` })

const mailing = (isMended: () => boolean) => {
  const react = (offset: number) => ({ how }: { readonly n: number; readonly how: "fine" | "fail" | "die" | "slow" }) =>
    Effect.gen(function*() {
      yield* pause(5)
      if (isMended() || how === "fine") return
      if (how === "fail") return yield* Effect.fail(new Error(`${offset}`))
      if (how === "die") return yield* Effect.die(new Error(`${offset}`))
      yield* Effect.sleep("1 hour")
    })
  return Layer.mergeAll(
    Router.handle(Sent, react(0), { name: "first", timeout: "1 second" }),
    Router.handle(Sent, react(1), { name: "second", timeout: "1 second" }),
    Router.observe("mail:*", () => Effect.andThen(pause(3), isMended() ? Effect.void : Effect.fail(new Error("observer"))), { name: "observer" }),
    DeadLetter.layer
  )
}

/** Each reaction that fails has one letter, until it is rerun well. */
const letters: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    let isMended = false
    return simulate({
      seed, order, nodes: { post: mailing(() => isMended) }, ...(seed % 2 === 0 ? {} : { disk: {} }),
      program: ({ calm, nodes: { post } }) => Effect.gen(function*() {
        const hows = yield* Effect.forEach(upTo(6), () => oneOf(["fine", "fail", "die", "slow"] as const))
        yield* Effect.forEach(hows, (how, n) => Effect.andThen(pause(20), post.use(Effect.flatMap(Ksi, ({ emit }) => emit(Sent, { n, how })))), together)
        yield* calm
        yield* Effect.sleep("1 second")
        const expected = hows.flatMap((how, n) => how === "fine" ? [`${n} observer`] : [`${n} first`, `${n} observer`, `${n} second`]).toSorted()
        const list = post.use(Effect.flatMap(DeadLetters, (all) => all.list({ limit: 100 })))
        const nameOf = ({ event, handler }: { readonly event: { readonly data: unknown }; readonly handler: string }) => `${Reflect.get(Object(event.data), "n")} ${handler}`
        const first = yield* list
        yield* same("letters", first.letters.map(nameOf).toSorted(), expected)
        yield* same("how many letters there are", first.total, expected.length)
        const [one] = first.letters
        if (one === undefined) return
        const rerun = (letter: number) => post.use(dispatch("deadletter:rerun", { letter }))
        yield* same("a rerun in vain", tagOf(yield* Effect.result(rerun(one.letter))), "HandlerFailed")
        yield* same("letters after a rerun in vain", (yield* list).letters.map(nameOf).toSorted(), expected)
        isMended = true
        yield* Effect.forEach(first.letters, ({ letter }) => rerun(letter), together)
        yield* calm
        yield* same("letters after reruns", (yield* list).letters.map(nameOf), [])
      })
    })
  })

/** Promises of the bus. */
export const checks: ReadonlyArray<Check> = [
  { name: "what is caused is of its chain, and happens once", seeds: 25, run: causes },
  { name: "nothing is handled twice, whoever dies", seeds: 25, run: once },
  { name: "who is not waited for any more stops", seeds: 60, run: given },
  { name: "the first who does not pass answers", seeds: 120, run: firstAnswer },
  { name: "a key is carried out once", seeds: 60, run: keys },
  { name: "who fails to react has one letter", seeds: 25, run: letters }
]
