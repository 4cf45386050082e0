/**
 * Bugs of kinds that peers really had, planted in KSI's source by text: what a harness is worth is how many of them it
 * finds in an application that has one of them, and in none that has not.
 *
 * The rule: a plant is the subtle form of its kind. It compiles, leaves what everybody tries first as it is, and is wrong
 * under an interleaving, a fault or a shape of input, said nowhere but here. The text to replace must be there exactly
 * once: where the source has moved on, the bug is planted anew by hand.
 *
 * **Example**
 *
 * ```ts
 * const [plant] = plants
 * const [edit] = plant.edits
 * planted(Fs.readFileSync(`src/${edit.file}`, "utf8"), plant, edit.file)      // the source with the bug in it
 * ```
 *
 * **Gotchas** Whoever writes checks does not read this file.
 */

/** One place of a plant. */
export interface Edit {
  /** Below `src`. */
  readonly file: string
  /** What is there, exactly once. */
  readonly find: string
  readonly replace: string
}

/** A bug of a kind that a peer really had, planted in KSI's source by text. */
export interface Plant {
  readonly name: string
  readonly kind: Kind
  readonly edits: ReadonlyArray<Edit>
  /** What a user would see. */
  readonly what: string
  /** Where this kind was seen in the wild, where it can be named. */
  readonly peer?: string
}

/** The kinds of bugs that are planted. */
export const kinds = [
  "lost update", "gap skip", "correlation mix-up", "replay fires an effect", "subscription hole", "reused idempotency key",
  "handler after interruption", "double dead letter", "stale head after failed commit", "reply by a passed handler",
  "deadline lost on a nested call", "permission checked after the handler"
] as const

/** The kind of a bug. */
export type Kind = typeof kinds[number]

/** All of them. */
export const plants: ReadonlyArray<Plant> = [
  {
    name: "append-looks-then-writes",
    kind: "lost update",
    what: "Two writers that expect the same version of a stream at the same moment both succeed, in a store in memory.",
    peer: "Eventuous/eventuous#582",
    edits: [{
      file: "store/internal/MemoryDriver.ts",
      find: `    const before = memory.length
    const committed = commit(memory, request, clock.currentTimeMillisUnsafe())`,
      replace: `    // Others run between a look at a version and what follows from it: a writer of many streams holds up nobody.
    if (request.expectedVersion !== undefined && memory.version(request.facts[0]?.streamId ?? "") === request.expectedVersion) {
      return Effect.andThen(Effect.yieldNow, Effect.suspend(() => append({ ...request, expectedVersion: undefined })))
    }
    const before = memory.length
    const committed = commit(memory, request, clock.currentTimeMillisUnsafe())`
    }]
  },
  {
    name: "spill-reads-on-behind",
    kind: "gap skip",
    what: "A subscriber that was slower than its buffer misses one fact each time that it is read back from the store.",
    peer: "commanded/eventstore#327",
    edits: [{
      file: "bus/internal/follower.ts",
      find: "      this.reads = this.spilled\n",
      replace: "      this.reads = this.spilled + 1\n"
    }]
  },
  {
    name: "handlers-share-their-context",
    kind: "correlation mix-up",
    what: "What a handler causes after it has waited carries the ids of the request of the same event that came last.",
    peer: "gmr/rejected#81",
    edits: [
      {
        file: "bus/internal/compiled.ts",
        find: `// By itself: what a closure keeps is kept elsewhere than what is only passed on, and that costs every call.
`,
        replace: `const services = new Map(context.mapUnsafe)
// One for all calls: to make one costs every call.
const inside = parts.makeUnsafe(services)
// By itself: what a closure keeps is kept elsewhere than what is only passed on, and that costs every call.
`
      },
      {
        file: "bus/internal/compiled.ts",
        find: "  const inside = add(context, Current, envelope)\n",
        replace: "  services.set(Current.key, envelope)\n"
      },
      {
        file: "bus/internal/compiled.ts",
        find: "    makePayload: codec.makePayload,\n",
        replace: "    makePayload: codec.makePayload,\n    makeUnsafe: Context.makeUnsafe,\n"
      }
    ]
  },
  {
    name: "reactions-go-on-from-before",
    kind: "replay fires an effect",
    what: "The first fact that is said in a process runs the reactions to the fact before it once more, where one was stored already.",
    peer: "automagik-dev/omni#411",
    edits: [
      {
        file: "bus/internal/reactions.ts",
        find: `import { Current, labelsOf, LiveEnvelope, servicesOf } from "../Causation.ts"
`,
        replace: `import { Current, labelsOf, LiveEnvelope, servicesOf } from "../Causation.ts"
import { Journal } from "../Journal.ts"
`
      },
      {
        file: "bus/internal/reactions.ts",
        find: `  return {
    run,
    observers,
`,
        replace: `  const journal = yield* Journal
  let isResumed = false
  /** What the process before this one was at when it ended. */
  const resume = (last: number): void => {
    isResumed = true
    Effect.runFork(Effect.map(journal.read({ from: last, to: last, limit: 1 }), ([fact]) => {
      const entry = fact && table.get(fact.name)
      if (fact === undefined || entry === undefined || entry.event.kind !== "fact") return
      for (const handler of entry.handlers) react(entry, handler, Envelope.fromFact(fact, entry.codec.readFact(fact.data)))
    }))
  }

  return {
    run,
    observers,
`
      },
      {
        file: "bus/internal/reactions.ts",
        find: `      for (const handler of entry.handlers) react(entry, handler, delivery())
`,
        replace: `      if (!isResumed) resume(Number(delivery().position ?? 0) - 1)
      for (const handler of entry.handlers) react(entry, handler, delivery())
`
      }
    ]
  },
  {
    name: "caught-up-when-read",
    kind: "subscription hole",
    what: "A subscriber that is busy with the last of what was stored misses what is said meanwhile.",
    peer: "johanhaleby/occurrent#208",
    edits: [
      {
        file: "bus/internal/follower.ts",
        find: "  private wasLive = false\n",
        replace: "  private wasLive = false\n  /** Whether it has read all there is. */\n  private isThrough = false\n"
      },
      {
        file: "bus/internal/follower.ts",
        find: "    if (this.detach === undefined && !this.isClosed && this.reads > this.shared.journal.head()) {\n",
        replace: `    if (this.detach === undefined && !this.isClosed && (this.isThrough || this.reads > this.shared.journal.head())) {
      this.isThrough = false
`
      },
      {
        file: "bus/internal/follower.ts",
        find: `        if (this.pattern.matches(fact.name) && this.sees?.(fact.name) !== false) this.backlog.facts.push(fact)
      }
`,
        replace: `        if (this.pattern.matches(fact.name) && this.sees?.(fact.name) !== false) this.backlog.facts.push(fact)
      }
      this.isThrough = this.reads > this.shared.journal.head()
`
      }
    ]
  },
  {
    name: "same-key-same-answer",
    kind: "reused idempotency key",
    what: "Who asks something else under a key while it is being answered gets the answer of the other one.",
    peer: "josipmusa/idempotency4j#12",
    edits: [{
      file: "store/IdempotencyTable.ts",
      find: "        if (other.request !== request.request) return conflict()\n        return restore(",
      replace: "        return restore("
    }]
  },
  {
    name: "turn-is-kept",
    kind: "handler after interruption",
    what: "A handler that waits for the turn of its key runs to its end, though its caller has gone or its time has passed.",
    peer: "neo4j/neo4j#8145",
    edits: [{
      file: "bus/internal/answers.ts",
      find: "lane[0] === turn ? run : Effect.andThen(begun(lane, turn), run),",
      replace: "lane[0] === turn ? run : Effect.uninterruptible(Effect.andThen(begun(lane, turn), run)),"
    }]
  },
  {
    name: "buried-where-it-ran",
    kind: "double dead letter",
    what: "A reaction with a key that fails is among the dead letters twice, and so is one whose rerun fails.",
    peer: "awsdocs/amazon-sqs-developer-guide#52",
    edits: [{
      file: "bus/internal/reactions.ts",
      find: "    return Effect.updateContext(lanes.inTurn(handler, envelope, bounded(handler, reaction)), () => surroundings(handler, envelope))\n",
      replace: `    const told = Effect.tapCause(bounded(handler, reaction), (cause) => failed(entry, handler, envelope, cause))
    return Effect.updateContext(lanes.inTurn(handler, envelope, told), () => surroundings(handler, envelope))
`
    }, {
      file: "bus/internal/reactions.ts",
      find: "  const run = ({ reacting: hooks }: TableEntry, handler: HandlerEntry, envelope: Envelope.Envelope): Run => {\n",
      replace: `  const run = (entry: TableEntry, handler: HandlerEntry, envelope: Envelope.Envelope): Run => {
    const { reacting: hooks } = entry
`
    }]
  },
  {
    name: "versions-of-what-was-taken-back",
    kind: "stale head after failed commit",
    what: "An append in memory that is refused after its first facts leaves a gap in the versions of a stream that was there before.",
    peer: "facebook/rocksdb#12927",
    edits: [{
      file: "store/internal/Memory.ts",
      find: `      stream?.pop()
      if (stream?.length === 0) this.byStream.delete(last.streamId)
`,
      replace: `      // Who is the only one goes with its stream.
      if (stream?.length === 1) this.byStream.delete(last.streamId)
`
    }]
  },
  {
    name: "head-before-commit",
    kind: "stale head after failed commit",
    what: "After a commit that the disk refused, positions in the file go on from facts that never were.",
    peer: "facebook/rocksdb#12927",
    edits: [{
      file: "store/internal/FactWriter.ts",
      find: `        return answers
      })
      this.head += this.facts.length
`,
      replace: `        this.head += this.facts.length
        return answers
      })
`
    }]
  },
  {
    name: "who-is-first-done",
    kind: "reply by a passed handler",
    what: "Of handlers that are asked together one that has its answer at once is taken, though one before it would have answered.",
    edits: [{
      file: "bus/internal/answers.ts",
      find: "    const exit = yield* Fiber.await(fiber)\n",
      replace: `    // Who has its answer need not wait for those that have none yet.
    const done = fibers.find((other) => {
      const exit = other.pollUnsafe()
      return exit !== undefined && !isPass(exit, envelope)
    })
    const exit = yield* Fiber.await(done ?? fiber)
`
    }]
  },
  {
    name: "key-and-deadline-stay-here",
    kind: "deadline lost on a nested call",
    what: "What is asked inside of a request that has an idempotency key and a deadline has no deadline.",
    peer: "grpc/grpc#12655",
    edits: [{
      file: "bus/Causation.ts",
      find: "this.origin : { ...this.origin, idempotencyKey: undefined }\n",
      replace: "this.origin : { ...this.origin, idempotencyKey: undefined, deadline: undefined, due: undefined }\n"
    }]
  },
  {
    name: "refused-when-answered",
    kind: "permission checked after the handler",
    what: "Who may not ask something is told so, and a handler that completes at once has done it all the same.",
    peer: "graphql-hive/envelop#997",
    edits: [
      {
        file: "bus/internal/untyped.ts",
        find: `    const refused = door.refuse(entry, envelope, use)
    if (refused !== undefined) return refused
    if (entry === undefined) return door.unknown(envelope)
`,
        replace: `    const refused = door.refuse(entry, envelope, use)
    if (entry === undefined) return refused ?? door.unknown(envelope)
    if (refused !== undefined && use !== "call") return refused
`
      },
      {
        file: "bus/internal/untyped.ts",
        find: `    return Exit.isExit(run)
      ? encodeExit(entry, envelope, run)
`,
        replace: `    if (refused !== undefined) return refused
    return Exit.isExit(run)
      ? encodeExit(entry, envelope, run)
`
      }
    ]
  }
]

/**
 * The source of a file below `src` with the bug in it; as it is where the plant does not touch that file. Throws where a
 * text to replace is not there exactly once: the source has moved on, and the bug must be planted anew.
 */
export const planted = (source: string, plant: Plant, file: string): string =>
  plant.edits.reduce((text, edit) => {
    if (edit.file !== file) return text
    const parts = text.split(edit.find)
    if (parts.length !== 2) {
      throw new Error(`the plant "${plant.name}" finds its place in src/${file} ${parts.length - 1} times, not once: plant it anew`)
    }
    return parts.join(edit.replace)
  }, source)
