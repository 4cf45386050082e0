// Numbers of a seed: the same seed makes the same ones, wherever they are asked for.

/** Numbers from 0 and below 1 (splitmix32). */
export const chance = (seed: number): (() => number) => {
  let state = seed | 0
  return () => {
    state = (state + 0x9e3779b9) | 0
    let t = state ^ (state >>> 16)
    t = Math.imul(t, 0x21f0aaad)
    t ^= t >>> 15
    t = Math.imul(t, 0x735a2d97)
    t ^= t >>> 15
    return (t >>> 0) / 4_294_967_296
  }
}
