#!/usr/bin/env node
import { readFileSync } from 'node:fs'

// Nothing more is imported before the version is known: an older Node may not even be able to load the rest.
const { engines } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  engines: { node: string }
}
const least = engines.node.replace('>=', '')
const [wanted, found] = [least, process.version.slice(1)].map((version) => version.split('.').map(Number))
const isOlder =
  (found?.[0] ?? 0) - (wanted?.[0] ?? 0) < 0 ||
  (found?.[0] === wanted?.[0] && (found?.[1] ?? 0) < (wanted?.[1] ?? 0))

if (isOlder) {
  console.error(`pullgate: needs Node.js ${least} or newer, and this is ${process.version}`)
  process.exitCode = 1
} else {
  const { main } = await import('./commands.ts')
  await main(process.argv.slice(2))
}
