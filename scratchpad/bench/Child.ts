/** A process of a benchmark that does what it is asked to, one order after the other, and ends with whoever started it. */
import { spawn } from "node:child_process"
import { once } from "node:events"

/** What the two say to each other besides orders. */
type Answer = { readonly done: unknown } | { readonly problem: string }

/** A process that is ready. */
export interface Child {
  readonly pid: number | undefined
  /** What it said when it was ready. */
  readonly ready: unknown
  /** Asks for one thing; throws what it failed with. Nothing else may be asked before that is answered. */
  readonly ask: (order: unknown) => Promise<unknown>
  readonly stop: () => Promise<void>
}

/** Starts a program of this folder, which calls `obey`; answers when it is ready. */
export const start = async (filename: string, ...args: ReadonlyArray<string>): Promise<Child> => {
  const flags = ["--disable-warning=ExperimentalWarning", "--expose-gc"]
  const child = spawn(process.execPath, [...flags, filename, ...args], { stdio: ["ignore", "inherit", "inherit", "ipc"] })
  const told = (): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const failed = (code: number | null) => reject(new Error(`${filename} ${args[0]} ended with exit code ${code}`))
      child.once("exit", failed)
      child.once("message", (message) => {
        child.off("exit", failed)
        const answer = message as Answer // the other end is `obey`
        if ("done" in answer) resolve(answer.done)
        else reject(new Error(`${filename} ${args[0]}: ${answer.problem}`))
      })
    })
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, "exit")
    child.disconnect()
    await exited
  }
  const ready = await told()
  return {
    pid: child.pid,
    ready,
    ask: (order) => {
      const answered = told()
      child.send(order as object) // all orders are
      return answered
    },
    stop
  }
}

/** In the process: says that it is ready, and answers orders from then on. */
export const obey = <Order>(ready: unknown, answer: (order: Order) => Promise<unknown>): void => {
  const say = (message: Answer) => process.send?.(message)
  process.on("message", (order: Order) => {
    answer(order).then((done) => say({ done: done ?? null }), (cause) => say({ problem: String(cause instanceof Error ? cause.stack : cause) }))
  })
  process.once("disconnect", () => process.exit())
  say({ done: ready })
}

/** Bytes of this process: of living objects, and all that it holds. */
export interface Memory {
  readonly living: number
  readonly resident: number
}

/** What is left when everything was collected. */
export const memory = async (): Promise<Memory> => {
  for (let turn = 0; turn < 3; turn++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const { arrayBuffers, heapUsed, rss } = process.memoryUsage()
  return { living: heapUsed + arrayBuffers, resident: rss }
}

/** Milliseconds of a clock that all processes of the machine share. */
export const sharedNow = (): number => Number(process.hrtime.bigint()) / 1e6
