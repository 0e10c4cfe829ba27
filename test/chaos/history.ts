import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/**
 * What every process saw and did, as it happened: JSON lines, written before the process goes on, so that a killed one
 * leaves all it knew. `at` is in milliseconds of the machine's clock, which Postgres shares.
 */

export const onLosts = ['requeue', 'orphan', 'fail'] as const
export type OnLost = (typeof onLosts)[number]
export type Ack = 'auto' | 'explicit'
export type Verb = 'complete' | 'fail' | 'release' | 'heartbeat'

/** A job as an executor got it; `spec` says whether it is what was published. */
export type Received = {
  readonly id: string
  readonly key: string
  readonly lease: string | null
  readonly attempt: number
  readonly whole: boolean
}

export type Entry = { readonly at: number } & (
  | {
      readonly kind: 'publish'
      readonly round: number
      readonly key: string
      readonly topic: string
      /** Null if the statement failed. */
      readonly id: string | null
      /** `unknown`: the connection broke between COMMIT and its answer. */
      readonly outcome: 'committed' | 'rolled back' | 'unknown'
      readonly onLost: OnLost
      readonly maxAttempts: number
      readonly expires: boolean
    }
  | {
      readonly kind: 'pull'
      readonly round: number
      readonly pull: string
      readonly conn: string
      readonly process: string
      readonly gateway: string
      readonly subscription: string
      readonly topic: string
      readonly ack: Ack
      readonly max: number
      /** The executor means to read the answer; one that does not may leave it in its socket. */
      readonly reads: boolean
      readonly idempotencyKey?: string
    }
  /** A complete answer. */
  | {
      readonly kind: 'answer'
      readonly pull: string
      readonly firstByteAt: number
      readonly status: number
      readonly jobs: readonly Received[]
    }
  /** The pull ended without a complete answer; `keys` are of the jobs that had begun to arrive. */
  | {
      readonly kind: 'broken'
      readonly pull: string
      readonly firstByteAt: number | null
      readonly keys: readonly string[]
    }
  | { readonly kind: 'closed'; readonly conn: string; readonly by: 'fin' | 'rst' | 'peer' | 'peer reset' }
  /** Bytes that no request had asked for. */
  | { readonly kind: 'unasked'; readonly conn: string; readonly bytes: number }
  | {
      readonly kind: 'settle'
      readonly call: string
      readonly gateway: string
      readonly id: string
      readonly lease: string | null
      readonly verb: Verb
    }
  | { readonly kind: 'settled'; readonly call: string; readonly status: number; readonly code: string | null }
  /** A status that means a mistake of the gateway's, whatever was asked. */
  | { readonly kind: 'mistake'; readonly gateway: string; readonly what: string }
  /** Logged before it is tried, so that one whose answer is lost is known too. */
  | { readonly kind: 'person'; readonly id: string; readonly verb: 'cancel' | 'retry' }
  /** What the proxy did to an executor's connection. */
  | {
      readonly kind: 'link'
      readonly conn: string
      readonly event: 'swallowed' | 'reset' | 'ended' | 'delayed'
    }
  /**
   * A fault of a process, or of the way to Postgres, of a gateway or, by its name, of a process of executors; null: of
   * all gateways. Until then, what is late is excused.
   */
  | {
      readonly kind: 'trouble'
      readonly what: string
      readonly gateway: string | null
      readonly until: number
    }
  /** Replies of Postgres to this gateway came so much later. */
  | {
      readonly kind: 'replies delayed'
      readonly gateway: string
      readonly ms: number
      readonly until: number
    }
  | { readonly kind: 'killed'; readonly process: string }
  /** `name` is as in the audit: one life of a gateway. */
  | { readonly kind: 'draining'; readonly gateway: string; readonly name: string }
  | {
      readonly kind: 'ended'
      readonly gateway: string
      readonly name: string
      readonly asked: 'kill' | 'stop' | 'no'
      readonly exit: number | string
    }
  | { readonly kind: 'log'; readonly gateway: string; readonly line: string }
  | {
      readonly kind: 'sample'
      readonly gateway: string
      /** `parked`: while so many pulls were held; `idle`: after all had left. */
      readonly when: 'parked' | 'idle'
      readonly pulls: number
      readonly parkedMetric: number
      readonly connections: number
      readonly connectionsMax: number
      readonly transactions: number
      readonly sockets: number
      readonly timers: number
      /** Connections of the pool in use. */
      readonly checkedOut: number
    }
)

/** An entry is of now unless it says otherwise. */
type Given<T> = T extends unknown ? Omit<T, 'at'> & { readonly at?: number } : never

export type History = { write(entry: Given<Entry>): void; close(): void }

export function openHistory(file: string): History {
  const handle = openSync(file, 'a')
  return {
    write: (entry) => void writeSync(handle, `${JSON.stringify({ at: Date.now(), ...entry })}\n`),
    close: () => closeSync(handle),
  }
}

/** All entries of a directory in the order of their time. */
export function readHistory(directory: string): Entry[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.jsonl'))
    .flatMap((name) => readFileSync(join(directory, name), 'utf8').split('\n'))
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line) as Entry)
    .toSorted((a, b) => a.at - b.at)
}
