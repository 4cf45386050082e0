// What is removed for good is overwritten, too.
import type { DatabaseSync } from "node:sqlite"

/** Runs what removes with what it frees overwritten by zeros, also pages that become free. Only while it runs: appends do not pay. */
export const securely = <A>(db: DatabaseSync, f: () => A): A => {
  db.exec("PRAGMA secure_delete = ON")
  try {
    return f()
  } finally {
    db.exec("PRAGMA secure_delete = FAST")
  }
}
