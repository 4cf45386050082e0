/** What the facts of the store's benchmarks carry. */

/** How many streams they are in, in turn. */
export const streams = 1000

/** What they are called, in turn. */
export const names = ["order:placed", "order:paid", "order:shipped", "order:closed"]

/** The data of the n-th order: about 260 bytes of JSON. */
export const dataOf = (n: number) => ({
  orderId: `order-${n}`,
  customer: { id: `customer-${n % 5000}`, name: "Ada Lovelace", email: "ada@example.com" },
  lines: [{ sku: `sku-${n % 300}`, quantity: 1 + n % 7, price: 12.5 }, { sku: "sku-gift", quantity: 1, price: 0 }],
  note: "leave it at the neighbour's door",
  total: 12.5 * (1 + n % 7)
})
