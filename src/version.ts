import { readFileSync } from 'node:fs'

/** Of package.json, seen from src as well as from dist. */
export const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
}
