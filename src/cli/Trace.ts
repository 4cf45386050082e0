/**
 * `ksi trace`: who caused what, and where the time went.
 *
 * **Example**
 *
 * ```ts
 * const node = { kind: "fact", id: "2", event: "order:placed", parent: "1", depth: 1, offset: 3, position: 7 }
 * Trace.traceOf("2", [node], { duration: 12.5, truncated: false }).nodes.length       // 1
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { JsonObject } from "../event/Json.ts"
import * as Trace from "../store/Trace.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** The trace that the daemon told, item by item. */
export const traceOf = (id: string, items: ReadonlyArray<JsonObject>, { duration, truncated }: JsonObject): Trace.Trace => ({
  id,
  // The schema of the reply says that items are these nodes.
  nodes: items as unknown as ReadonlyArray<Trace.Node>,
  duration: Number(duration ?? 0),
  more: truncated === true
})

/** `ksi trace`. */
export const trace = Command.make(
  "trace",
  {
    id: Argument.String("id").pipe(Argument.withDescription("Of a fact or of a request, a correlation id, or the label that a client gave")),
    mermaid: Flag.Boolean("mermaid").pipe(Flag.withDescription("As a Mermaid flowchart"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function*({ id, mermaid }) {
    const json = yield* Output.Json
    if (json && mermaid) {
      return yield* Effect.fail(new Output.Usage({ message: "--mermaid is for people; --json prints nodes", similar: [], next: "ksi trace --help" }))
    }
    const io = yield* Io
    const remote = yield* Remote.connect
    let said: JsonObject = {}
    const asking: Remote.Remote = {
      ...remote,
      call: (event, data) => Effect.tap(remote.call(event, data), (reply) => Effect.sync(() => (said = reply)))
    }
    const pages = Remote.pages(asking, "time:trace", { id })
    if (json) return yield* Output.lines(pages, (node) => JSON.stringify(node))
    const items = yield* Stream.runCollect(pages)
    const whole = traceOf(id, items, said)
    const lines = mermaid ? Trace.mermaid(whole) : Trace.text(whole, { coloured: io.interactive && io.coloured, width: io.width })
    yield* io.write(lines.map((line) => `${line}\n`).join(""))
    if (mermaid && whole.more) yield* Output.narrate(`it has more than ${Output.grouped(items.length)} nodes; the latest are left out`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Who caused what, and how long it took: a tree of requests and facts"),
  Command.withExamples([
    { command: "ksi trace 01a20232-d0ca-7000-8000-123400005678" },
    { command: "ksi trace c1 --mermaid" }
  ])
)
