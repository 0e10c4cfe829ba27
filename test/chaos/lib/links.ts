import type { Socket } from 'node:net'
import type { History } from '../history.ts'
import type { Link } from '../plan.ts'
import { connectTo, end, joinPipe, listen, reset, swallow } from './proxy.ts'
import type { Pipe } from './proxy.ts'

/** What a connection of an executor says of itself, in a line of its own ahead of the first request. */
export type Preamble = { readonly conn: string; readonly link: Link | null }

/** Between executors and one gateway. */
export type ExecutorLinks = {
  readonly port: number
  /** Ends the connections that carry nothing any more: the gateway cannot know of their end. */
  restore(): void
  close(): void
}

export async function executorLinks(
  target: () => number | undefined,
  history: History,
): Promise<ExecutorLinks> {
  const proxy = await listen((client, keep) => {
    const refuse = () => void client.destroy()
    readPreamble(client, ({ conn, link }, rest) => {
      const port = target()
      if (port === undefined) return refuse()
      const server = connectTo(port)
      const pipe = joinPipe(client, server, (of, chunk) => judge(of, chunk, conn, link))
      keep(pipe)
      if (rest.length > 0) server.write(rest)
      if (link?.action === 'delay') {
        pipe.delayMs = link.afterMs
        history.write({ kind: 'link', conn, event: 'delayed' })
      } else if (link !== null && link.afterBytes < 0) {
        setTimeout(() => act(pipe, conn, link), link.afterMs).unref()
      }
    })
  })

  function judge(pipe: Pipe, chunk: Buffer, conn: string, link: Link | null): number {
    if (link === null || link.afterBytes < 0 || link.action === 'delay') return chunk.length
    const left = link.afterBytes - pipe.passed
    if (chunk.length <= left) return chunk.length
    // What has been let through arrives before the end does.
    setImmediate(() => act(pipe, conn, link))
    return Math.max(0, left)
  }

  function act(pipe: Pipe, conn: string, { action }: Link): void {
    if (pipe.client.destroyed || pipe.swallowing) return
    switch (action) {
      case 'swallow':
        history.write({ kind: 'link', conn, event: 'swallowed' })
        return swallow(pipe)
      case 'rst':
        history.write({ kind: 'link', conn, event: 'reset' })
        return reset(pipe)
      case 'fin':
        history.write({ kind: 'link', conn, event: 'ended' })
        return end(pipe)
      case 'delay':
    }
  }

  return {
    port: proxy.port,
    restore() {
      for (const pipe of proxy.pipes) if (pipe.swallowing) reset(pipe)
    },
    close: proxy.close,
  }
}

function readPreamble(client: Socket, then: (preamble: Preamble, rest: Buffer) => void): void {
  let read = Buffer.alloc(0)
  const take = (chunk: Buffer) => {
    read = Buffer.concat([read, chunk])
    const newline = read.indexOf(10)
    if (newline < 0) return
    client.off('data', take)
    then(JSON.parse(read.toString('utf8', 0, newline)) as Preamble, read.subarray(newline + 1))
  }
  client.on('data', take)
}

/** Between one gateway and Postgres. */
export type DatabaseLink = DatabaseFaults & { readonly port: number; close(): void }

export type DatabaseFaults = {
  cut(): void
  /** Connections that are open now carry nothing any more; nor do new ones, until `restore` resets all of them. */
  swallow(): void
  /** What Postgres says on the connections that are open now is lost; `restore` resets them. */
  loseReplies(): void
  delayReplies(ms: number): void
  restore(): void
}

/** Of both, but for lost replies: a listening session that is deaf as well would have everything given back. */
export function faultsOf(pool: DatabaseLink, listener: DatabaseLink): DatabaseFaults {
  const both = [pool, listener]
  return {
    cut: () => both.forEach((link) => link.cut()),
    swallow: () => both.forEach((link) => link.swallow()),
    loseReplies: pool.loseReplies,
    delayReplies: (ms) => both.forEach((link) => link.delayReplies(ms)),
    restore: () => both.forEach((link) => link.restore()),
  }
}

export async function databaseLink(port: number): Promise<DatabaseLink> {
  let mode: 'pass' | 'swallow' = 'pass'
  let delayMs = 0
  const deaf = new WeakSet<Pipe>()
  const broken = new Set<Pipe>()
  const proxy = await listen((client, keep) => {
    const pipe = joinPipe(client, connectTo(port), (of, chunk) => (deaf.has(of) ? 0 : chunk.length))
    pipe.delayMs = delayMs
    keep(pipe)
    if (mode === 'swallow') {
      swallow(pipe)
      broken.add(pipe)
    }
  })
  return {
    port: proxy.port,
    cut() {
      for (const pipe of proxy.pipes) reset(pipe)
    },
    swallow() {
      mode = 'swallow'
      for (const pipe of proxy.pipes) {
        swallow(pipe)
        broken.add(pipe)
      }
    },
    loseReplies() {
      for (const pipe of proxy.pipes) {
        deaf.add(pipe)
        broken.add(pipe)
      }
    },
    delayReplies(ms) {
      delayMs = ms
      for (const pipe of proxy.pipes) pipe.delayMs = ms
    },
    restore() {
      mode = 'pass'
      delayMs = 0
      for (const pipe of proxy.pipes) pipe.delayMs = 0
      for (const pipe of broken) reset(pipe)
      broken.clear()
    },
    close: proxy.close,
  }
}
