// How the read models of a store are laid out in its file.

/**
 * A set is one version of a read model: which code it was folded with, how far it is, and whether it is asked (`serving`),
 * under way to be (`building`) or to be deleted (`dropped`). Its states are under its number, by key.
 */
export const tables: ReadonlyArray<string> = [
  `CREATE TABLE read_models (
  model INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, fingerprint TEXT NOT NULL, role TEXT NOT NULL,
  position INTEGER NOT NULL
)`,
  "CREATE INDEX read_models_name ON read_models (name)",
  `CREATE TABLE read_model_states (
  model INTEGER NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (model, key)
) WITHOUT ROWID`
]
