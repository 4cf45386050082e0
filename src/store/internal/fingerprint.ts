// Tells two versions of a program's code apart, so that what the older one has kept is not taken for the newer one's.
// It sees the text of the functions that it is given, and not what those call: who changes that says so with a version.
import { hash } from "node:crypto"

/** The same for the same texts, in the same order. */
export const fingerprint = (texts: ReadonlyArray<string>): string => hash("sha256", JSON.stringify(texts)).slice(0, 32)
