/** What permissions promise: who may not, sets nothing off. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Middleware from "../../../../src/bus/Middleware.ts"
import * as Router from "../../../../src/bus/Router.ts"
import * as Event from "../../../../src/event/Event.ts"
import * as EventGroup from "../../../../src/event/EventGroup.ts"
import * as KsiError from "../../../../src/event/KsiError.ts"
import { Ksi } from "../../../../src/Ksi.ts"
import { EventStore, ownStream } from "../../../../src/store/EventStore.ts"
import { Permissions } from "../../../../src/store/Permissions.ts"
import { below, type Check, must, oneOf, pause, same, simulate, together, upTo } from "./Check.ts"

const Read = Event.make("safe:read", { payload: { n: Schema.Int }, success: Schema.Int, idempotent: true })
const Open = Event.make("safe:open", { payload: { n: Schema.Int }, success: Schema.Int })
const Watch = Event.make("safe:watch", { payload: { n: Schema.Int }, success: Schema.Int, stream: true })
const Opened = Event.fact("safe:opened", { payload: { n: Schema.Int }, streamId: ({ n }) => `safe-${n}` })
const Safe = EventGroup.make(Read, Open, Watch, Opened)

const safe = (happened: Array<string>) => {
  const note = (what: string, n: number) => Effect.sync(() => void happened.push(`${what} ${n}`))
  const handlers = Safe.toLayer({
    "safe:read": ({ n }) => Effect.as(note("read", n), n),
    *"safe:open"({ n }) {
      yield* note("open", n)
      yield* (yield* Ksi).emit(Opened, { n })
      return n
    },
    "safe:watch": ({ n }) => Stream.fromEffect(Effect.as(note("watch", n), n)),
    "safe:opened": ({ n }) => note("opened", n)
  })
  const Counting = Middleware.make("counting", { before: (envelope) => note("before", Number(Reflect.get(Object(envelope.data), "n"))) })
  return Layer.mergeAll(
    Ksi.serve(Safe).pipe(Layer.provide(handlers)),
    Middleware.use(Counting, { pattern: "safe:*" }),
    Router.observe("safe:*", ({ data }) => note("observed", Number(Reflect.get(Object(data), "n"))))
  )
}

const tagOf = (result: Result.Result<unknown, unknown>): string =>
  Result.isSuccess(result) ? "success" : KsiError.is(result.failure) ? result.failure.reason._tag : "other"

/** Asks as somebody; the payload may be none that the event takes: who may not is not told. */
const asking = (principal: string, name: string, n: number, isValid: boolean, idempotencyKey: string | undefined) =>
  Effect.flatMap(Router.Router, (router) => Effect.result(router.dispatch(router.envelope(name, isValid ? { n } : { n: `${n}` }, { principal, idempotencyKey }))))

/** Who may not is told so, and nothing has happened. */
const denied: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    const happened: Array<string> = []
    return simulate({
      seed, order, nodes: { one: safe(happened) }, ...(seed % 3 === 0 ? { disk: {} } : {}),
      program: ({ calm, nodes: { one } }) => Effect.gen(function*() {
        const grant = (principal: string, pattern: string) => one.use(Effect.flatMap(Permissions, (all) =>
          all.grant({ by: "owner", principal, rule: { pattern, actions: ["call", "emit", "subscribe"], allow: true } })))
        yield* grant("reader", "safe:read")
        yield* grant("stranger", "other:*")
        yield* Effect.forEach(upTo(12), (n) => Effect.gen(function*() {
          yield* pause(5)
          const principal = yield* oneOf(["stranger", "nobody", "reader"])
          const name = yield* oneOf(["safe:open", "safe:opened", "safe:read"])
          const isValid = (yield* below(3)) > 0
          const key = (yield* below(3)) === 0 ? `k${n}` : undefined
          const told = tagOf(yield* one.use(asking(principal, name, n, isValid, key)))
          const may = principal === "reader" && name === "safe:read"
          yield* same(`${principal} asks ${name}`, told, may ? isValid ? "success" : "PayloadInvalid" : "PermissionDenied")
          if (!may) yield* must(!happened.some((line) => line.endsWith(` ${n}`)), `${principal} may not ${name}, and: ${happened.filter((line) => line.endsWith(` ${n}`)).join(", ")}`)
        }), together)
        yield* calm
        yield* must(!happened.some((line) => line.startsWith("open")), `nobody may open, and: ${happened.join(", ")}`)
        const facts = yield* one.use(Effect.flatMap(EventStore, ({ read }) => read({ from: 1, limit: 100 })))
        yield* same("facts of those who may not", facts.filter(({ streamId }) => !ownStream(streamId)).length, 0)
      })
    })
  })

/** What was granted is so when that is answered, and what was revoked is not; many at once lose nothing. */
const granted: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    const happened: Array<string> = []
    return simulate({
      seed, order, nodes: { one: safe(happened) }, ...(seed % 2 === 0 ? {} : { disk: {} }),
      program: ({ nodes: { one } }) => Effect.gen(function*() {
        const people = ["ann", "bob", "cem", "dan"]
        const rule = { pattern: "safe:*", actions: ["call"], allow: true } as const
        const permissions = <A, E>(use: (all: Permissions["Service"]) => Effect.Effect<A, E>) => one.use(Effect.flatMap(Permissions, use))
        const may = (principal: string) => Effect.map(one.use(asking(principal, "safe:read", 1, true, undefined)), Result.isSuccess)
        yield* Effect.forEach(people, (principal) => Effect.gen(function*() {
          for (const _ of upTo(3)) {
            yield* pause(3)
            yield* permissions((all) => all.grant({ by: "owner", principal, rule }))
            yield* must(yield* may(principal), `${principal} may not, and was granted it`)
            yield* pause(3)
            yield* permissions((all) => all.revoke({ by: "owner", principal, pattern: rule.pattern }))
            yield* must(!(yield* may(principal)), `${principal} may, and it was revoked`)
          }
          yield* permissions((all) => all.grant({ by: "owner", principal, rule }))
        }), together)
        if (seed % 2 === 1) yield* Effect.andThen(one.kill, one.start)
        const items = yield* permissions((all) => Effect.map(all.view(), (view) => view.items().map(({ principal }) => principal)))
        yield* same("who was granted something", items.filter((principal) => people.includes(principal)).toSorted(), people)
        for (const principal of people) yield* must(yield* may(principal), `${principal} may not any more`)
      })
    })
  })

/** Who follows hears what it may, and nothing else. */
const heard: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    const happened: Array<string> = []
    const Loud = Event.fact("loud:said", { payload: { n: Schema.Int }, streamId: () => "loud" })
    const Silent = Event.fact("secret:kept", { payload: { n: Schema.Int }, streamId: () => "secret" })
    const Words = EventGroup.make(Loud, Silent)
    return simulate({
      seed, order, nodes: { one: Layer.merge(safe(happened), Ksi.serve(Words).pipe(Layer.provide(Words.toLayer({})))) },
      program: ({ calm, nodes: { one } }) => Effect.gen(function*() {
        yield* one.use(Effect.flatMap(Permissions, (all) => all.grant({ by: "owner", principal: "ear", rule: { pattern: "loud:*", actions: ["subscribe"], allow: true } })))
        const names: Array<string> = []
        const listening = yield* Effect.forkChild(one.use(Effect.flatMap(Ksi, (ksi) =>
          Stream.runForEach(ksi.subscribe("*", { principal: "ear", from: "start" }), ({ data, name }) => Effect.sync(() => names.push(`${name} ${JSON.stringify(data)}`))))))
        const emits = yield* Effect.forEach(upTo(10), (n) => oneOf<typeof Loud | typeof Silent>([Loud, Silent]).pipe(Effect.tap((fact) => Effect.andThen(pause(5), one.use(Effect.flatMap(Ksi, ({ emit }) => emit(fact, { n }))))), Effect.map((fact) => ({ fact, n }))), together)
        yield* calm
        yield* same("what was heard", names.toSorted(), emits.filter(({ fact }) => fact === Loud).map(({ n }) => `loud:said {"n":${n}}`).toSorted())
        yield* Fiber.interrupt(listening)
      })
    })
  })

/** Promises of permissions. */
export const checks: ReadonlyArray<Check> = [
  { name: "who may not, sets nothing off", seeds: 40, run: denied },
  { name: "a grant holds from its answer to that of its end", seeds: 20, run: granted },
  { name: "followers hear what they may", seeds: 20, run: heard }
]
