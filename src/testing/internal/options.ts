// What options may be. What is none is said in one sentence, before anything is tried: nothing tried is nothing found.

/** From and to. */
export type Range = readonly [least: number, most: number]

/** The largest seed: those beyond it make the run of another one. */
export const mostSeed = 2 ** 32 - 1

/** Throws, with what the option should be. */
export const refuse = (option: string, value: unknown, rule: string): never => {
  throw new Error(`${option} is ${Array.isArray(value) ? `[${value.join(", ")}]` : String(value)}: ${rule}`)
}

/** A chance from 0 to `most`. */
export const checkChance = (option: string, value = 0, most = 1): void => {
  if (!(value >= 0 && value <= most)) refuse(option, value, `it is a chance from 0 to ${most}`)
}

/** Milliseconds, from and to. */
export const checkMillis = (option: string, value: Range = [0, 0]): void => {
  const [least, most] = value
  if (!(least >= 0 && most >= least && most < Infinity)) refuse(option, value, "it is from and to, in milliseconds")
}

/** A whole number. */
export const checkWhole = (option: string, value: number, least: number, most: number): void => {
  if (!Number.isInteger(value) || value < least || value > most) refuse(option, value, `it is a whole number from ${least} to ${most}`)
}
