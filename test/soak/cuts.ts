// Cuts the connection of a subscriber, at so many points: `cuts.ts <times> [first seed]`.
import { Effect } from "effect"
import { cutting } from "../wire/cutting/Cutting.ts"

const [, , times = "0", first = "1000"] = process.argv
const facts = 150
let cuts = 0
let told = 0
for (let seed = Number(first); cuts < Number(times); seed++) {
  const run = await Effect.runPromise(cutting(seed, facts))
  cuts += run.cuts
  told += run.positions.length
  const wrong = run.positions.findIndex((position, at) => position !== at + 1)
  if (run.positions.length !== facts || wrong >= 0) {
    process.stdout.write(`seed ${seed}: told ${run.positions.length} of ${facts}, wrong from ${wrong + 1} on\n`)
    process.exit(1)
  }
}
process.stdout.write(`${cuts} cuts, ${told} facts told: no gap, none twice\n`)
