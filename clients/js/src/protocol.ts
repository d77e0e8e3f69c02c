/** The operations of the protocol as a codec reads and writes them; names are those of the wire. */
import type { ErrorCode } from './error.js';
import type { Member, Position, Since } from './types.js';

/** An event on its way out. */
export interface OutEvent {
  type?: string;
  key?: string;
  id?: string;
  data: unknown;
}

/** What a client says. Ids are numbers: positive ones are sequence numbers of publishes. */
export type Request = { id?: number } & (
  | { op: 'connect'; token: string; producer: string }
  | {
      op: 'subscribe';
      channel?: string;
      pattern?: string;
      since?: Since;
      mode?: 'latest';
      presence?: true;
    }
  | {
      op: 'publish';
      channel: string;
      seq: number;
      again?: number;
      receipt?: 'archive';
      events: OutEvent[];
    }
  | { op: 'signal'; channel: string; data: unknown }
  | {
      op: 'history';
      channel: string;
      before?: Position;
      after?: Position;
      key?: string;
      keys_after?: string;
      limit: number;
    }
  | { op: 'presence'; channel: string; after?: string; limit: number }
  | { op: 'unsubscribe'; channel?: string; pattern?: string }
  | { op: 'refresh'; token: string }
  | { op: 'ping' }
);

/** An event as it comes in. */
export interface InEvent {
  offset: number;
  ts: number;
  id: string;
  type?: string;
  key?: string;
  from: string;
  data: unknown;
}

/** A change of a channel's members. */
export interface MemberChange<Op = 'joined' | 'left'> {
  op: Op;
  channel: string;
  since: number;
  version: number;
  users: number;
  sessions: number;
  members: Member[];
  more?: boolean;
}

/** A page of members, or where they stand. */
export interface MembersMessage {
  op: 'presence';
  channel: string;
  version: number;
  users: number;
  sessions: number;
  members: Member[];
  next?: string;
  partial?: boolean;
  resync?: boolean;
}

/** What a server says. */
export type ServerMessage = { id?: number } & (
  | {
      op: 'connected';
      session: string;
      user: string;
      heartbeat_ms: number;
      limits: { unacked: number };
      server_time: number;
    }
  | {
      op: 'subscribed';
      channel?: string;
      pattern?: string;
      epoch?: number;
      offset?: number;
      cursor?: string;
      recovered: boolean;
    }
  | {
      op: 'published';
      epoch: number;
      first: number;
      last: number;
      server_time: number;
      duplicate?: boolean;
      dead_letters?: number;
    }
  | {
      op: 'events';
      channel: string;
      epoch: number;
      events: InEvent[];
      pattern?: string;
      cursor?: string;
    }
  | {
      op: 'gap';
      channel?: string;
      pattern?: string;
      partition?: number;
      cursor?: string;
      from: Position;
      to: Position;
    }
  | {
      op: 'history';
      channel: string;
      epoch: number;
      events: InEvent[];
      more: boolean;
      gaps?: { from: Position; to: Position }[];
    }
  | MembersMessage
  | MemberChange<'joined'>
  | MemberChange<'left'>
  | { op: 'signal'; channel: string; from: string; data: unknown }
  | { op: 'unsubscribed'; channel?: string; pattern?: string }
  | { op: 'refreshed'; expires_in_ms: number }
  | { op: 'pong'; server_time: number }
  | { op: 'moving'; reconnect_after_ms: number }
  | {
      op: 'error';
      code: ErrorCode;
      message: string;
      temporary: boolean;
      retry_after_ms?: number;
      expected?: number;
    }
);

/** The server's message of this operation. */
export type Message<Op extends ServerMessage['op']> = Extract<ServerMessage, { op: Op }>;

/** How messages become text or bytes. */
export interface Codec {
  /** The WebSocket subprotocol that stands for it. */
  readonly subprotocol: string;
  encode(requests: Request[]): string | Uint8Array<ArrayBuffer>;
  decode(data: string | ArrayBuffer): ServerMessage[];
}
