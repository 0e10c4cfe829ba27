import { createScanner } from 'jsonc-parser'

/**
 * Cuts values out of JSON text without changing a byte of them. JSON.parse would lose digits, and Postgres' `->` on
 * json refuses \u0000 and lone surrogates anywhere in the document, so the text is cut here; token by token, since a
 * body may nest deeper than a stack goes.
 *
 * `text` must have passed JSON.parse. Returns the members of an object by name (of duplicates the last, as JSON.parse
 * has it), or the elements of an array by index; nothing for other values.
 */
export function cutJson(text: string): Map<string, string> {
  const parts = new Map<string, string>()
  const scanner = createScanner(text, true)
  let depth = 0
  let inObject = false
  let name: string | undefined
  let start = 0

  const keep = (from: number, to: number) => {
    parts.set(name ?? String(parts.size), text.slice(from, to))
    name = undefined
  }
  for (scanner.scan(); scanner.getTokenLength() > 0; scanner.scan()) {
    const offset = scanner.getTokenOffset()
    const end = offset + scanner.getTokenLength()
    switch (text.charAt(offset)) {
      case '{':
      case '[':
        if (depth === 0) inObject = text.charAt(offset) === '{'
        if (depth === 1) start = offset
        depth += 1
        break
      case '}':
      case ']':
        depth -= 1
        if (depth === 1) keep(start, end)
        break
      case ':':
      case ',':
        break
      default:
        if (depth !== 1) break
        if (inObject && name === undefined) name = scanner.getTokenValue()
        else keep(offset, end)
    }
  }
  return parts
}
