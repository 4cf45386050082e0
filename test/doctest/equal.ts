import { expect } from "@effect/vitest"

/** Deep equality, with the place of the claim in the message. */
export const equal = (actual: unknown, expected: unknown, place: string): void => {
  expect(actual, `the claim at ${place}`).toEqual(expected)
}
