/** When an open loop publishes: steady phases one after the other, or bursts with pauses. */
export type Shape =
  | {
      readonly kind: 'steady'
      readonly phases: readonly { readonly rate: number; readonly seconds: number }[]
    }
  | {
      readonly kind: 'bursts'
      readonly rate: number
      readonly seconds: number
      readonly onMs: number
      readonly offMs: number
    }

export const steady = (rate: number, seconds: number): Shape => ({
  kind: 'steady',
  phases: [{ rate, seconds }],
})

/** The scheduled instant of each job, in ms from the start. */
export function offsets(shape: Shape): number[] {
  const result: number[] = []
  if (shape.kind === 'steady') {
    let from = 0
    for (const { rate, seconds } of shape.phases) {
      for (let n = 0; n < rate * seconds; n += 1) result.push(from + (n * 1000) / rate)
      from += seconds * 1000
    }
    return result
  }
  const { rate, seconds, onMs, offMs } = shape
  const perBurst = (rate * onMs) / 1000
  for (let from = 0; from < seconds * 1000; from += onMs + offMs) {
    for (let n = 0; n < perBurst; n += 1) result.push(from + (n * 1000) / rate)
  }
  return result
}
