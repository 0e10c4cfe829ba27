/** What the rules allow for, in milliseconds. */
export const historyRules = {
  /** Between the clocks of two processes, and between an instant and its line in a history. */
  clockMs: 100,
  /** For a reset to go through a proxy, whose process may be busy. */
  proxyMs: 200,
  /** From a claim to the end of its hand-over. */
  handOverMs: 3_000,
  /** After which an automatic acknowledgement counts as read (src/http/hand-over.ts). */
  evidenceMs: 1_000,
  /** The backstop with its jitter, and a slow machine. */
  lateMs: 4_000,
  /** After the drain began: a claim that was under way. */
  drainMs: 1_000,
  /** Beyond the wait of a pull. */
  answerMs: 3_000,
  /** By which one pull must have come before another to count as the earlier one. */
  orderMs: 500,
} as const
