// What a client lets one stream, or one subscription, of its connection send: items, and characters of their frames.
import * as Effect from "effect/Effect"
import { isObject, type JsonObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import { credit } from "../Control.ts"

/** What may be sent at first; as much as the socket takes of what is not said. */
export interface Credit {
  readonly items?: number | undefined
  readonly bytes?: number | undefined
}

/** What may be sent now. */
export class Window {
  private items: number
  private bytes: number
  private wake: (() => void) | undefined
  /** What the client wants to see again, in the next frame: it tells how long that takes. */
  private mark: unknown

  constructor({ bytes = Infinity, items = Infinity }: Credit) {
    this.items = items
    this.bytes = bytes
  }

  /** How many items may be sent; their frames may exceed the characters by the last one. */
  get room(): number {
    return this.bytes > 0 ? this.items : 0
  }

  spend(items: number, bytes: number): void {
    this.items -= items
    this.bytes -= bytes
  }

  grant({ bytes, items, mark }: Granted): void {
    if (mark !== undefined) this.mark = mark
    this.items += items
    this.bytes += bytes
    if (this.room > 0) this.wake?.()
  }

  /** The field of the next frame that has what the client wants to see again. */
  marked(): string {
    const { mark } = this
    if (mark === undefined) return ""
    this.mark = undefined
    return `,"mark":${JSON.stringify(mark)}`
  }

  readonly opened: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (this.room > 0) return resume(Effect.void)
    this.wake = () => {
      this.wake = undefined
      resume(Effect.void)
    }
    return Effect.sync(() => {
      this.wake = undefined
    })
  })
}

/** What a frame lets be sent more. */
export interface Granted {
  readonly items: number
  readonly bytes: number
  readonly mark: number | undefined
}

const countOf = (u: unknown): number | undefined => u === undefined ? 0 : Number.isSafeInteger(u) && Number(u) >= 0 ? Number(u) : undefined

const textOf = (u: unknown): string | undefined => typeof u === "string" ? u : undefined

type Find = (streamId: string | undefined, subscriptionId: string | undefined) => Window | undefined

/**
 * Lets what a frame names send more. What is not there has just ended: that is no error. Answers with what is wrong with the frame.
 */
export const grant = (data: unknown, find: Find): KsiError.Reason | undefined => {
  const fields: JsonObject = isObject(data) ? data : {}
  const { mark, stream_id: streamId, subscription_id: subscriptionId } = fields
  const items = countOf(fields["items"])
  const bytes = countOf(fields["bytes"])
  const named = [textOf(streamId), textOf(subscriptionId)] as const
  const refuse = (path: string, problem: string) => KsiError.invalidAt(credit, path, problem)
  if ((named[0] === undefined) === (named[1] === undefined)) return refuse("stream_id", "must be a text, or subscription_id in its place")
  if (items === undefined) return refuse("items", "must be a whole number from 0 on")
  if (bytes === undefined) return refuse("bytes", "must be a whole number from 0 on")
  if (mark !== undefined && !Number.isSafeInteger(mark)) return refuse("mark", "must be a whole number")
  find(...named)?.grant({ items, bytes, mark: mark === undefined ? undefined : Number(mark) })
  return undefined
}
