/**
 * Traces, metrics and logs to an OpenTelemetry collector: OTLP over HTTP, as Effect writes it.
 *
 * The rule: a collector never harms. What waits for it is bounded, each attempt ends in time, what finds no place is
 * dropped; the first failure is one warning, and the next success one line. Nobody waits for it but the end of the process,
 * and that for `flushMillis` and a little. Where no collector is named this module is not even loaded.
 *
 * **Example**
 *
 * ```ts
 * const collector = Telemetry.layer({
 *   endpoint: "http://127.0.0.1:4318", format: "json", headers: undefined,
 *   serviceName: "shop", serviceVersion: "1.0.0", attributes: "deployment.environment.name=test"
 * })
 * Layer.isLayer(collector)                    // true
 * Telemetry.urlOf("http://127.0.0.1:4318", "traces")   // "http://127.0.0.1:4318/v1/traces"
 * ```
 *
 * **Gotchas** Why settings of KSI's own, and not only OpenTelemetry's variables: those are for every program of a machine,
 * and a daemon has one schema, which `ksi doctor` shows. So each is a setting like any other, and the variable that
 * OpenTelemetry has for the same counts where KSI is told nothing. Effect's own reading of these variables is closed here:
 * it would read what doctor does not show, and one that cannot be read would end the process.
 *
 * Why JSON where nobody says: to write a span costs some 7 µs as JSON and 45 µs as protobuf, as Effect writes them, in the
 * thread that serves. Collectors take both at the same address.
 *
 * Source: OpenTelemetry Protocol 1.x over HTTP; its environment variables.
 */
import * as ConfigProvider from "effect/ConfigProvider"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as OtlpExporter from "effect/observability/OtlpExporter"
import * as OtlpLogger from "effect/observability/OtlpLogger"
import * as OtlpMetrics from "effect/observability/OtlpMetrics"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Tracer from "effect/Tracer"
import { sentenceOf } from "../event/KsiError.ts"
import * as Logs from "./Logs.ts"
import * as Metrics from "./Metrics.ts"
import * as Setting from "./Setting.ts"

/** Where it goes, and who says it. */
export interface Options {
  /** The URL below which each signal has its path. */
  readonly endpoint: string
  readonly format: "json" | "protobuf"
  /** As `Setting.pairs`. */
  readonly headers: Redacted.Redacted<string> | undefined
  /** Which share of the traces that begin here is recorded; default all. */
  readonly traceShare?: number
  readonly serviceName: string
  readonly serviceVersion: string
  /** Of the resource, as `Setting.pairs`. */
  readonly attributes: string
  /** How often traces and metrics leave, in milliseconds; default 5,000 and 10,000. Logs leave each second. */
  readonly intervalMillis?: number
}

/** Batches on their way at a time; of traces and logs a batch has at most 1,000. */
export const maxInFlight = 8
/** How long one batch may take, with its second attempt. */
export const timeoutMillis = 10_000
/** How long the end of a daemon waits until what is left is sent. */
export const flushMillis = 3000
// Then there is no more than the last lines.
const shutdownMillis = 500
const secondAttemptMillis = 1000

/** The address of a signal. */
export const urlOf = (endpoint: string, signal: "traces" | "metrics" | "logs"): string => `${endpoint}/v1/${signal}`

// ---------------------------------------------------------------------------------------------------------- delivering

/** Says once that a collector does not take what it is sent, and once that it does again. */
const makeTelling = (endpoint: string) => {
  const failing = new Set<string>()
  return {
    failed: (url: string, problem: string): Effect.Effect<void> => {
      const first = failing.size === 0
      failing.add(url)
      return first
        ? Effect.logWarning(`telemetry does not reach ${endpoint}: ${problem}; until it does, it is dropped`)
        : Effect.void
    },
    delivered: (url: string): Effect.Effect<void> =>
      failing.delete(url) && failing.size === 0 ? Effect.logInfo(`telemetry reaches ${endpoint} again`) : Effect.void
  }
}

const isBusy = (status: number): boolean => status === 429 || (status >= 502 && status <= 504)
const isTaken = (status: number): boolean => status >= 200 && status < 300

const causeOf = (error: unknown): unknown => error instanceof Error && error.cause !== undefined ? causeOf(error.cause) : error

const problemOf = (error: HttpClientError.HttpClientError): string => sentenceOf(causeOf(error.reason.cause ?? error))

/**
 * A client for the exporters, which by themselves begin as many requests as there are batches, wait for each without end
 * and try again as often as the other side asks: here each is bounded, and what fails has failed.
 */
const makeClient = Effect.fnUntraced(function*(endpoint: string, cut: Deferred.Deferred<never, string>) {
  // An answer is its status: whatever else comes with it, however long, is not read.
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)
  const telling = makeTelling(endpoint)
  let inFlight = 0

  const attempt = (request: HttpClientRequest.HttpClientRequest): Effect.Effect<number, string> =>
    Effect.mapError(Effect.scoped(Effect.map(client.execute(request), ({ status }) => status)), problemOf)
  const later = <A, E>(effect: Effect.Effect<A, E>) => Effect.delay(effect, secondAttemptMillis)
  const delivered = (request: HttpClientRequest.HttpClientRequest): Effect.Effect<void, string> =>
    Effect.matchEffect(attempt(request), {
      onFailure: () => later(attempt(request)),
      onSuccess: (status) => isBusy(status) ? later(attempt(request)) : Effect.succeed(status)
    }).pipe(
      Effect.flatMap((status) => isTaken(status) ? Effect.void : Effect.fail(`it answers with status ${status}`)),
      Effect.timeoutOrElse({ duration: timeoutMillis, orElse: () => Effect.fail(`it does not answer within ${timeoutMillis / 1000} seconds`) }),
      Effect.raceFirst(Deferred.await(cut))
    )

  return HttpClient.make((request) => {
    // A reason that the exporters take as final.
    const failed = (description: string) => Effect.andThen(
      telling.failed(request.url, description),
      Effect.fail(new HttpClientError.HttpClientError({ reason: new HttpClientError.EncodeError({ request, description }) }))
    )
    if (inFlight >= maxInFlight) return failed(`${maxInFlight} batches are on their way already`)
    return Effect.suspend(() => {
      inFlight++
      return Effect.ensuring(delivered(request), Effect.sync(() => void inFlight--))
    }).pipe(
      Effect.matchEffect({
        onFailure: failed,
        onSuccess: () => Effect.as(telling.delivered(request.url), HttpClientResponse.fromWeb(request, new Response(null, { status: 200 })))
      })
    )
  })
})

// -------------------------------------------------------------------------------------------------------------- layers

/** What all three signals need: a client, the form, and nothing that they would read by themselves. */
const surroundings = ({ endpoint, format }: Options, cut: Deferred.Deferred<never, string>) =>
  Layer.mergeAll(
    Layer.effect(HttpClient.HttpClient, makeClient(endpoint, cut)).pipe(
      Layer.provide(FetchHttpClient.layer),
      // The headers are for this address, and for none that it would name instead.
      Layer.provideMerge(Layer.succeed(FetchHttpClient.RequestInit, { redirect: "manual" }))
    ),
    format === "json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf,
    ConfigProvider.layer(ConfigProvider.fromEnv({ env: {} })),
    OtlpExporter.layerFlusher
  )

/** The tracer of fewer traces. Who is asked within a trace is asked as it is: a tree is whole, or not there. */
const makeSampled = Effect.fnUntraced(function*(tracer: Tracer.Tracer, share: number) {
  const random = yield* Random.Random
  if (share >= 1) return tracer
  return Tracer.make({
    ...tracer,
    span: (options) => tracer.span({
      ...options,
      sampled: options.sampled && (Option.isSome(options.parent) || random.nextDoubleUnsafe() < share)
    })
  })
})

const signals = (options: Options) => {
  const { attributes, endpoint, headers, intervalMillis, serviceName, serviceVersion, traceShare = 1 } = options
  const shared = {
    resource: { serviceName, serviceVersion, attributes: { ...Setting.pairsOf(attributes) } },
    headers: headers && Setting.pairsOf(Redacted.value(headers)),
    shutdownTimeout: shutdownMillis
  }
  const logger = OtlpLogger.make({ ...shared, url: urlOf(endpoint, "logs"), exportInterval: Math.min(1000, intervalMillis ?? 1000) })
  const tracer = OtlpTracer.make({ ...shared, url: urlOf(endpoint, "traces"), exportInterval: intervalMillis })
  return Layer.mergeAll(
    Layer.effect(Tracer.Tracer, Effect.flatMap(tracer, (tracer) => makeSampled(tracer, traceShare))),
    OtlpMetrics.layer({ ...shared, url: urlOf(endpoint, "metrics"), exportInterval: intervalMillis }),
    // It says by itself which span a line is of.
    Logger.layer([Effect.map(logger, (logger) => Logs.labelled(logger, { spans: false }))], { mergeWithExisting: true })
  )
}

/** Sends what there is; who has not taken it in time is not waited for again. */
const atEnd = (cut: Deferred.Deferred<never, string>) =>
  Effect.map(OtlpExporter.Flusher, ({ flush }) =>
    Effect.timeoutOrElse(flush, {
      duration: flushMillis,
      orElse: () => Effect.asVoid(Deferred.fail(cut, "it did not answer before the daemon stopped"))
    }))

/**
 * Sends spans, metrics and the lines of the log beside the loggers there are, until it closes. A daemon's last figures leave
 * with what is left when it stops (`Metrics.AtEnd`). Never fails.
 */
export const layer = (options: Options): Layer.Layer<never> =>
  Layer.unwrap(Effect.map(Deferred.make<never, string>(), (cut) =>
    Layer.merge(signals(options), Layer.effect(Metrics.AtEnd, atEnd(cut))).pipe(Layer.provide(surroundings(options, cut)))))
