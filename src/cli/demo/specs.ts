import { readdirSync, readFileSync } from 'node:fs'

/** The example job specs, in the shape that Digger hands to its CLI. */
export function readSpecs(): { readonly name: string; readonly text: string }[] {
  const dir = new URL('../../../examples/specs/', import.meta.url)
  return readdirSync(dir)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => ({ name, text: readFileSync(new URL(name, dir), 'utf8') }))
}
