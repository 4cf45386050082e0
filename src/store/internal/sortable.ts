/**
 * Texts whose order in SQLite is the order of JavaScript.
 *
 * JavaScript compares code units, SQLite the bytes of UTF-8, which is the order of code points. The two differ where a
 * surrogate (half of a character beyond U+FFFF) meets a character from U+E000 up. So code units from the surrogates on
 * are written as the characters 0x800 further on: as many characters, none of them half of one, in the same order.
 * Nearly no text has any, and such a text is its own sortable form.
 */

const firstSurrogate = 0xd800
const shift = 0x800
const needed = /[\ud800-\uffff]/

/** The text as SQLite keeps it. */
export const toSortable = (text: string): string => {
  if (!needed.test(text)) return text
  let sortable = ""
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    sortable += String.fromCodePoint(unit < firstSurrogate ? unit : unit + shift)
  }
  return sortable
}

/** The text that SQLite kept. */
export const fromSortable = (sortable: string): string => {
  if (!needed.test(sortable)) return sortable
  let text = ""
  for (const character of sortable) {
    const point = character.codePointAt(0) ?? 0
    text += String.fromCharCode(point < firstSurrogate ? point : point - shift)
  }
  return text
}
