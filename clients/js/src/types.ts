import type { StormError } from './error.js';

/** A place in a channel's log: it grows, is never used twice, and is not contiguous. */
export interface Position {
  readonly epoch: number;
  readonly offset: number;
}

/** Where to begin: after a position or cursor, at a time (Unix milliseconds), or with the last events. */
export type Since =
  Position | { readonly time: number } | { readonly last: number } | { readonly cursor: string };

/** What JSON can say, or bytes. */
export type Data = unknown;

/** The types of a channel's events by the name in their `type`. */
export type Payloads = object;

/** What every event has beside its type and its data. */
export interface EventBase {
  readonly kind: 'event';
  readonly channel: string;
  readonly epoch: number;
  readonly offset: number;
  /** When the journal stored it, Unix milliseconds. */
  readonly ts: number;
  /** The publisher's id of it, else one that is made of its place. */
  readonly id: string;
  readonly key?: string;
  /** Who published it. */
  readonly from: string;
}

/** An event of a channel whose types nobody declared. */
export interface AnyEvent extends EventBase {
  readonly type?: string;
  readonly data: Data;
}

/** An event: of a channel with declared {@link Payloads} a union by `type`, else any. */
export type EventOf<P> = [keyof P & string] extends [never]
  ? AnyEvent
  : { [K in keyof P & string]: EventBase & { readonly type: K; readonly data: P[K] } }[keyof P & string];

interface NewEventBase {
  /** What it is about; a subscription with `mode: "latest"` keeps the newest of each. */
  readonly key?: string;
  /** An id of your own, at most 255 bytes. */
  readonly id?: string;
}

/** An event to be published. `data` is anything that JSON can say, or a `Uint8Array`. */
export type NewEvent<P = object> = [keyof P & string] extends [never]
  ? NewEventBase & { readonly type?: string; readonly data: Data }
  : { [K in keyof P & string]: NewEventBase & { readonly type: K; readonly data: P[K] } }[keyof P & string];

/** What can not be given any more: nothing after `from` up to `to` will come. */
export interface Gap {
  readonly kind: 'gap';
  readonly from: Position;
  readonly to: Position;
}

/** A durable publish. */
export interface Published {
  readonly epoch: number;
  /** Where the first event is. Not a position to read from: others may stand before it. */
  readonly first: number;
  readonly last: number;
  /** Whether an earlier attempt, whose answer was lost, had stored them. */
  readonly duplicate: boolean;
  /** With the receipt `archive`: how many could not be stored as what they are. */
  readonly deadLetters: number;
}

/** One user's one session in a channel. */
export interface Member {
  readonly user: string;
  readonly session: string;
}

/** Who is in a channel. */
export interface Members {
  readonly version: number;
  readonly users: number;
  readonly sessions: number;
  readonly members: readonly Member[];
  /** Members of some gateways may be lacking. */
  readonly partial: boolean;
}

/** A page of a channel's past, ascending. */
export interface HistoryPage<P = object> {
  readonly events: EventOf<P>[];
  /** Whether there is more beyond this page. */
  readonly more: boolean;
  readonly gaps: readonly Gap[];
}

/** What others say that is not stored. */
export interface Signal {
  readonly channel: string;
  readonly from: string;
  readonly data: Data;
}

/**
 * How the client stands: `connecting` before the first connection, `connected`, `reconnecting` after a
 * loss, `offline` while the device says that it has no network, `closed` for good.
 */
export type ClientState = 'connecting' | 'connected' | 'reconnecting' | 'offline' | 'closed';

/** The way that is in use. */
export type Transport = 'websocket' | 'sse' | 'poll';

/**
 * How a subscription stands: `waiting` for a connection or an answer, `recovering` while it is given
 * what it missed, `live`, `resting` while its reader is too slow, `ended`.
 */
export type SubscriptionState = 'waiting' | 'recovering' | 'live' | 'resting' | 'ended';

/** How the client stands and why. */
export interface Status {
  readonly state: ClientState;
  /** The way in use, while connected. */
  readonly transport?: Transport;
  /** Why it is not connected. */
  readonly error?: StormError;
  /** While reconnecting: when the next attempt begins, Unix milliseconds. */
  readonly nextAttemptAt?: number;
}
