// The table of tags: which facts have which. Only a fact that has any has rows here; they are written with it.

/** How it is laid out. */
export const table = `CREATE TABLE fact_tags (
  tag TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (tag, position)
) WITHOUT ROWID`

/** Writes one: tag, position. */
export const insert = "INSERT INTO fact_tags VALUES (?, ?)"
