/**
 * Who caused what. A fiber-local reference holds the envelope being handled; whatever a handler calls or emits becomes
 * its child: same correlation, its id as causation, one deeper.
 *
 * The rule: nobody passes ids by hand, and nobody can forget to. Ids are made when somebody reads them, so an event
 * that nobody asks about costs none.
 *
 * **Example**
 *
 * ```ts
 * const parent = new Causation.LiveEnvelope("a:b", {}, undefined, Causation.own, 0, () => "id-1")
 * const child = new Causation.LiveEnvelope("c:d", {}, parent, Causation.own, 0, () => "id-2")
 * child.metadata.causationId                  // "id-1"
 * child.metadata.correlationId                // "id-1"
 * child.metadata.depth                        // 1
 * ```
 *
 * **Gotchas** The ids in a live envelope's metadata are made when they are read: spread a copy from `plain(metadata)`.
 *
 * Source: seed section 1; the original shared one correlation id between all requests.
 */
import * as Context from "effect/Context"
import * as Envelope from "../event/Envelope.ts"

/** What a request brings from outside: who asks, and how they label it. */
export interface Origin {
  readonly principal: string
  readonly source: string
  readonly clientId: string | undefined
  readonly clientCorrelationId: string | undefined
  /** Milliseconds since 1970. */
  readonly deadline: number | undefined
  readonly idempotencyKey: string | undefined
}

/** The origin of what this process does by itself. */
export const own: Origin = {
  principal: "owner",
  source: Envelope.ownSource,
  clientId: undefined,
  clientCorrelationId: undefined,
  deadline: undefined,
  idempotencyKey: undefined
}

/** Metadata whose ids are made when they are first read: a look at the principal need not cost one. */
class LiveMetadata implements Envelope.Metadata {
  readonly depth: number
  readonly timestamp: number
  readonly source: string
  readonly principal: string
  readonly streamId: string | undefined = undefined
  readonly deadline: number | undefined
  readonly idempotencyKey: string | undefined
  readonly clientCorrelationId: string | undefined
  readonly clientId: string | undefined
  private readonly envelope: LiveEnvelope
  private readonly parent: Envelope.Envelope | undefined

  constructor(envelope: LiveEnvelope, parent: Envelope.Envelope | undefined, origin: Origin) {
    this.envelope = envelope
    this.parent = parent
    this.depth = envelope.depth
    this.timestamp = envelope.timestamp
    this.source = origin.source
    this.principal = origin.principal
    this.deadline = origin.deadline
    this.idempotencyKey = origin.idempotencyKey
    this.clientCorrelationId = origin.clientCorrelationId
    this.clientId = origin.clientId
  }

  get correlationId(): string {
    return this.parent === undefined ? this.envelope.id : this.parent.metadata.correlationId
  }

  get causationId(): string | undefined {
    return this.parent?.id
  }

  toJSON(): Envelope.Metadata {
    return plain(this)
  }
}

/** Metadata as an object of its own, which may be spread and compared. */
export const plain = (metadata: Envelope.Metadata): Envelope.Metadata => ({
  correlationId: metadata.correlationId,
  causationId: metadata.causationId,
  depth: metadata.depth,
  timestamp: metadata.timestamp,
  source: metadata.source,
  principal: metadata.principal,
  streamId: metadata.streamId,
  deadline: metadata.deadline,
  idempotencyKey: metadata.idempotencyKey,
  clientCorrelationId: metadata.clientCorrelationId,
  clientId: metadata.clientId
})

/** An envelope that makes its id and metadata when they are first read. */
export class LiveEnvelope implements Envelope.Envelope {
  readonly name: string
  /** The payload; the router replaces the encoded one by the decoded one before anyone sees it. */
  data: unknown
  readonly depth: number
  readonly timestamp: number
  private readonly parent: Envelope.Envelope | undefined
  private readonly origin: Origin
  private readonly ids: Envelope.Ids
  private ownId: string | undefined = undefined
  private made: Envelope.Metadata | undefined = undefined

  constructor(
    name: string,
    data: unknown,
    parent: Envelope.Envelope | undefined,
    origin: Origin,
    timestamp: number,
    ids: Envelope.Ids
  ) {
    this.name = name
    this.data = data
    this.parent = parent
    this.depth = parent === undefined ? 0 : depthOf(parent) + 1
    this.origin = origin
    this.timestamp = timestamp
    this.ids = ids
  }

  get id(): string {
    return this.ownId ??= this.ids(this.timestamp)
  }

  /** When the answer stops being wanted, in milliseconds since 1970: the earlier of its own and its parents'. */
  get deadline(): number | undefined {
    return this.origin.deadline
  }

  /** Whether it must be answered earlier than what caused it; else its parent's end is its end. */
  get isDeadlineOwn(): boolean {
    return !(this.parent instanceof LiveEnvelope) || this.parent.deadline !== this.origin.deadline
  }

  /** Whether the handler of another envelope made it, however indirectly. */
  comesFrom(other: Envelope.Envelope): boolean {
    for (let cause = this.parent; cause !== undefined; cause = cause instanceof LiveEnvelope ? cause.parent : undefined) {
      if (cause === other) return true
    }
    return false
  }

  get metadata(): Envelope.Metadata {
    return this.made ??= new LiveMetadata(this, this.parent, this.origin)
  }

  /** What a child of this envelope starts from: the same client and deadline, but not its idempotency key. */
  get inherited(): Origin {
    return this.origin.idempotencyKey === undefined ? this.origin : { ...this.origin, idempotencyKey: undefined }
  }
}

/** How deep an envelope is, without making its metadata. */
const depthOf = (envelope: Envelope.Envelope): number =>
  envelope instanceof LiveEnvelope ? envelope.depth : envelope.metadata.depth

/** What a child of `parent` starts from. */
export const originOf = (parent: Envelope.Envelope | undefined): Origin => {
  if (parent === undefined) return own
  if (parent instanceof LiveEnvelope) return parent.inherited
  const { clientCorrelationId, clientId, principal } = parent.metadata
  return { ...own, principal, clientId, clientCorrelationId }
}

/**
 * The origin of a child that a handler labels: its client's words may be replaced and its deadline brought forward.
 * Who asks stays who asked.
 */
export const narrow = (parent: Envelope.Envelope | undefined, origin: Origin, labels: Partial<Origin>): Origin => {
  const { clientCorrelationId, clientId, deadline, idempotencyKey } = labels
  return {
    principal: parent === undefined ? labels.principal ?? origin.principal : origin.principal,
    source: parent === undefined ? labels.source ?? origin.source : origin.source,
    clientId: clientId ?? origin.clientId,
    clientCorrelationId: clientCorrelationId ?? origin.clientCorrelationId,
    idempotencyKey,
    deadline: deadline === undefined ? origin.deadline : Math.min(deadline, origin.deadline ?? deadline)
  }
}

/** The envelope that this fiber is handling; `undefined` outside of any handler. */
export const Current: Context.Reference<Envelope.Envelope | undefined> = Context.Reference<
  Envelope.Envelope | undefined
>("ksi/bus/Causation/Current", { defaultValue: () => undefined })
