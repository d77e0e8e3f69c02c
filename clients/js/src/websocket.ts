/** The usual way: a WebSocket. */
import { StormError } from './error.js';
import type { Closed, Link, LinkEvents } from './link.js';
import type { Codec, Message, Request } from './protocol.js';

/** What of the standard's WebSocket is used; `ws` for Node has it as well. */
export interface WebSocketLike {
  binaryType: string;
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** Opens one and says `connect`; what follows is told to `events`. */
export function openWebSocket(
  constructor: WebSocketConstructor,
  url: URL,
  codec: Codec,
  hello: Request,
  timeoutMs: number,
  events: LinkEvents,
): Link {
  const target = new URL('v1/ws', url);
  target.protocol = url.protocol === 'http:' ? 'ws:' : 'wss:';
  const socket = new constructor(target.href, [codec.subprotocol]);
  socket.binaryType = 'arraybuffer';
  let isOpen = false;
  let isOver = false;
  let told: Message<'error'> | undefined;
  const end = (closed: Closed) => {
    if (isOver) return;
    isOver = true;
    clearTimeout(deadline);
    socket.close();
    events.closed(closed);
  };
  const deadline = setTimeout(() => {
    const error = new StormError('timeout', `no answer within ${timeoutMs} ms`, true);
    end({ error, verdict: isOpen ? 'again' : 'unreachable' });
  }, timeoutMs);
  socket.onopen = () => {
    isOpen = true;
    socket.send(codec.encode([hello]));
  };
  socket.onmessage = ({ data }: { data: string | ArrayBuffer }) => {
    if (isOver) return;
    let messages;
    try {
      messages = codec.decode(data);
    } catch {
      const error = new StormError('malformed', 'the server sent what is no message', true);
      return end({ error, verdict: 'again' });
    }
    for (const message of messages) {
      if (message.op === 'connected') clearTimeout(deadline);
      if (message.op === 'error' && !(message.id! > 0)) told = message;
    }
    events.messages(messages);
  };
  socket.onclose = ({ code, reason }: { code: number; reason: string }) =>
    end(isOpen ? byClose(code, reason, told) : unreachable());
  socket.onerror = () => end(isOpen ? byClose(1006, '', told) : unreachable());
  return {
    transport: 'websocket',
    get backlog() {
      return socket.bufferedAmount;
    },
    send: (requests) => {
      if (!isOver) socket.send(codec.encode(requests));
    },
    close() {
      isOver = true;
      clearTimeout(deadline);
      socket.close(1000);
    },
  };
}

const unreachable = (): Closed => ({
  error: new StormError('timeout', 'no WebSocket could be opened', true),
  verdict: 'unreachable',
});

/** What a close code means. */
function byClose(code: number, reason: string, told: Message<'error'> | undefined): Closed {
  const message = told?.message || reason || `the connection was lost (${code})`;
  const verdict =
    code === 4401
      ? 'token'
      : code === 4400 || code === 4403 || code === 4409 || code === 4413
        ? 'never'
        : 'again';
  const fallback = verdict === 'again' ? 'shutting_down' : 'malformed';
  const known = code === 4409 ? 'replaced' : code === 4403 ? 'forbidden' : undefined;
  const named = code === 4401 ? 'unauthenticated' : code === 4413 ? 'too_large' : fallback;
  const errorCode = known ?? told?.code ?? named;
  const error = new StormError(errorCode, message, verdict === 'again', told?.retry_after_ms);
  return told?.retry_after_ms === undefined
    ? { error, verdict }
    : { error, verdict, afterMs: told.retry_after_ms };
}
