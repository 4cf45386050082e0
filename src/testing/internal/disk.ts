// A disk on which a write may fail, or be the last that a process does, as a seed says; the files are real.
//
// The process dies before a write, between two writes of one transaction, before its commit or just after it: what SQLite had
// committed is there when the file is opened again, and nothing else is.
import { DatabaseSync } from "node:sqlite"
import type * as Disk from "../../store/Disk.ts"

/** How often what happens, from 0 to 1, at each write. */
export interface Faults {
  readonly crash: number
  readonly full: number
}

/** What a disk has to do with its world. */
export interface Surroundings {
  /** Numbers from 0 and below 1. */
  readonly below: () => number
  /** What may happen now. */
  readonly faults: () => Faults
  /** Milliseconds. */
  readonly now: () => number
  /** The process is dead, from here on. */
  readonly die: (where: string) => void
  readonly note: (text: string) => void
}

/** A disk of one process. */
export interface ProcessDisk {
  readonly open: Disk.Open
  /** Takes all connections away: nothing is written any more. */
  readonly pull: () => void
}

const longestFullMillis = 1000

const noSpace = () => new Error("database or disk is full")

class FaultyDatabase extends DatabaseSync {
  private readonly gate: Gate

  constructor(filename: string, options: { readonly timeout: number }, gate: Gate) {
    super(filename, options)
    this.gate = gate
  }

  override exec(sql: string): void {
    const isCommit = sql === "COMMIT"
    this.gate.before(isCommit ? "its commit" : "a statement", isCommit)
    super.exec(sql)
    if (isCommit) this.gate.after()
  }

  override prepare(...args: Parameters<DatabaseSync["prepare"]>): ReturnType<DatabaseSync["prepare"]> {
    const statement = super.prepare(...args)
    const run = statement.run.bind(statement)
    statement.run = (...values: ReadonlyArray<never>) => {
      this.gate.before("a write", true)
      return run(...values)
    }
    return statement
  }
}

const dead = (): never => {
  throw new Error("the process is dead")
}

/** What every write goes through. */
class Gate {
  private around: Surroundings | undefined
  private fullUntil = -1
  private writes = 0

  constructor(around: Surroundings) {
    this.around = around
  }

  /** Nothing goes through it any more. It lets go of the process: node keeps a connection, and so its gate, while there is a statement of it. */
  close(): void {
    this.around = undefined
  }

  before(what: string, needsSpace: boolean): void {
    const { below, faults, note, now } = this.whose()
    const { crash, full } = faults()
    this.writes++
    if (crash > 0 && below() < crash) this.die(`before ${what}`)
    if (full === 0 || !needsSpace) return
    if (now() >= this.fullUntil && below() < full) {
      this.fullUntil = now() + 1 + Math.floor(below() * longestFullMillis)
      note(`its disk is full for ${this.fullUntil - now()} ms`)
    }
    if (now() < this.fullUntil) throw noSpace()
  }

  after(): void {
    const { below, faults } = this.whose()
    const { crash } = faults()
    if (crash > 0 && below() < crash) this.die("after its commit")
  }

  private whose(): Surroundings {
    return this.around ?? dead()
  }

  private die(where: string): never {
    this.whose().die(`${where}, number ${this.writes}`)
    return dead()
  }
}

/** Makes the disk of a process that begins. */
export const make = (around: Surroundings): ProcessDisk => {
  const open: Array<DatabaseSync> = []
  const gate = new Gate(around)
  return {
    open: (filename, options) => {
      const db = new FaultyDatabase(filename, options, gate)
      open.push(db)
      return db
    },
    pull: () => {
      gate.close()
      for (const db of open.splice(0)) if (db.isOpen) db.close()
    }
  }
}
