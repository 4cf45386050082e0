#!/usr/bin/env -S node --disable-warning=ExperimentalWarning
// The command of the package; the build puts it beside what it starts. Only what an old Node understands too: it is told what is missing, instead of which
// built-in module could not be found.
const { node } = process.versions
if (Number(node.split(".")[0]) < 24) {
  console.error(`✗ Node  ksi needs Node 24 or newer, and this is ${node} (${process.execPath})`)
  process.exitCode = 5
} else {
  await import("./main.js")
}
