import type { ExecutorPlan, PublishPlan, RoundPlan } from './plan.ts'

/** What the harness asks its child processes to do; each order is answered once, by its number. */

export type ExecuteOrder = {
  readonly kind: 'execute'
  readonly round: number
  readonly topic: string
  readonly plan: ExecutorPlan
  /** Of the topic; null: it makes its own. */
  readonly subscription: string | null
  /** The proxies of the gateways. */
  readonly ports: readonly number[]
}
export type PublishOrder = {
  readonly kind: 'publish'
  readonly round: number
  readonly topic: string
  readonly plan: PublishPlan
  readonly person: RoundPlan['person']
  readonly databaseUrl: string
}
/** Ends every executor that is still pulling, then waits for what they do with their jobs. */
export type FinishOrder = { readonly kind: 'finish' }

export type Order = ExecuteOrder | PublishOrder | FinishOrder
export type Numbered = { readonly order: number; readonly what: Order }
export type Done = { readonly order: number }

/** In a child: runs orders as they come, until the harness is gone. */
export function serveOrders(run: (what: Order) => Promise<void>): void {
  process.on('message', ({ order, what }: Numbered) => {
    void run(what).then(() => {
      const done: Done = { order }
      process.send?.(done)
    })
  })
  process.once('disconnect', () => process.exit(0))
  process.send?.('ready')
}
