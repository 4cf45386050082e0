/** What tests of KSI apps use, one line each: `ksi/testing`. */
export * as Commands from "./testing/Commands.ts"
export * as EventStoreSuite from "./testing/EventStoreSuite.ts"
export * as KsiTest from "./testing/KsiTest.ts"
export * as Recording from "./store/Recording.ts"
export * as Simulation from "./testing/Simulation.ts"
export * as World from "./testing/World.ts"
