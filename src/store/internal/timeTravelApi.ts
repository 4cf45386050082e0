// `TimeTravel` as programs see it: everything that looks back, under one name.
export * from "../TimeTravel.ts"
export { blame, type Blamed } from "../Blame.ts"
export {
  branch, type Branch, drop, type Edit, type Imagined, insert, type Line, type Misfit, type Options as BranchOptions, replace,
  type Replacement, type Target
} from "../Branch.ts"
export { compare, type Divergence } from "../Comparison.ts"
export { type Change, diff, type Diff, type Operation, words } from "../Difference.ts"
export { find, type Found, type Where } from "../Search.ts"
