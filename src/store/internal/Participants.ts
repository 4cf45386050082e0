// Who changes something together with facts, in the transaction that makes them durable; each may refuse the append that a fact
// is of, and that one alone.
//
// The rule: nothing is written before every append of the batch is decided. A participant notes what an append would change, and
// all of it goes or stays with the append; so a refused append leaves nothing that had to be taken back. Everything here runs
// within one turn of the event loop.
import type { StoredFact } from "../../event/CloudEvent.ts"
import type { KsiError } from "../../event/KsiError.ts"

/** One who changes something together with facts. */
export interface Participant {
  /** Whether facts of this name, in this stream, concern it. */
  readonly handles: (name: string, streamId: string) => boolean
  /**
   * What the new facts of one append come to, after what was accepted before in this batch: why they are refused, or how to
   * accept them. Called again for the same facts where the writer begins its batch anew.
   */
  readonly prepare: (facts: ReadonlyArray<StoredFact>) => KsiError | (() => void)
  /** Writes what was accepted, in the transaction; `head` is the last position of the batch. Throws where it cannot. */
  readonly write: (head: number) => void
  /** The batch is over: it is durable, or nothing of it remains. */
  readonly ended: (isCommitted: boolean) => void
}

const notAny = () => false

/** The participants of a store. */
export class Participants {
  private members: ReadonlyArray<Participant> = []
  /** Whether somebody is concerned with facts of this name in this stream. */
  handles: Participant["handles"] = notAny

  /** Takes part from the next batch on; answers with how to leave. */
  join(participant: Participant): () => void {
    this.set([...this.members, participant])
    return () => this.set(this.members.filter((other) => other !== participant))
  }

  /** Nobody takes part any more. */
  clear(): void {
    this.set([])
  }

  get isEmpty(): boolean {
    return this.members.length === 0
  }

  /** Why an append with these new facts is refused: by the first who does; then nobody has accepted it. */
  refusal(facts: ReadonlyArray<StoredFact>): KsiError | undefined {
    const accepts: Array<() => void> = []
    for (const member of this.members) {
      const own = facts.filter(({ name, streamId }) => member.handles(name, streamId))
      const answer = own.length === 0 ? undefined : member.prepare(own)
      if (typeof answer === "function") accepts.push(answer)
      else if (answer !== undefined) return answer
    }
    for (const accept of accepts) accept()
    return undefined
  }

  write(head: number): void {
    for (const member of this.members) member.write(head)
  }

  ended(isCommitted: boolean): void {
    for (const member of this.members) member.ended(isCommitted)
  }

  private set(members: ReadonlyArray<Participant>): void {
    this.members = members
    const [first] = members
    this.handles = first === undefined
      ? notAny
      : members.length === 1 ? first.handles : (name, streamId) => members.some((member) => member.handles(name, streamId))
  }
}
