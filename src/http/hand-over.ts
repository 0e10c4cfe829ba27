import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Clock } from '../domain/clock.ts'
import type { Emit } from '../domain/events.ts'
import type { Deliveries } from '../dispatch/deliveries.ts'
import type { ClaimedJob } from '../domain/types.ts'

/** Whether an answer written now could reach the client. A response behind another on its connection has no socket. */
export function isReachable(res: ServerResponse): boolean {
  const { socket } = res
  return !res.destroyed && socket !== null && !socket.destroyed && socket.writable
}

/** Writes claimed jobs to their executor and finds out whether they got there. */
export type HandOver = {
  /** The head of the answer is written before. The jobs are its own from then on, and it never throws. */
  write(res: ServerResponse, payload: string | Buffer, hold: Hold): void
  /** No answer with these jobs could be made, and nothing of one was written. */
  giveBack(jobs: readonly ClaimedJob[]): void
  /** A further request has come on the socket: whoever sent it had read the answer before. */
  requestOn(socket: Socket): void
  /** Whether an automatic acknowledgement on the socket waits for its evidence: closing it would destroy that. */
  awaitsEvidence(socket: Socket): boolean
  /** Resolves when no answer is being written and no automatic acknowledgement waits for its evidence. */
  settled(): Promise<void>
}

type Hold = {
  readonly jobs: readonly ClaimedJob[]
  readonly ack: 'auto' | 'explicit'
  readonly wokenAt: number
}

// `finish` only says that the bytes are with the operating system. A host that closes without having read them
// answers with RST (RFC 1122 4.2.2.13), on a direct connection within a round trip.
const evidenceMs = 1000
// Below the 15 s that a job runs until its automatic acknowledgement is confirmed (pullgate.claim).
const autoWriteMs = 12_000

export function createHandOver(options: {
  readonly deliveries: Deliveries
  readonly clock: Clock
  readonly emit: Emit
}): HandOver {
  const { deliveries, clock, emit } = options
  /** Sockets with written answers that are not proved to have been read, and how to confirm each. */
  const unproved = new Map<Socket, Set<() => void>>()
  /** Answers that are being written or wait for their evidence. */
  let underWay = 0
  const onSettled: (() => void)[] = []

  function finished(): void {
    underWay -= 1
    if (underWay === 0) for (const resolve of onSettled.splice(0)) resolve()
  }

  /** Confirms on a second request, a clean end, or a second without a reset; a broken connection leaves doubt. */
  function awaitEvidence(socket: Socket, jobs: readonly ClaimedJob[]): void {
    const conclude = (report: (jobs: readonly ClaimedJob[]) => void) => {
      const answers = unproved.get(socket)
      if (answers?.delete(confirm) !== true) return
      if (answers.size === 0) unproved.delete(socket)
      timer.cancel()
      socket.off('end', confirm)
      socket.off('close', closed)
      report(jobs)
      finished()
    }
    const confirm = () => conclude(deliveries.confirm)
    const closed = (hadError: boolean) => conclude(hadError ? deliveries.doubt : deliveries.confirm)
    const timer = clock.after(evidenceMs, confirm)
    unproved.set(socket, (unproved.get(socket) ?? new Set()).add(confirm))
    socket.once('end', confirm)
    socket.once('close', closed)
  }

  return {
    write(res, payload, { jobs, ack, wokenAt }) {
      const { socket } = res
      if (socket === null || !isReachable(res)) {
        // Nothing was written: nobody has it.
        deliveries.giveBack(jobs)
        return
      }
      underWay += 1
      // Once the hold has ended, another executor gets what a slow reader is still being sent: an answer that was cut
      // off is run by nobody.
      const writeMs = ack === 'auto' ? autoWriteMs : 1000 * Math.min(...jobs.map((job) => job.holdSeconds))
      const late = clock.after(writeMs, () => socket.destroy())
      const broken = () => {
        late.cancel()
        deliveries.doubt(jobs)
        finished()
      }
      res.once('close', broken)
      res.once('finish', () => {
        // Node says so as well when a reset has thrown the unwritten rest away.
        if (socket.destroyed) return
        res.off('close', broken)
        late.cancel()
        emit({ type: 'response written', wakeSeconds: (clock.now() - wokenAt) / 1000 })
        if (ack === 'auto') awaitEvidence(socket, jobs)
        else finished()
      })
      try {
        res.end(payload)
      } catch {
        // What is on its way by now nobody knows.
        socket.destroy()
      }
    },
    giveBack(jobs) {
      if (jobs.length === 0) return
      deliveries.giveBack(jobs)
      emit({ type: 'jobs returned', reason: 'answer failed', jobs: jobs.length })
    },
    requestOn(socket) {
      for (const confirm of [...(unproved.get(socket) ?? [])]) confirm()
    },
    awaitsEvidence: (socket) => unproved.has(socket),
    settled() {
      if (underWay === 0) return Promise.resolve()
      return new Promise((resolve) => onSettled.push(resolve))
    },
  }
}
