// Builds the package into dist: what the compiler makes of src. It leaves the names of files in declarations as they are
// in the sources; here they become those of the files that are shipped, as the compiler does in the code itself.
import { execFileSync } from "node:child_process"
import { copyFileSync, globSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "..")
const dist = join(root, "dist")
const tsc = join(root, "node_modules", "typescript", "bin", "tsc")

// What is no longer in src must not be shipped.
rmSync(dist, { recursive: true, force: true })
execFileSync(process.execPath, [tsc, "-p", join(root, "tsconfig.build.json")], { stdio: "inherit" })
for (const file of globSync("**/*.d.ts", { cwd: dist })) {
  const path = join(dist, file)
  // In code only: a comment shows what its reader writes.
  const text = readFileSync(path, "utf8").replace(/^(?!\s*(?:\*|\/[/*])).*$/gm, (line) =>
    line.replace(/((?:\bfrom |\bimport |\bimport\()"\.{1,2}\/[^"\n]*)\.ts"/g, "$1.js\""))
  writeFileSync(path, text)
}
copyFileSync(join(import.meta.dirname, "command.js"), join(dist, "command.js"))
