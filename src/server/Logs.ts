/**
 * Lines of a log that say which event they are of: its name, its id and its correlation, and where it is traced the trace
 * and the span.
 *
 * The rule: what is written while an event is handled says so by itself, whoever writes it. It is looked up when a line is
 * written: an event of which nobody writes pays nothing. What a line says of itself (`Effect.annotateLogs`) goes before.
 *
 * **Example**
 *
 * ```ts
 * const lines: Array<unknown> = []
 * const logger = Logs.labelled(Logger.map(Logger.formatStructured, ({ annotations, message }) =>
 *   void lines.push([message, annotations["event"], annotations["id"] === annotations["correlationId"]])))
 * const ping = Effect.as(Effect.logInfo("pinged"), "pong").pipe(Effect.provide(Logger.layer([logger])))
 * yield* (yield* Router).handle(Ping, { name: "ping", run: () => ping, context: Context.empty() })
 * yield* (yield* Ksi).call(Ping, {})
 * lines                                       // [["pinged", "net:ping", true]]
 * ```
 */
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { Current, labelsOf } from "../bus/Causation.ts"

/** What the line of a fiber says beside itself; `undefined` where there is nothing. */
const labelsIn = (fiber: Fiber.Fiber<unknown, unknown>, isTraceTold: boolean): Readonly<Record<string, string>> | undefined => {
  const envelope = fiber.getRef(Current)
  const above = isTraceTold ? Context.getOrUndefined(fiber.context, Tracer.ParentSpan) : undefined
  // Where tracing is off there is one that stands for nothing.
  const span = above === undefined || Context.get(above.annotations, Tracer.DisablePropagation) ? undefined : above
  if (envelope === undefined && span === undefined) return undefined
  return {
    ...(envelope === undefined ? {} : labelsOf(envelope)),
    ...(span === undefined ? {} : { trace_id: span.traceId.padStart(32, "0"), span_id: span.spanId })
  }
}

/** The fiber as a logger sees it: with the labels among its annotations. */
const seen = (fiber: Fiber.Fiber<unknown, unknown>, isTraceTold: boolean): Fiber.Fiber<unknown, unknown> => {
  const labels = labelsIn(fiber, isTraceTold)
  if (labels === undefined) return fiber
  const annotations = { ...labels, ...fiber.getRef(References.CurrentLogAnnotations) }
  const getRef = (ref: Context.Reference<unknown>): unknown =>
    Object.is(ref, References.CurrentLogAnnotations) ? annotations : fiber.getRef(ref)
  // The same fiber in all else: what is made over it has what it has.
  return Object.create(fiber, { getRef: { value: getRef } }) as Fiber.Fiber<unknown, unknown>
}

/** A logger whose lines say which event they are of; and which span, unless the logger itself says so. */
export const labelled = <Message, Output>(
  logger: Logger.Logger<Message, Output>,
  { spans = true }: { readonly spans?: boolean } = {}
): Logger.Logger<Message, Output> => Logger.make((options) => logger.log({ ...options, fiber: seen(options.fiber, spans) }))
