/** When an open loop publishes: at one rate after the other; 0 is a pause. */
export type Shape = readonly { readonly rate: number; readonly seconds: number }[]

/**
 * At a third of the rate, and not counted: code that is not compiled yet would build up a backlog, on either side of
 * a ratio, that the rest of the time only works off.
 */
export const warmUpMs = 1_500
const warmUp = (rate: number) => ({ rate: rate / 3, seconds: warmUpMs / 1000 })

export const steady = (rate: number, seconds: number): Shape => [warmUp(rate), { rate, seconds }]

export function bursts(rate: number, seconds: number, onSeconds: number, offSeconds: number): Shape {
  const count = Math.round(seconds / (onSeconds + offSeconds))
  const burst = [
    { rate, seconds: onSeconds },
    { rate: 0, seconds: offSeconds },
  ]
  return [warmUp(rate), ...Array.from({ length: count }, () => burst).flat()]
}

/** The scheduled instant of each job, in ms from the start. */
export function offsets(shape: Shape): number[] {
  const result: number[] = []
  let from = 0
  for (const { rate, seconds } of shape) {
    for (let n = 0; n < Math.round(rate * seconds); n += 1) result.push(from + (n * 1000) / rate)
    from += seconds * 1000
  }
  return result
}
