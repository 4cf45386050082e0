/** What tests of KSI apps use, one line each: `ksi/testing`. */
export * as EventStoreSuite from "./EventStoreSuite.ts"
export * as KsiTest from "./KsiTest.ts"
export * as World from "./World.ts"
