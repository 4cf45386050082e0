/**
 * Which HTTP requests are looked at at all: those that no foreign web page can have made. Pure.
 *
 * The rule: a browser on the same machine reaches loopback too, on behalf of any page. So the name that was asked for (`Host`)
 * must be one of ours, whatever address it led to (DNS rebinding); and where the browser says who made the request (`Origin`,
 * `Sec-Fetch-Site`), it must be one of our own pages, for every method and for WebSockets. Who sends none of these is no
 * browser, and is looked at like anybody else.
 *
 * **Example**
 *
 * ```ts
 * const guard = HttpGuard.make({ host: "127.0.0.1", port: 4600, hosts: ["ksi.example"] })
 * guard({ host: "localhost:4600" })                                        // undefined
 * guard({ host: "evil.example:4600" })?.reason                             // "ForeignHost"
 * guard({ host: "localhost:4600", origin: "http://evil.example" })?.reason // "ForeignOrigin"
 * guard({ host: "localhost:4600", "sec-fetch-site": "cross-site" })?.reason // "ForeignOrigin"
 * guard({ host: "ksi.example", origin: "https://ksi.example" })            // undefined
 * ```
 *
 * **Gotchas** There are no CORS headers: a page of another origin can neither ask nor read. A name in `hosts` without a port
 * stands for that name with any port, as behind a proxy.
 *
 * Source: Fetch Metadata Request Headers (W3C); RFC 9110 section 7.2; RFC 6454.
 */

/** The headers that are looked at. */
export interface Headers {
  readonly host?: string | undefined
  readonly origin?: string | undefined
  readonly "sec-fetch-site"?: string | ReadonlyArray<string> | undefined
}

/** Where the server is, and by which names it is known. */
export interface Options {
  /** The address it listens on. */
  readonly host: string
  readonly port: number
  /** Names beside the loopback ones, with a port or for any port. */
  readonly hosts: ReadonlyArray<string>
}

/** Why a request is not looked at, for the one who made it. */
export interface Refusal {
  readonly reason: "ForeignHost" | "ForeignOrigin"
  /** One sentence. */
  readonly detail: string
  /** What to do about it. */
  readonly next: string
}

const loopbackNames = ["localhost", "127.0.0.1", "[::1]"]
const wildcards: ReadonlySet<string> = new Set(["0.0.0.0", "::", "[::]", ""])

/** Whether only this machine can reach what listens there. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || host === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(host)

/** The address as it stands in a URL. */
export const inUrl = (host: string): string => host.includes(":") && !host.startsWith("[") ? `[${host}]` : host

const authority = /^(\[[\da-f:.]+\]|[a-z\d._-]+)(?::(\d{1,5}))?$/

/** A name and a port in one spelling; `undefined` where it is no authority. */
const read = (text: string, defaultPort: string): { readonly name: string; readonly port: string } | undefined => {
  const [, name, port = defaultPort] = authority.exec(text.toLowerCase()) ?? []
  return name === undefined ? undefined : { name: name.endsWith(".") ? name.slice(0, -1) : name, port }
}

/** Whether a text can be a name of `hosts`. */
export const isHost = (text: string): boolean => read(text, "") !== undefined

const shown = (text: string | undefined): string =>
  text === undefined ? "none" : JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)

/** What looks at the headers of each request; answers with why it is refused. */
export const make = ({ host, hosts, port }: Options): (headers: Headers) => Refusal | undefined => {
  const anyPort = new Set<string>()
  const exact = new Set<string>()
  for (const name of wildcards.has(host) ? loopbackNames : [...loopbackNames, inUrl(host).toLowerCase()]) exact.add(`${name}:${port}`)
  for (const text of hosts) {
    const known = read(text, "")
    if (known === undefined) continue
    if (known.port === "") anyPort.add(known.name)
    else exact.add(`${known.name}:${known.port}`)
  }
  const isOurs = (text: string, defaultPort: string): boolean => {
    const asked = read(text, defaultPort)
    return asked !== undefined && (exact.has(`${asked.name}:${asked.port}`) || anyPort.has(asked.name))
  }
  // Remembered as they came: nearly all requests have one of a few.
  const known = new Set<string>()
  const isKnown = (text: string): boolean => {
    if (known.has(text)) return true
    if (!isOurs(text, "80")) return false
    if (known.size < 64) known.add(text)
    return true
  }
  const isOwnOrigin = (origin: string): boolean => {
    const [, scheme, rest = ""] = /^(https?):\/\/(.*)$/.exec(origin.toLowerCase()) ?? []
    return scheme !== undefined && isOurs(rest, scheme === "http" ? "80" : "443")
  }
  return (headers) => {
    const { host: asked, origin, "sec-fetch-site": site } = headers
    if (asked === undefined || !isKnown(asked)) {
      return {
        reason: "ForeignHost",
        detail: `the Host header is ${shown(asked)}, which is no name of this daemon`,
        next: `ask for http://localhost:${port}, or name the host in the setting hosts (KSI_HOSTS)`
      }
    }
    if (origin !== undefined && !isOwnOrigin(origin)) {
      return { reason: "ForeignOrigin", detail: `a page of ${shown(origin)} may not ask this daemon`, next: "ask from a program, not from a page of another origin" }
    }
    if (site !== undefined && site !== "same-origin" && site !== "none") {
      return { reason: "ForeignOrigin", detail: `a ${String(site)} page may not ask this daemon`, next: "ask from a program, not from a page of another origin" }
    }
    return undefined
  }
}
