/**
 * What node does with lines of JSON, each end in a process of its own: the server writes so many lines at once for as long as the
 * socket takes them, the client parses each. Nothing is checked, numbered or held back.
 */
import { once } from "node:events"
import * as Net from "node:net"
import * as Path from "node:path"
import type { Amount } from "./Bench.ts"
import * as Child from "./Child.ts"
import { checked, itemOf, type Reader } from "./Items.ts"

interface Order {
  readonly lines: number
  readonly millis: number
}

/** Writes without end; `lines` in one write. */
const pump = (socket: Net.Socket, lines: number): void => {
  let n = 0
  const some = () => {
    let text = ""
    for (let line = 0; line < lines; line++) text += `${JSON.stringify(itemOf(n++))}\n`
    return text
  }
  const write = () => {
    while (!socket.destroyed && socket.write(some())) ;
  }
  socket.on("drain", write)
  write()
}

const serve = async (path: string): Promise<void> => {
  const server = Net.createServer((socket) => {
    socket.on("error", () => socket.destroy())
    socket.once("data", (order) => pump(socket, Number(order)))
  }).listen(path)
  await once(server, "listening")
  Child.obey("ready", async () => undefined)
}

/** Hands items on until it is told that this was enough. */
const reading = async (path: string, lines: number, item: (item: unknown) => void, enough: () => boolean): Promise<void> => {
  const socket = Net.connect(path)
  await once(socket, "connect")
  let rest = ""
  await new Promise<void>((resolve) => {
    socket.setEncoding("utf8").on("data", (chunk: string) => {
      const texts = (rest + chunk).split("\n")
      rest = texts.pop() ?? ""
      for (const text of texts) item(JSON.parse(text))
      if (enough()) resolve()
    }).write(String(lines))
  })
  socket.destroy()
}

const read = async (path: string, { lines, millis }: Order): Promise<Amount> => {
  const start = performance.now()
  let took = 0
  let count = 0
  await reading(path, lines, () => count++, () => (took = performance.now() - start) > millis)
  return { count, millis: took }
}

const first = async (path: string): Promise<ReadonlyArray<unknown>> => {
  const items: Array<unknown> = []
  await reading(path, 2, (item) => items.push(item), () => items.length >= 3)
  return items.slice(0, 3)
}

// This file is also the program that both ends run.
const [, program, kind, place = ""] = process.argv
if (program === import.meta.filename) {
  if (kind === "serve") await serve(place)
  else {
    checked("raw", await first(place))
    Child.obey<Order>("ready", (order) => read(place, order))
  }
}

/** Starts both ends. */
export const start = async (folder: string): Promise<Reader> => {
  const path = Path.join(folder, "raw")
  const server = await Child.start(import.meta.filename, "serve", path)
  const client = await Child.start(import.meta.filename, "read", path)
  return {
    read: async (lines, millis) => await client.ask({ lines, millis }) as Amount, // as it is told above
    stop: async () => {
      await client.stop()
      await server.stop()
    }
  }
}
