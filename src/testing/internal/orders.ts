// Whether what came of calls at the same time fits some order of them, one after another, in which each ended before those that began
// later began. Wing and Gong, with a memory of what was tried.
import * as Equal from "effect/Equal"
import { type Answer, fits } from "./expectations.ts"
import type { Call } from "./playing.ts"

/** What a model says must come of a command, and the state after it. */
export interface Told {
  readonly answer: Answer
  readonly next: (reply: unknown) => unknown
  /** Whether the state after it needs what was replied. */
  readonly needsReply: boolean
}

/** A call, and what the model says of it in a state. */
export interface Operation {
  readonly call: Call
  readonly payload: unknown
  readonly next: ((state: unknown, payload: unknown) => Told) | undefined
  readonly reply: unknown
}

/** Adds a state where an equal one is not there yet; whether it was not. */
const added = (states: Array<unknown>, state: unknown): boolean => {
  if (states.some((each) => Equal.equals(each, state))) return false
  states.push(state)
  return true
}

/** The states in which the model may be after all of these; none where no order fits. */
export const fitting = (initial: unknown, operations: ReadonlyArray<Operation>): ReadonlyArray<unknown> => {
  const ends: Array<unknown> = []
  const tried = new Map<number, Array<unknown>>()
  const all = 2 ** operations.length - 1
  const isLeft = (left: number, nth: number) => (left & (1 << nth)) !== 0
  const go = (left: number, state: unknown): void => {
    const seen = tried.get(left) ?? []
    tried.set(left, seen)
    if (!added(seen, state)) return
    if (left === 0) return void added(ends, state)
    operations.forEach(({ call, next, payload, reply }, nth) => {
      if (!isLeft(left, nth)) return
      // Somebody who is left had ended before this one began.
      if (operations.some((other, at) => isLeft(left, at) && other.call.to < call.from)) return
      if (next === undefined) return go(left & ~(1 << nth), state)
      const told = next(state, payload)
      if (fits(call.event, told.answer, call.exit)) go(left & ~(1 << nth), told.next(reply))
    })
  }
  go(all, initial)
  return ends
}

/** All orders of these lists in which each list keeps its own. */
const interleaved = function*<A>(lists: ReadonlyArray<ReadonlyArray<A>>): Generator<ReadonlyArray<A>> {
  if (lists.every(({ length }) => length === 0)) return yield []
  for (const [at, [first, ...rest]] of lists.entries()) {
    if (first === undefined) continue
    for (const others of interleaved(lists.map((list, nth) => nth === at ? rest : list))) yield [first, ...others]
  }
}

/**
 * What the model says of each operation, in the order in which they stand, and the state in the end: one for each order of the lists.
 * Orders in which the state after an operation cannot be told, because it never replied, are left out.
 */
export const allOrders = (
  initial: unknown,
  fibers: ReadonlyArray<ReadonlyArray<Operation>>,
  after: ReadonlyArray<Operation>
): ReadonlyArray<{ readonly answers: ReadonlyArray<Answer>; readonly state: unknown }> => {
  const all = [...fibers.flat(), ...after]
  const orders: Array<{ readonly answers: ReadonlyArray<Answer>; readonly state: unknown }> = []
  for (const order of interleaved(fibers)) {
    let state = initial
    const answers: Array<Answer> = []
    const isWhole = [...order, ...after].every((operation) => {
      const told = operation.next?.(state, operation.payload)
      if (told === undefined || told.needsReply && operation.reply === undefined) return false
      answers[all.indexOf(operation)] = told.answer
      state = told.next("reply" in told.answer ? told.answer.reply : operation.reply)
      return true
    })
    if (isWhole && !orders.some((other) => Equal.equals(other.answers, answers) && Equal.equals(other.state, state))) orders.push({ answers, state })
  }
  return orders
}
