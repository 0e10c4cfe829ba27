import type { TopicId } from '../domain/types.ts'

/** What a gateway knows of a topic that it has armed, or is about to. */
export type ArmedTopic = {
  readonly id: TopicId
  /** When the arm that holds now was asked for; undefined until it has been. */
  armedAt: number | undefined
  /** Above the ids of all publishers that could have missed the arm; undefined until it has been drawn. */
  fence: bigint | undefined
  fenced: boolean
  quiet: boolean
  notifiedAt: number
  /** Since when nobody has waited. */
  lonelySince: number | undefined
}

/** What due work is told (src/dispatch/due-work.ts). */
export type DueHints = {
  /** Jobs may have been published to fall due soon. */
  readonly lookAhead: () => void
  /** Something falls due in so many milliseconds; the topic that has a ready job then, if that is known. */
  readonly saw: (dueInMs: number, topic: TopicId | null) => void
}
