// The cutter of lines is in ../Lines.ts.
export { Lines } from "../Lines.ts"
