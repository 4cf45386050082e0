// Programs in which code may not be made from text, and programs that tell how much of it was.

const original = globalThis.Function

/** How often code was made from text, and how often somebody was refused it, since it was last asked. */
export interface Made {
  functions: number
  refusals: number
}

/** Puts another `Function` in place until the answer is called. It is the old one in all but making functions. */
export const watch = (isRefused: boolean): { readonly made: Made; readonly restore: () => void } => {
  const made: Made = { functions: 0, refusals: 0 }
  const make = (args: ReadonlyArray<string>) => {
    if (isRefused) {
      made.refusals++
      throw new EvalError("Code generation from strings disallowed for this context")
    }
    made.functions++
    return original(...args)
  }
  globalThis.Function = new Proxy(original, {
    apply: (_, __, args: ReadonlyArray<string>) => make(args),
    construct: (_, args: ReadonlyArray<string>) => make(args)
  })
  return {
    made,
    restore: () => {
      globalThis.Function = original
    }
  }
}
