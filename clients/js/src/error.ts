/** The codes that a server answers (docs/errors.md) and those that the client itself gives. */
export type ErrorCode =
  | 'malformed'
  | 'unknown_op'
  | 'invalid_field'
  | 'too_large'
  | 'unauthenticated'
  | 'token_expired'
  | 'forbidden'
  | 'not_found'
  | 'conflict'
  | 'out_of_order'
  | 'unknown_outcome'
  | 'forgotten'
  | 'limited'
  | 'overloaded'
  | 'journal_unavailable'
  | 'journal_rewound'
  | 'archive_unavailable'
  | 'presence_unavailable'
  | 'too_many_subscriptions'
  | 'shutting_down'
  | 'internal'
  /** The offline queue is at its bound; nothing was taken. */
  | 'queue_full'
  /** No answer in time, and nothing was stored. */
  | 'timeout'
  /** The client is closed. */
  | 'closed'
  /** A newer connection of the same producer took over. */
  | 'replaced'
  /** This channel or pattern is followed already. */
  | 'already_subscribed'
  /** The way that is left (HTTP) cannot do this. */
  | 'unsupported';

/** Why something was refused. Branch on {@link code}; {@link message} is for people. */
export class StormError extends Error {
  override readonly name = 'StormError';

  constructor(
    readonly code: ErrorCode,
    message: string,
    /** Whether the same request may succeed later. */
    readonly temporary = false,
    /** In how many milliseconds to come back, where the server named a time. */
    readonly retryAfterMs?: number,
    /** With `out_of_order`: the sequence number that is due. */
    readonly expected?: number,
  ) {
    super(message);
  }
}
