// Making programs of a seed, and making one that fails smaller.
import * as Arbitrary from "effect/Arbitrary"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Json from "../../event/Json.ts"
import { chance } from "./chance.ts"
import { type Asked, type Command, madeOf, type Plan, type Played, type Program, type Sample } from "./program.ts"

/** How large programs are. */
export interface Sizes {
  /** Commands in turn, at most. */
  readonly maxCommands: number
  /** How many go at the same time; 1 where all go in turn. */
  readonly fibers: number
}

// Commands of one fiber, and commands after those: an order of so few is found at once.
const perFiber = 3
const afterwards = 2

/** Makes the program of a seed. */
export const make = (plan: Plan, { fibers, maxCommands }: Sizes, seed: number): Effect.Effect<Program> =>
  Effect.gen(function*() {
    const next = chance(seed)
    const below = (count: number): number => Math.floor(next() * count)
    const samples: Array<Sample> = []
    const linked: Array<Command["links"]> = []
    // Some programs know only some of the commands, and some speak of the same things nearly always: what few do together is found so.
    const some = plan.commands.filter(() => next() < 0.6)
    const known = some.length > 0 ? some : plan.commands
    const affinities = new Map<string, number>()
    const affinity = (key: string): number => {
      const chosen = affinities.get(key) ?? [0, 0.5, 0.9][below(3)] ?? 0
      affinities.set(key, chosen)
      return chosen
    }
    const command = Effect.gen(function*() {
      const chosen = known[below(known.length)]
      if (chosen === undefined) return []
      const [event, modelled] = chosen
      const [size, of] = [below(11), below(2 ** 31)]
      const drawn = yield* Effect.option(Arbitrary.sampleEffect(modelled.made, { count: 1, seed: of, size }))
      if (drawn._tag === "None") return []
      const payload = drawn.value[0]
      // What others have under the same name is taken over: commands meet where they speak of the same thing.
      const links: Record<string, number> = {}
      for (const key of Json.isObject(payload) ? Object.keys(payload) : []) {
        const others = samples.flatMap((sample, at) => Json.isObject(sample.payload) && key in sample.payload ? [at] : [])
        const other = others[below(others.length)]
        if (other !== undefined && next() < affinity(key)) links[key] = linked[other]?.[key] ?? other
      }
      linked.push(links)
      samples.push({ payload, made: modelled.made, seed: of, size })
      return [{ event, modelled, sample: samples.length - 1, links, picks: [next(), next(), next(), next()] }]
    })
    const several = (count: number) => Effect.map(Effect.replicateEffect(command, count), (lists) => lists.flat())
    if (fibers < 2) return { samples, before: yield* several(1 + below(maxCommands)), together: [], after: [], order: undefined }
    const before = yield* several(below(Math.min(maxCommands, 6)))
    const together: Array<ReadonlyArray<Command>> = []
    for (let fiber = 0; fiber < fibers; fiber++) together.push(yield* several(1 + below(perFiber)))
    return { samples, before, together, after: yield* several(below(afterwards + 1)), order: seed }
  })

/** How many commands it has. */
export const length = ({ after, before, together }: Program): number => before.length + together.flat().length + after.length

/** Only what was asked. */
const cut = ({ program, trace }: Played): Program => {
  const commands = (asked: ReadonlyArray<Asked>) => asked.map(({ command }) => command)
  return { ...program, before: commands(trace.before), together: trace.together.map(commands), after: commands(trace.after) }
}

const without = (program: Program, gone: (nth: number) => boolean): Program => {
  let nth = 0
  const keep = (commands: ReadonlyArray<Command>) => commands.filter(() => !gone(nth++))
  const before = keep(program.before)
  const together = program.together.map(keep).filter((fiber) => fiber.length > 0)
  return { ...program, before, together, after: keep(program.after) }
}

const mapped = (program: Program, change: (command: Command, nth: number) => Command): Program => {
  let nth = 0
  const all = (commands: ReadonlyArray<Command>) => commands.map((command) => change(command, nth++))
  return { ...program, before: all(program.before), together: program.together.map(all), after: all(program.after) }
}

const withSample = (program: Program, at: number, sample: Sample): Program => ({
  ...program, samples: program.samples.map((each, nth) => nth === at ? sample : each)
})

/** The same program, in which what has the same value under the same name comes of one sample: it gets smaller together. */
const linkedUp = (program: Program): Program => {
  const known: Array<{ readonly key: string; readonly value: unknown; readonly from: number }> = []
  return mapped(program, (command) => {
    const made = madeOf(program, command)
    const links: Record<string, number> = {}
    for (const [key, value] of Json.isObject(made) ? Object.entries(made) : []) {
      const same = known.find((other) => other.key === key && Equal.equals(other.value, value))
      const from = same?.from ?? command.links[key] ?? command.sample
      if (same === undefined) known.push({ key, value, from })
      if (from !== command.sample) links[key] = from
    }
    return { ...command, links }
  })
}

/** Programs that are a little simpler, those that are simpler by much first. */
const simpler = function*(program: Program): Generator<Program> {
  const { after, before, together } = program
  const count = length(program)
  if (together.length > 0) yield { ...program, before: [...before, ...together.flat(), ...after], together: [], after: [] }
  if (together.length === 0 && program.order !== undefined) yield { ...program, order: undefined }
  for (const gone of together) yield { ...program, together: together.filter((fiber) => fiber !== gone) }
  for (let size = Math.ceil(count / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < count; from += size) yield without(program, (nth) => nth >= from && nth < from + size)
  }
  // What is done and undone goes only together.
  for (let a = 0; a < count && count <= 12; a++) {
    for (let b = a + 1; b < count; b++) yield without(program, (nth) => nth === a || nth === b)
  }
  for (const [at, [first, ...rest]] of together.entries()) {
    if (first === undefined || together.length < 2) continue
    const others = together.map((fiber, nth) => nth === at ? rest : fiber).filter((fiber) => fiber.length > 0)
    if (others.length > 1) yield { ...program, before: [...before, first], together: others }
    const last = rest.at(-1)
    if (last !== undefined) {
      yield { ...program, together: together.map((fiber, nth) => nth === at ? fiber.slice(0, -1) : fiber), after: [last, ...after] }
    }
  }
  for (const [at, { modelled, picks }] of [...before, ...together.flat(), ...after].entries()) {
    if (!modelled.isChosen || picks.every((pick) => pick === 0)) continue
    yield mapped(program, (command, nth) => nth === at ? { ...command, picks: picks.map(() => 0) } : command)
  }
}

/** What is known of a search. */
export interface Smaller {
  readonly played: Played
  /** How many programs were played. */
  readonly tries: number
}

// So many programs are played in search of a smaller one.
const maxTries = 2000
// What is simpler goes in another order and may lose the race: several are tried, the more the fewer commands are left to race.
const ordersOf = (program: Program): number => Math.max(8, Math.ceil(48 / length(program)))

/** Makes a program that fails smaller, as long as it fails in the same way. */
export const shrink = (play: (program: Program) => Effect.Effect<Played>, first: Played): Effect.Effect<Smaller> =>
  Effect.gen(function*() {
    let best: Played = { ...first, program: cut(first) }
    let tries = 0
    const kind = first.problem?.kind
    /** Whether it fails as well; then it is the best. */
    const isAlso = Effect.fnUntraced(function*(program: Program) {
      const seeds = program.together.length === 0 ? [program.order] : Array.from({ length: ordersOf(program) }, (_, nth) => nth === 0 ? program.order : nth - 1)
      for (const order of seeds) {
        if (tries++ >= maxTries) return false
        const played = yield* play({ ...program, order })
        if (played.problem?.kind === kind) {
          best = { ...played, program: cut(played) }
          return true
        }
      }
      return false
    })
    const fewer = Effect.gen(function*() {
      let has = false
      search: for (;;) {
        for (const program of simpler(best.program)) {
          if (!(yield* isAlso(program))) continue
          has = true
          continue search
        }
        return has
      }
    })
    /** Payloads, as the arbitrary that made them makes them smaller. */
    const plainer = Effect.gen(function*() {
      let has = false
      const { after, before, together } = best.program
      const used = new Set([...before, ...together.flat(), ...after].flatMap(({ links, sample }) => [sample, ...Object.values(links)]))
      for (const nth of used) {
        const sample = best.program.samples[nth]
        if (sample === undefined) continue
        const isKept = (payload: unknown) => Effect.map(isAlso(withSample(best.program, nth, { ...sample, payload })), (fails) => !fails)
        yield* Arbitrary.checkEffect(sample.made, isKept, { runs: 1, seed: sample.seed, size: sample.size, maxShrinks: 80 })
        has ||= !Equal.equals(best.program.samples[nth]?.payload, sample.payload)
      }
      return has
    })
    for (let round = 0; round < 4 && tries < maxTries; round++) {
      yield* fewer
      const isPlainer = yield* plainer
      best = { ...best, program: linkedUp(best.program) }
      if (!(yield* plainer) && !isPlainer) break
    }
    return { played: best, tries }
  })
