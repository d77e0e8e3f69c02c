/** One connection, of whatever kind, at work. */
import type { StormError } from './error.js';
import type { Request, ServerMessage } from './protocol.js';
import type { Transport } from './types.js';

/** Why a connection is over. */
export interface Closed {
  error: StormError;
  /**
   * `again`: come back; `token`: come back with a fresh token; `never`: not before something has
   * changed; `unreachable`: it was never open, as if this kind of connection did not pass.
   */
  verdict: 'again' | 'token' | 'never' | 'unreachable';
  /** Earliest time to come back, in milliseconds from now. */
  afterMs?: number;
}

/** What a link tells. */
export interface LinkEvents {
  /** After the server's `connected`, which is the first message. */
  messages(messages: ServerMessage[]): void;
  closed(closed: Closed): void;
  /** The way changed (from a stream to polling). */
  transport?(transport: Transport): void;
}

/** A connection that is dialled already. */
export interface Link {
  readonly transport: Transport;
  /** Bytes that wait to be sent. */
  readonly backlog: number;
  send(requests: Request[]): void;
  /** Ends it without a further event. */
  close(): void;
}
