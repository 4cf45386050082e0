// A process that imports what the daemon imports from elsewhere, does nothing, and waits for so many milliseconds.
const modules = [
  "@effect/platform-node/NodeRuntime", "@effect/platform-node/NodeServices", "@effect/platform-node/NodeStream",
  "effect/Cause", "effect/Clock", "effect/Context", "effect/Effect", "effect/Exit", "effect/FiberSet", "effect/FileSystem",
  "effect/Layer", "effect/Logger", "effect/Random", "effect/Result", "effect/Schema", "effect/SchemaAST", "effect/Stream",
  "effect/cli/Argument", "effect/cli/Command", "effect/cli/Flag", "effect/schema/SchemaJITCompiler", "effect/sql/SqlClient",
  "node:net", "node:sqlite"
]
await Promise.all(modules.map((name) => import(name)))
setTimeout(() => {}, Number(process.argv[2]))
