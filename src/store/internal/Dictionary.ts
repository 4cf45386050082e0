/**
 * Texts that repeat (streams, names, sources), kept once and spoken of by number.
 *
 * The rule: a number is given out within the transaction that uses it. After a rollback `reset` makes the dictionary
 * forget what it believed.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import type { EventPattern } from "../../event/EventPattern.ts"
import { BoundedMap } from "./BoundedMap.ts"
import { fromSortable, toSortable } from "./sortable.ts"
import * as StoreFile from "./StoreFile.ts"

const cached = 32_768
const cachedPatterns = 256

/** One dictionary table. */
export class Dictionary {
  private readonly ids = new BoundedMap<string, number>(cached)
  private readonly texts = new BoundedMap<number, string>(cached)
  private readonly selectId: StatementSync
  private readonly selectText: StatementSync
  private readonly insert: StatementSync
  private readonly remove: StatementSync
  private readonly listed: StatementSync
  /** What patterns match, of the numbers up to `through`. */
  private readonly matched = new BoundedMap<string, { readonly ids: Array<number>; through: number }>(cachedPatterns)
  private readonly last: () => number
  private count: number

  constructor(db: DatabaseSync, table: "streams" | "names" | "sources") {
    this.selectId = db.prepare(`SELECT id FROM ${table} WHERE text = ?`)
    this.selectText = db.prepare(`SELECT text FROM ${table} WHERE id = ?`)
    this.insert = db.prepare(`INSERT INTO ${table} VALUES (?, ?)`)
    this.remove = db.prepare(`DELETE FROM ${table} WHERE id > ?`)
    this.listed = db.prepare(`SELECT id, text FROM ${table} WHERE id > ?`)
    this.last = () => StoreFile.number(db, `SELECT max(id) FROM ${table}`)
    this.count = this.last()
  }

  /** The last number given out; with `undo` it takes back those given out since. */
  get mark(): number {
    return this.count
  }

  /** The number of a text that is known. */
  find(text: string): number | undefined {
    const known = this.ids.get(text)
    if (known !== undefined) return known
    const id = this.selectId.get(toSortable(text))?.["id"]
    if (typeof id !== "number") return undefined
    this.ids.set(text, id)
    return id
  }

  /** Gives a text that is not known the number `mark + 1`. */
  add(text: string): number {
    const id = this.count + 1
    this.insert.run(id, toSortable(text))
    this.count = id
    this.ids.set(text, id)
    return id
  }

  /** The number of a text, new or not. */
  intern(text: string): number {
    return this.find(text) ?? this.add(text)
  }

  /** The text of a number. */
  text(id: number): string {
    const known = this.texts.get(id)
    if (known !== undefined) return known
    const kept = this.selectText.get(id)?.["text"]
    if (typeof kept !== "string") throw new Error(`the store is corrupt: number ${id} stands for nothing`)
    const text = fromSortable(kept)
    this.texts.set(id, text)
    return text
  }

  /** The numbers of the texts that match a pattern. Only for a dictionary of names, of which there are not many. */
  matching(pattern: EventPattern): ReadonlyArray<number> {
    let known = this.matched.get(pattern.text)
    if (known === undefined) this.matched.set(pattern.text, known = { ids: [], through: 0 })
    if (known.through < this.count) {
      for (const { id, text } of this.listed.iterate(known.through)) {
        if (pattern.matches(fromSortable(String(text)))) known.ids.push(Number(id))
      }
      known.through = this.count
    }
    return known.ids
  }

  /** Takes back the numbers given out since `mark`. */
  undo(mark: number): void {
    if (this.count === mark) return
    this.remove.run(mark)
    this.reset()
  }

  /** Forgets what is cached: the transaction that gave numbers out is gone. */
  reset(): void {
    this.ids.clear()
    this.texts.clear()
    this.matched.clear()
    this.count = this.last()
  }
}
