import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import * as host from './embedded-binaries.ts'

export function inUse(dataDir: string, pid: number): Error {
  return new Error(`${dataDir} is in use by pid ${pid}; stop that process or ${host.remedy}`)
}

export function readIfThere(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch (error) {
    if (host.errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Claims the data directory for this process; returns the release. Throws if a live process has it. */
export function claim(dataDir: string, owner: string): () => void {
  const file = `${dataDir}.owner`
  const draft = `${file}.${randomBytes(6).toString('hex')}`
  const aside = `${draft}.gone`
  fs.writeFileSync(draft, owner, { flag: 'wx', mode: 0o600 })
  try {
    for (;;) {
      try {
        // A link, unlike a write, shows the record to others complete or not at all.
        fs.linkSync(draft, file)
        break
      } catch (error) {
        if (host.errnoOf(error) !== 'EEXIST') throw error
      }
      const judged = readIfThere(file)
      if (judged === undefined) continue
      if (host.isAlive(judged)) throw inUse(dataDir, Number.parseInt(judged, 10))
      try {
        fs.renameSync(file, aside)
        // Another starter may have replaced the record just judged with its own: that one goes back.
        if (readIfThere(aside) !== judged) fs.linkSync(aside, file)
      } catch (error) {
        if (!['ENOENT', 'EEXIST'].includes(host.errnoOf(error) ?? '')) throw error
      }
    }
  } finally {
    fs.rmSync(draft, { force: true })
    fs.rmSync(aside, { force: true })
  }
  let held = true
  return () => {
    if (held && readIfThere(file) === owner) fs.rmSync(file, { force: true })
    held = false
  }
}
