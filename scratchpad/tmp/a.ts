import { Schema, SchemaAST, Exit, Effect, Result, JsonSchema } from "effect"
import { enable } from "effect/schema/SchemaJITCompiler"
const S = Schema.Struct({ sku: Schema.String, quantity: Schema.Int, o: Schema.optionalKey(Schema.String) })
const J = Schema.toCodecJson(S)
console.log("same ast", J.ast === S.ast, SchemaAST.toEncoded(J.ast) === J.ast)
const D = Schema.Struct({ at: Schema.Date, n: Schema.NumberFromString, b: Schema.BigInt })
const DJ = Schema.toCodecJson(D)
console.log(DJ.ast === D.ast, SchemaAST.toEncoded(DJ.ast) === DJ.ast)
const dec = Schema.decodeUnknownExit(DJ)
const r: any = dec({ at: "2020-01-01T00:00:00Z", n: "5", b: "12" })
console.log(r._tag, r.value, )
console.log(Schema.encodeUnknownExit(DJ)(r.value))
enable(S.ast)
const bad: any = Schema.decodeUnknownExit(S)({ sku: 1, quantity: "two" }, {errors:"all"} as any)
const iss = bad.cause.reasons[0].error
console.log(iss, String(iss), iss._tag, iss.issue?._tag, Object.keys(iss))
const std = (Schema as any).toStandardSchemaV1(S)
console.log(JSON.stringify(std["~standard"].validate({ sku: 1, quantity: "two" })))
console.log(JSON.stringify(Schema.toJsonSchemaDocument(DJ)))
console.log(JSON.stringify(Schema.toJsonSchemaDocument(S)))
console.log(JSON.stringify(Schema.toJsonSchemaDocument(Schema.Void)), SchemaAST.isVoid(Schema.Void.ast))
class E1 extends Schema.TaggedError<E1>()("E1", { sku: Schema.String, left: Schema.Int }) {}
const EJ = Schema.toCodecJson(E1)
console.log(Schema.encodeUnknownExit(EJ)(new E1({ sku: "a", left: 1 })))
console.log(SchemaAST.toEncoded(EJ.ast) === EJ.ast)
const dd:any = Schema.decodeUnknownExit(EJ)({ _tag: "E1", sku: "a", left: 1 })
console.log(dd.value instanceof E1)
class C1 extends Schema.TaggedClass<C1>()("C1", { sku: Schema.String }) { get message() { return "x " + this.sku } }
class K extends Schema.TaggedError<K>()("K", { reason: Schema.Union([C1]) }) { override get message() { return this.reason.message } }
const k = new K({ reason: new C1({ sku: "q" }) })
console.log(k.message, k._tag, JSON.stringify(k))
const t0 = performance.now(); for (let i=0;i<100000;i++) new K({ reason: new C1({ sku: "q" }) }); console.log("ns", (performance.now()-t0)*10)
