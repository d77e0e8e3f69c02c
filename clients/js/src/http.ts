/**
 * Where no WebSocket passes: the same operations over HTTP. Each subscription reads a stream of its own
 * (Server-Sent Events), or polls where a proxy holds streams back; publishes go one at a time, with the
 * same producer and numbers. Not to be had here: membership, signals of others, patterns' and channels'
 * `time`.
 */
import { StormError } from './error.js';
import { Feed, placeOf, refusalOf, sse, textOf, type Page, type Subscribe } from './http-feed.js';
import { dataIn, dataOut } from './json.js';
import type { Closed, Link, LinkEvents } from './link.js';
import type { Message, Request, ServerMessage } from './protocol.js';
import type { Position, Since, Transport } from './types.js';

/** A browser opens six connections to a host; the others are for requests. */
const STREAMS_MAX = 3;
const WAIT_S = 25;
const POLL_PAUSE_MS = 2000;
/** A stream that says nothing for so long after its beginning is held back on its way. */
const FIRST_WORD_MS = 5000;
/** A server says something on a stream every 15 s. */
const SILENCE_MAX_MS = 45_000;
const PAGE = 500;
/** The `Date` of an answer is cut to seconds. */
const AGAIN_SLACK_MS = 2000;

type Publish = Extract<Request, { op: 'publish' }>;

/** What an HTTP connection needs. */
export interface HttpOptions {
  fetch: typeof fetch;
  url: URL;
  producer: string;
  token: string;
  user: string;
  /** The server's time as far as it is known from before. */
  serverTime: number | undefined;
  timeoutMs: number;
  /** `false`: poll from the beginning. */
  streams: boolean;
}

/** Reaches for the server; its `connected` comes when it answers. */
export function openHttp(options: HttpOptions, events: LinkEvents): Link {
  return new HttpLink(options, events);
}

class HttpLink implements Link {
  transport: Transport;
  readonly #open = new Set<AbortController>();
  readonly #readers = new Map<string, { abort(): void }>();
  #isOver = false;
  #publishes: Publish[] = [];
  #isPublishing = false;
  #token: string;
  #streams = 0;

  constructor(
    private readonly options: HttpOptions,
    private readonly events: LinkEvents,
  ) {
    this.#token = options.token;
    this.transport = options.streams ? 'sse' : 'poll';
    void this.#hello();
  }

  get backlog(): number {
    return 0;
  }

  send(requests: Request[]): void {
    for (const request of requests) void this.#handle(request);
  }

  close(): void {
    this.#end();
  }

  async #hello(): Promise<void> {
    try {
      const answer = await this.#fetch('ping', {});
      await answer.text();
      // A proxy answers as well, for a server that is not there.
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const date = Date.parse(answer.headers.get('date') ?? '');
      this.#say({
        op: 'connected',
        session: '',
        user: this.options.user,
        heartbeat_ms: 30_000,
        limits: { unacked: 64 },
        server_time: this.options.serverTime ?? (Number.isNaN(date) ? Date.now() : date),
      });
    } catch (error) {
      this.#lost(error, 'unreachable');
    }
  }

  #say(...messages: ServerMessage[]): void {
    if (!this.#isOver) this.events.messages(messages);
  }

  #lost(reason: unknown, verdict: Closed['verdict'] = 'again'): void {
    if (this.#isOver) return;
    this.#end();
    const text = reason instanceof Error ? reason.message : String(reason);
    const error = reason instanceof StormError ? reason : new StormError('timeout', `HTTP: ${text}`, true);
    const isToken = error.code === 'unauthenticated' || error.code === 'token_expired';
    this.events.closed({ error, verdict: isToken ? 'token' : verdict });
  }

  async #handle(request: Request): Promise<void> {
    const { id } = request;
    try {
      switch (request.op) {
        case 'publish':
          this.#publishes.push(request);
          return await this.#publish();
        case 'subscribe':
          return await this.#follow(request);
        case 'unsubscribe': {
          const target = (request.pattern ?? request.channel)!;
          this.#readers.get(target)?.abort();
          return this.#say({ op: 'unsubscribed', id: id!, channel: target });
        }
        case 'refresh':
          this.#token = request.token;
          return this.#say({ op: 'refreshed', id: id!, expires_in_ms: 0 });
        case 'ping': {
          await (await this.#fetch('ping', {})).text();
          return this.#say({ op: 'pong', id: id!, server_time: Date.now() });
        }
        case 'signal':
          await this.#json(`${path(request.channel)}/signals`, 'POST', dataOut({ data: request.data }));
          return;
        case 'presence': {
          const query = new URLSearchParams({ limit: String(request.limit) });
          if (request.after !== undefined) query.set('after', request.after);
          const page = await this.#json(`${path(request.channel)}/presence?${query}`);
          return this.#say({ ...(page as Message<'presence'>), op: 'presence', id: id! });
        }
        case 'history': {
          const page = await this.#page(request.channel, {
            before: request.before,
            after: request.after,
            limit: request.limit,
          });
          return this.#say({ ...page, op: 'history', id: id!, channel: request.channel });
        }
      }
    } catch (error) {
      this.#refuse(request, error);
    }
  }

  /** An answer that is a refusal goes to whoever asked; what is no answer ends the connection. */
  #refuse(request: Request, reason: unknown): void {
    if (!(reason instanceof StormError) || reason.code === 'token_expired') return this.#lost(reason);
    if (reason.code === 'unauthenticated') return this.#lost(reason);
    const { code, message, temporary, retryAfterMs, expected } = reason;
    this.#say({
      op: 'error',
      ...(request.id !== undefined && { id: request.id }),
      code,
      message,
      temporary,
      ...(retryAfterMs !== undefined && { retry_after_ms: retryAfterMs }),
      ...(expected !== undefined && { expected }),
    });
  }

  /** One publish at a time: requests may overtake each other. */
  async #publish(): Promise<void> {
    if (this.#isPublishing) return;
    this.#isPublishing = true;
    for (let next = this.#publishes.shift(); next; next = this.#publishes.shift()) {
      const query = new URLSearchParams({ producer: this.options.producer, seq: String(next.seq) });
      if (next.again !== undefined) query.set('again', String(next.again + AGAIN_SLACK_MS));
      if (next.receipt) query.set('receipt', next.receipt);
      try {
        const target = `${path(next.channel)}/events?${query}`;
        const said = (await this.#json(target, 'POST', next.events.map(dataOut))) as object;
        this.#say({ ...(said as Message<'published'>), op: 'published', id: next.seq });
      } catch (error) {
        this.#refuse(next, error);
        // What follows a publish without an answer must not overtake it: the connection is over.
        if (this.#isOver || !(error instanceof StormError)) return;
        if (!error.temporary) continue;
        // It goes again behind this one.
        for (const later of this.#publishes.splice(0)) {
          this.#refuse(later, new StormError('out_of_order', 'an earlier one goes first', true));
        }
      }
    }
    this.#isPublishing = false;
  }

  async #follow(request: Subscribe): Promise<void> {
    const target = (request.pattern ?? request.channel)!;
    const stop = this.#stopper();
    this.#readers.get(target)?.abort();
    this.#readers.set(target, stop);
    try {
      const reader = new Feed(request, (...messages) => {
        if (!stop.signal.aborted) this.#say(...messages);
      });
      await this.#begin(reader, request.since);
      while (!stop.signal.aborted) {
        if (this.transport === 'sse' && this.#streams < STREAMS_MAX) {
          await this.#stream(reader, stop.signal);
        } else {
          await this.#poll(reader, stop.signal);
        }
      }
    } catch (error) {
      if (!stop.signal.aborted) this.#refuse(request, error);
    } finally {
      stop.forget();
      if (this.#readers.get(target) === stop) this.#readers.delete(target);
    }
  }

  /** Finds the place where the feed begins, and answers the subscription. */
  async #begin(reader: Feed, since: Since | undefined): Promise<void> {
    if (since && 'time' in since) {
      throw new StormError('unsupported', '`since: {time}` needs a WebSocket', true, 10_000);
    }
    if (reader.isPattern && since && 'last' in since) {
      throw new StormError('invalid_field', 'since.last: a pattern has a cursor');
    }
    if (since && ('offset' in since || 'cursor' in since)) return reader.subscribed(since);
    if (reader.isPattern) {
      // The page after nothing would be all that there is; a stream begins now and says where.
      await this.#stream(reader, new AbortController().signal, true);
      if (reader.place) return;
      const text = 'a pattern from now on needs a WebSocket or a stream';
      throw new StormError('unsupported', text, true, 10_000);
    }
    const last = since && 'last' in since ? Math.min(1000, Math.max(1, since.last)) : 1;
    const page = await this.#page(reader.target, { limit: last });
    const [first] = page.events;
    // From before the first of the last ones, or from behind the last one.
    const offset = first ? first.offset - (since ? 1 : 0) : 0;
    reader.subscribed({ epoch: page.epoch, offset });
  }

  async #poll(reader: Feed, signal: AbortSignal): Promise<void> {
    const isShort = this.transport === 'sse';
    const place = reader.place;
    const after = place && 'offset' in place ? place : undefined;
    const query = { after, cursor: place && 'cursor' in place ? place.cursor : undefined };
    const wait = isShort ? 0 : WAIT_S;
    reader.page(await this.#page(reader.target, { ...query, limit: PAGE, wait }, signal));
    if (isShort && !reader.more) await pause(POLL_PAUSE_MS, signal);
  }

  async #stream(reader: Feed, signal: AbortSignal, onlyPlace = false): Promise<void> {
    const stop = new AbortController();
    const end = () => stop.abort();
    signal.addEventListener('abort', end, { once: true });
    this.#streams++;
    let words = 0;
    let timer = setTimeout(end, FIRST_WORD_MS);
    try {
      const headers: Record<string, string> = { accept: 'text/event-stream' };
      const at = textOf(reader.place);
      if (at !== undefined) headers['last-event-id'] = at;
      const answer = await this.#fetch(`${path(reader.target)}/events`, { headers, signal: stop.signal });
      if (!answer.ok) throw await refusalOf(answer);
      const parse = sse((field) => reader.field(field));
      const decoder = new TextDecoder();
      const chunks = answer.body!.getReader();
      for (;;) {
        const { done, value } = await chunks.read();
        if (done) break;
        words++;
        clearTimeout(timer);
        timer = setTimeout(end, SILENCE_MAX_MS);
        parse(decoder.decode(value, { stream: true }));
        if (onlyPlace && reader.place) break;
      }
    } catch (error) {
      if (signal.aborted || !stop.signal.aborted) throw error;
      // Held back on its way: others will be, too.
      if (words === 0 && !this.#isOver) {
        this.transport = 'poll';
        this.events.transport?.('poll');
      }
    } finally {
      clearTimeout(timer);
      stop.abort();
      signal.removeEventListener('abort', end);
      this.#streams--;
    }
  }

  async #page(
    target: string,
    query: {
      before?: Position | undefined;
      after?: Position | undefined;
      cursor?: string | undefined;
      limit: number;
      wait?: number;
    },
    signal?: AbortSignal,
  ): Promise<Omit<Message<'history'>, 'op' | 'channel'> & { next?: string }> {
    const search = new URLSearchParams({ limit: String(query.limit) });
    if (query.before) search.set('before', textOf(query.before)!);
    if (query.after) search.set('after', textOf(query.after)!);
    if (query.cursor !== undefined) search.set('after', query.cursor);
    if (query.wait) search.set('wait', String(query.wait));
    const timeout = this.options.timeoutMs + (query.wait ?? 0) * 1000;
    const page = (await this.#json(`${path(target)}/events?${search}`, 'GET', undefined, {
      timeout,
      ...(signal && { signal }),
    })) as Page;
    page.events.forEach(dataIn);
    const gaps = page.gaps?.map(({ from, to }) => ({ from: placeOf(from), to: placeOf(to) }));
    return { ...page, ...(gaps && { gaps }) } as Omit<Message<'history'>, 'op' | 'channel'>;
  }

  async #json(
    target: string,
    method = 'GET',
    body?: unknown,
    limits: { timeout?: number; signal?: AbortSignal } = {},
  ): Promise<unknown> {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const answer = await this.#fetch(
      target,
      { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) },
      limits,
    );
    if (!answer.ok) throw await refusalOf(answer);
    return answer.status === 204 ? {} : answer.json().catch(() => ({}));
  }

  #fetch(
    target: string,
    init: RequestInit,
    limits: { timeout?: number; signal?: AbortSignal } = {},
  ): Promise<Response> {
    const headers = { ...init.headers, authorization: `Bearer ${this.#token}` };
    if (this.#isOver) return Promise.reject(new Error('the connection is over'));
    const url = new URL(target, this.options.url);
    const asked = { ...init, headers, cache: 'no-store' as const };
    // A stream has an end and a timer of its own.
    if (init.signal) return this.options.fetch(url, asked);
    const stop = this.#stopper();
    const timer = setTimeout(stop.abort, limits.timeout ?? this.options.timeoutMs + 20_000);
    limits.signal?.addEventListener('abort', stop.abort, { once: true });
    return this.options.fetch(url, { ...asked, signal: stop.signal }).finally(() => {
      clearTimeout(timer);
      limits.signal?.removeEventListener('abort', stop.abort);
      stop.forget();
    });
  }

  /** What ends one piece of work, at the latest with the connection. */
  #stopper(): { signal: AbortSignal; abort(): void; forget(): void } {
    const controller = new AbortController();
    this.#open.add(controller);
    return {
      signal: controller.signal,
      abort: () => controller.abort(),
      forget: () => this.#open.delete(controller),
    };
  }

  #end(): void {
    this.#isOver = true;
    for (const controller of this.#open) controller.abort();
  }
}

const path = (channel: string) => `v1/channels/${encodeURIComponent(channel)}`;

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
