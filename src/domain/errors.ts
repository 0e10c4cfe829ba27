/**
 * Every error a client can meet: HTTP status and title by code. `sqlState` is the class PL code that the database
 * raises for it. docs/errors.md explains each; a test compares.
 */
export const errorTable = {
  'invalid-request': { status: 400, title: 'The request is not valid' },
  'invalid-topic': { status: 400, title: 'The topic name is not valid', sqlState: 'PL001' },
  'invalid-job-spec': { status: 400, title: 'The value is not JSON', sqlState: 'PL003' },
  'invalid-option': { status: 400, title: 'A publish option is out of range', sqlState: 'PL005' },
  'foreign-origin': { status: 403, title: 'A web page of another origin may not do this' },
  'topic-not-found': { status: 404, title: 'There is no such topic', sqlState: 'PL002' },
  'subscription-not-found': { status: 404, title: 'There is no such subscription' },
  'job-not-found': { status: 404, title: 'There is no such job', sqlState: 'PL006' },
  'route-not-found': { status: 404, title: 'There is nothing at this path' },
  'method-not-allowed': { status: 405, title: 'The path does not take this method' },
  'request-timeout': { status: 408, title: 'The request took too long to arrive' },
  superseded: { status: 409, title: 'A newer request used the same key' },
  'lease-lost': { status: 409, title: 'The lease is stale' },
  'job-ended': { status: 409, title: 'The job has already ended', sqlState: 'PL007' },
  'dedupe-conflict': { status: 409, title: 'Another job holds the dedupe key', sqlState: 'PL008' },
  'subscription-conflict': { status: 409, title: 'The name belongs to other settings', sqlState: 'PL009' },
  'subscription-ended': { status: 410, title: 'The subscription has ended' },
  'body-too-large': { status: 413, title: 'The body is too large' },
  'job-spec-too-large': { status: 413, title: 'The job spec is too large', sqlState: 'PL004' },
  'unsupported-media-type': { status: 415, title: 'The body is not application/json' },
  'expectation-failed': { status: 417, title: 'The expectation cannot be met' },
  'idempotency-key-reused': {
    status: 422,
    title: 'The key was used for another request',
    sqlState: 'PL010',
  },
  'too-many-parked': { status: 429, title: 'Too many pulls are parked' },
  'headers-too-large': { status: 431, title: 'The headers are too large' },
  internal: { status: 500, title: 'The gateway made a mistake' },
  draining: { status: 503, title: 'The gateway is shutting down' },
  overloaded: { status: 503, title: 'The gateway holds as many pulls as it may' },
  'database-unavailable': { status: 503, title: 'The database does not answer' },
} as const satisfies Record<string, { status: number; title: string; sqlState?: string }>

export type ErrorCode = keyof typeof errorTable

const codes = Object.keys(errorTable) as ErrorCode[]

const bySqlState = new Map<string, ErrorCode>(
  codes.flatMap((code) => {
    const entry = errorTable[code]
    return 'sqlState' in entry ? [[entry.sqlState, code] as const] : []
  }),
)

/** The error that a SQLSTATE of pullgate's own class stands for. */
export function errorCodeOf(sqlState: string): ErrorCode | undefined {
  return bySqlState.get(sqlState)
}

/** What was thrown, as an Error: anything can be thrown. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}

export type FieldError = { readonly field: string; readonly message: string }

type Details = {
  /** What is wrong and what to do, for the client. Never text of a job spec or a token. */
  readonly detail?: string | undefined
  readonly fields?: readonly FieldError[] | undefined
  readonly retryAfterSeconds?: number
  /** Response headers that belong to this error, e.g. Allow. */
  readonly headers?: Readonly<Record<string, string>>
  readonly cause?: unknown
}

/** An error with a place in the table. Match on `code`, never on the message. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError'
  readonly code: ErrorCode
  readonly details: Details

  constructor(code: ErrorCode, details: Details = {}) {
    super(details.detail ?? errorTable[code].title, { cause: details.cause })
    this.code = code
    this.details = details
  }

  get status(): number {
    return errorTable[this.code].status
  }
}
