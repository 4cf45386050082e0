/**
 * Moleculer over its TCP transporter on the loopback, a broker in a process of its own at each end: the one calls the
 * action of the other one. It checks payloads (fastest-validator), not replies. Discovery over UDP is off, the ends are
 * given each other's address; everything else is as it comes.
 *
 * It streams too: an action that answers with a readable stream of objects, one after the other. Who leaves such a stream cannot
 * end it over there, so many short ones are read instead of one long one. Nothing holds it back where the reader is slow.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import { Readable } from "node:stream"
import { ServiceBroker } from "moleculer"
import type { Amount } from "./Bench.ts"
import { checked, itemOf } from "./Items.ts"

/** How many calls at once, and for how long; `undefined`: streams, one after the other. */
interface Order {
  readonly inFlight: number | undefined
  readonly millis: number
}

/** Items of one stream. */
const streamed = 5000

const brokerOf = (nodeID: string, ports: ReadonlyArray<string>): ServiceBroker =>
  new ServiceBroker({
    nodeID,
    logger: false,
    transporter: {
      type: "TCP",
      options: {
        udpDiscovery: false,
        useHostname: false,
        // How soon they find each other; nothing is measured before.
        gossipPeriod: 1,
        urls: { server: `tcp://127.0.0.1:${ports[0]}`, client: `tcp://127.0.0.1:${ports[1]}` }
      }
    }
  })

const serve = async (ports: ReadonlyArray<string>): Promise<void> => {
  const broker = brokerOf("server", ports)
  broker.createService({
    name: "bench",
    actions: {
      reserve: {
        params: {
          sku: "string",
          quantity: { type: "number", integer: true },
          customer: { type: "object", props: { id: "string", vip: "boolean" } }
        },
        handler: async ({ params: { quantity, sku } }: { readonly params: { readonly quantity: number; readonly sku: string } }) =>
          ({ holdId: "hold-1", sku, quantity })
      },
      items: {
        params: { count: { type: "number", integer: true } },
        handler: async ({ params: { count } }: { readonly params: { readonly count: number } }) =>
          Readable.from(function*() {
            for (let n = 0; n < count; n++) yield itemOf(n)
          }())
      }
    }
  })
  await broker.start()
}

const itemsOf = (broker: ServiceBroker, count: number): Promise<Readable> => broker.call("bench.items", { count })

const read = async (broker: ServiceBroker, millis: number): Promise<Amount> => {
  const start = performance.now()
  let count = 0
  while (performance.now() - start < millis) {
    const items = await itemsOf(broker, streamed)
    items.on("data", () => count++)
    await once(items, "end")
  }
  return { count, millis: performance.now() - start }
}

const drive = async (broker: ServiceBroker, inFlight: number, millis: number): Promise<Amount> => {
  const start = performance.now()
  let sent = 0
  const one = async () => {
    while (performance.now() - start < millis) {
      const n = sent++
      await broker.call("bench.reserve", { sku: "tea", quantity: n % 100, customer: { id: `customer-${n % 1000}`, vip: true } })
    }
  }
  await Promise.all(Array.from({ length: inFlight }, one))
  return { count: sent, millis: performance.now() - start }
}

const call = async (ports: ReadonlyArray<string>): Promise<void> => {
  const broker = brokerOf("client", ports)
  await broker.start()
  await broker.waitForServices("bench", 15_000)
  const reply = await broker.call("bench.reserve", { sku: "tea", quantity: 7, customer: { id: "customer-1", vip: true } })
  const expected = "{\"holdId\":\"hold-1\",\"sku\":\"tea\",\"quantity\":7}"
  if (JSON.stringify(reply) !== expected) throw new Error(`moleculer-tcp answered ${JSON.stringify(reply)}`)
  const refused = await broker.call("bench.reserve", { sku: "tea", quantity: "7" }).then(() => false, () => true)
  if (!refused) throw new Error("moleculer-tcp accepts anything")
  checked("moleculer-tcp", await (await itemsOf(broker, 3)).toArray())
  process.on("message", ({ inFlight, millis }: Order) =>
    void (inFlight === undefined ? read(broker, millis) : drive(broker, inFlight, millis)).then((amount) => process.send?.(amount)))
  process.once("disconnect", () => process.exit())
  process.send?.("ready")
}

// This file is also the program that both ends run.
const [, program, kind, ...given] = process.argv
if (program === import.meta.filename) await (kind === "serve" ? serve(given) : call(given))

const freePort = async (): Promise<string> => {
  const server = Net.createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  server.close()
  await once(server, "close")
  return String(typeof address === "object" && address !== null ? address.port : "")
}

const told = (child: ChildProcess): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const failed = (code: number | null) => reject(new Error(`moleculer-tcp ended with exit code ${code}`))
    child.once("exit", failed)
    child.once("message", (message) => {
      child.off("exit", failed)
      resolve(message)
    })
  })

/** Two brokers that know each other. */
export interface MoleculerTcp {
  readonly run: (inFlight: number, millis: number) => Promise<Amount>
  /** Reads streams for so long. */
  readonly read: (millis: number) => Promise<Amount>
  readonly stop: () => void
}

/** Starts both ends and waits until they have found each other. */
export const start = async (): Promise<MoleculerTcp> => {
  const ports = [await freePort(), await freePort()]
  const child = (role: string) =>
    spawn(process.execPath, ["--disable-warning=ExperimentalWarning", import.meta.filename, role, ...ports], {
      stdio: ["ignore", "inherit", "inherit", "ipc"]
    })
  const children = [child("serve"), child("call")] as const
  const stop = () => {
    for (const each of children) each.kill()
  }
  try {
    await told(children[1])
  } catch (cause) {
    stop()
    throw cause
  }
  const ask = async (order: Order) => {
    const answered = told(children[1])
    children[1].send(order)
    // The other end sends nothing else.
    return await answered as Amount
  }
  return { run: (inFlight, millis) => ask({ inFlight, millis }), read: (millis) => ask({ inFlight: undefined, millis }), stop }
}
