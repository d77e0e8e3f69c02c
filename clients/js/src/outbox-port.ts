/** Where publishes wait so that they outlive the process. */
import type { NewEvent } from './types.js';

/** A publish that has no answer yet. */
export interface OutboxEntry {
  /** The number of its first event. */
  seq: number;
  channel: string;
  events: NewEvent[];
  receipt?: 'archive';
  /** The server's time before it was first sent; absent while it never was. */
  firstSent?: number;
}

/** What an outbox holds when it is opened. */
export interface OutboxState {
  /** The producer of all its publishes. */
  producer: string;
  /** Above every number that the producer ever used. */
  nextSeq: number;
  /** Ascending by `seq`. */
  entries: OutboxEntry[];
}

/**
 * A durable queue of one producer. One client at a time has it open. The built-in one is
 * `indexedDbOutbox` of `@stormwire/client/outbox`.
 */
export interface Outbox {
  open(): Promise<OutboxState>;
  /** Keeps it, and remembers that numbers below `nextSeq` are used. */
  put(entry: OutboxEntry, nextSeq: number): Promise<void>;
  /** All entries that were never sent may be sent from now on. Ends before any of them is. */
  sending(serverTime: number): Promise<void>;
  /** It has its answer. */
  remove(seq: number): Promise<void>;
  close(): Promise<void>;
}
