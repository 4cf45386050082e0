// A real OpenTelemetry collector as far as it listens: an HTTP server that keeps what it is sent, as JSON.
import { once } from "node:events"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

type Value = { readonly stringValue?: string; readonly intValue?: number | string; readonly boolValue?: boolean; readonly doubleValue?: number }
type Attributes = ReadonlyArray<{ readonly key: string; readonly value: Value }>

/** A span as it is written. */
export interface Span {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind: number
  readonly attributes: Attributes
  readonly events: ReadonlyArray<{ readonly name: string; readonly attributes: Attributes }>
  readonly status: { readonly code: number; readonly message?: string }
}

/** A line of the log. */
export interface Line {
  readonly severityText: string
  readonly body: Value
  readonly attributes: Attributes
  readonly traceId?: string
  readonly spanId?: string
}

interface Metric {
  readonly name: string
  readonly sum?: { readonly dataPoints: ReadonlyArray<{ readonly attributes: Attributes; readonly asDouble?: number; readonly asInt?: number }> }
  readonly gauge?: { readonly dataPoints: ReadonlyArray<{ readonly asDouble?: number; readonly asInt?: number }> }
  readonly histogram?: { readonly dataPoints: ReadonlyArray<{ readonly attributes: Attributes; readonly count: number }> }
}

/** What came. */
export interface Received {
  readonly path: string
  readonly headers: IncomingMessage["headers"]
  readonly text: string
}

/** Attributes as an object. */
export const plain = (attributes: Attributes): Record<string, unknown> =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue ?? value.boolValue ?? value.doubleValue]))

/** How it answers; the default is as a collector does. */
export type Answer = (request: Received, response: ServerResponse) => void

const taken: Answer = (_, response) => void response.writeHead(200, { "content-type": "application/json" }).end("{}")

export class Collector implements AsyncDisposable {
  readonly received: Array<Received> = []
  answer: Answer = taken
  /** Requests that have no answer yet, and how many there ever were at a time. */
  open = 0
  most = 0
  private readonly server: Server
  private readonly waiting = new Set<() => void>()

  private constructor() {
    this.server = createServer((request, response) => {
      this.most = Math.max(this.most, ++this.open)
      response.on("close", () => this.open--)
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
        const received = { path: request.url ?? "", headers: request.headers, text: Buffer.concat(chunks).toString("utf8") }
        this.received.push(received)
        this.answer(received, response)
        for (const look of this.waiting) look()
      })
    })
  }

  /** Listens at a port of its own. */
  static async start(port = 0): Promise<Collector> {
    const collector = new Collector()
    collector.server.listen(port, "127.0.0.1")
    await once(collector.server, "listening")
    return collector
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  private bodies(path: string): ReadonlyArray<Record<string, ReadonlyArray<Record<string, ReadonlyArray<Record<string, ReadonlyArray<unknown>>>>>>> {
    return this.received.filter((each) => each.path.endsWith(path)).map(({ text }) => JSON.parse(text))
  }

  get spans(): ReadonlyArray<Span> {
    return this.bodies("/v1/traces").flatMap((body) => body["resourceSpans"]?.flatMap((each) => each["scopeSpans"]?.flatMap(({ spans }) => spans ?? []) ?? []) ?? []) as ReadonlyArray<Span>
  }

  get lines(): ReadonlyArray<Line> {
    return this.bodies("/v1/logs").flatMap((body) => body["resourceLogs"]?.flatMap((each) => each["scopeLogs"]?.flatMap(({ logRecords }) => logRecords ?? []) ?? []) ?? []) as ReadonlyArray<Line>
  }

  /** Of the last body that has some. */
  get metrics(): ReadonlyArray<Metric> {
    return this.bodies("/v1/metrics").filter((body) => JSON.stringify(body).includes("ksi_")).slice(-1).flatMap((body) => body["resourceMetrics"]?.flatMap((each) => each["scopeMetrics"]?.flatMap(({ metrics }) => metrics ?? []) ?? []) ?? []) as ReadonlyArray<Metric>
  }

  /** Waits until something is true of what came. */
  until(condition: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!condition()) return
        this.waiting.delete(look)
        resolve()
      }
      this.waiting.add(look)
      look()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections()
    this.server.close()
    await once(this.server, "close")
  }
}
