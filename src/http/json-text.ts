import { visit } from 'jsonc-parser'

/**
 * Cuts values out of JSON text without changing a byte of them. JSON.parse would lose digits, and Postgres' `->` on
 * json refuses \u0000 and lone surrogates anywhere in the document, so the text is cut here.
 *
 * `text` must have passed JSON.parse. Returns the members of an object by name (of duplicates the last, as JSON.parse
 * has it), or the elements of an array by index; nothing for other values.
 */
export function cutJson(text: string): Map<string, string> {
  const parts = new Map<string, string>()
  let depth = 0
  let index = 0
  let name: string | undefined
  let start = 0

  const begin = (offset: number) => {
    if (depth === 1) start = offset
    depth += 1
  }
  const end = (offset: number, length: number) => {
    depth -= 1
    if (depth === 1) keep(text.slice(start, offset + length))
  }
  const keep = (value: string) => {
    parts.set(name ?? String(index), value)
    index += 1
  }
  visit(text, {
    onObjectBegin: begin,
    onArrayBegin: begin,
    onObjectEnd: end,
    onArrayEnd: end,
    onObjectProperty: (property) => {
      if (depth === 1) name = property
    },
    onLiteralValue: (_value, offset, length) => {
      if (depth === 1) keep(text.slice(offset, offset + length))
    },
  })
  return parts
}
