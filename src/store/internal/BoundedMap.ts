/**
 * A map that forgets: at most `2 * generation` entries, those not asked for lately go first.
 *
 * Two generations instead of a linked list: a hit in the young one costs one lookup, and nothing is moved. When the
 * young one is full it becomes the old one, and the old one is dropped.
 *
 * **Example**
 *
 * ```ts
 * const heads = new BoundedMap<string, number>(1024)
 * heads.set("order-1", 3)
 * heads.get("order-1")                        // 3
 * heads.get("order-2")                        // undefined
 * ```
 *
 * **Gotchas** It is a cache: a miss says nothing about the source.
 */

/** A bounded cache. */
export class BoundedMap<K, V> {
  private young = new Map<K, V>()
  private old = new Map<K, V>()
  private readonly generation: number

  /** `generation`: entries of one generation; the map holds at most twice as many. */
  constructor(generation: number) {
    this.generation = generation
  }

  /** The value, or `undefined` where there is none (any more). */
  get(key: K): V | undefined {
    const value = this.young.get(key)
    if (value !== undefined) return value
    const kept = this.old.get(key)
    if (kept !== undefined) this.set(key, kept)
    return kept
  }

  /** Puts a value. */
  set(key: K, value: V): void {
    if (this.young.size >= this.generation && !this.young.has(key)) {
      this.old = this.young
      this.young = new Map()
    }
    this.young.set(key, value)
  }

  /** Forgets one key. */
  delete(key: K): void {
    this.young.delete(key)
    this.old.delete(key)
  }

  /** Forgets everything. */
  clear(): void {
    this.young.clear()
    this.old.clear()
  }
}
