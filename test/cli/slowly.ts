// A module for the daemon that takes its time to stop.
import { Effect, Layer } from "effect"

export default Layer.effectDiscard(Effect.acquireRelease(Effect.void, () => Effect.sleep("500 millis")))
