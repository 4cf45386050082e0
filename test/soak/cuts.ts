// Cuts the connection of a subscriber that also reads a stream with a cursor, at so many points: `cuts.ts <times> [first seed]`.
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
  for (const [what, numbers] of Object.entries({ facts: run.positions, items: run.items })) {
    const wrong = numbers.findIndex((n, at) => n !== at + 1)
    if (numbers.length === facts && wrong < 0) continue
    process.stdout.write(`seed ${seed}: told ${numbers.length} ${what} of ${facts}, wrong from ${wrong + 1} on\n`)
    process.exit(1)
  }
}
process.stdout.write(`${cuts} cuts, ${told} facts told, and as many items: no gap, none twice\n`)
