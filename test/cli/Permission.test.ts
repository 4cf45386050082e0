import { expect, it } from "@effect/vitest"
import { actions } from "../../src/event/Grant.ts"
import * as Permission from "../../src/cli/Permission.ts"

it("a grant is who, how, which events and what; a profile is its name", () => {
  const item = { principal: "local-http", pattern: "order:*", actions: ["call", "emit"], allow: true }
  expect(Permission.columns(item)).toEqual(["local-http", "allow", "order:*", "call, emit"])
  expect(Permission.columns({ ...item, actions, allow: false })).toEqual(["local-http", "deny", "order:*", "everything"])
  expect(Permission.columns({ principal: "local-http", profile: "standard" })).toEqual(["local-http", "profile", "standard", ""])
  expect(Permission.columns({ pattern: "*", actions, allow: true })).toEqual(["allow", "*", "everything"])
})
