/** How to connect, and what a client tells. */
import type { StormError } from './error.js';
import type { Outbox, OutboxEntry } from './outbox-port.js';
import type { Codec } from './protocol.js';
import type { TokenProvider } from './token.js';
import type { NewEvent, Published, Status } from './types.js';
import type { WebSocketConstructor } from './websocket.js';

/** How to connect. Only `url` and `token` are needed. */
export interface ClientOptions {
  /** Where the server is: `https://storm.example`; several are tried in turn. */
  url: string | URL | readonly (string | URL)[];
  token: TokenProvider;
  /** {@link json} by default; `protobuf` is in `@stormwire/client/protobuf`. */
  codec?: Codec;
  /** Keeps publishes that have no answer over the end of the process. */
  outbox?: Outbox;
  /** Which ways may be taken; by default a WebSocket, and HTTP while none passes. */
  transports?: readonly ('websocket' | 'http')[];
  /** `ws` for Node 20, which has no WebSocket of its own. */
  WebSocket?: WebSocketConstructor;
  fetch?: typeof fetch;
  /** First and longest pause between attempts to connect, each drawn evenly from zero. */
  backoffMs?: readonly [first: number, longest: number];
  /** How long one attempt to connect may take. */
  connectTimeoutMs?: number;
  /** After how much silence the server is asked whether it is there; at most what it says itself. */
  heartbeatMs?: number;
  /** How long a publish may wait for its answer; for ever with an outbox, else two minutes. */
  publishTimeoutMs?: number;
  /** How long history, presence and the like may take. */
  requestTimeoutMs?: number;
  /** Bounds of what waits for an answer; beyond them a publish is refused with `queue_full`. */
  queueBytes?: number;
  queuePublishes?: number;
}

/** A publish that has its answer. */
export interface SettledPublish {
  readonly seq: number;
  readonly channel: string;
  readonly events: readonly NewEvent[];
  readonly outcome: Published | StormError;
}

/** What a client tells. */
export interface ClientEvents {
  status: Status;
  /** A complaint that belongs to nothing that anybody waits for, as of a signal. */
  error: StormError;
  /** A publish has its answer; for those that an outbox brought back, which nobody awaits. */
  settled: SettledPublish;
  /** What an outbox has brought back, and is sent now. */
  restored: readonly OutboxEntry[];
}
