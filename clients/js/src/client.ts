/** The client: connections, one after the other, behind one session. */
import { Backoff } from './backoff.js';
import { Channel } from './channel.js';
import { Emitter } from './emitter.js';
import { StormError } from './error.js';
import { openHttp } from './http.js';
import { json } from './json.js';
import type { Closed, Link, LinkEvents } from './link.js';
import type { Outbox, OutboxEntry } from './outbox-port.js';
import type { Codec, Message, OutEvent, Request, ServerMessage } from './protocol.js';
import { Session, type Outbound } from './session.js';
import { Subscription, type SubscribeOptions } from './subscription.js';
import { lifetime, type TokenProvider } from './token.js';
import type { Members, NewEvent, Published, Status } from './types.js';
import { openWebSocket, type WebSocketConstructor } from './websocket.js';

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

/** A connection that is not accepted yet. */
interface Attempt {
  link?: Link;
  isUpgrade: boolean;
  over: boolean;
}

const SEND_AHEAD_BYTES = 1024 * 1024;
/** While more waits to be sent, it is looked at again after so long. */
const BACKLOG_PAUSE_MS = 10;
const HEARTBEAT_MS = 30_000;
/** How long it may take to say that it is; at most as long as the silence. */
const PONG_WITHIN_MS = 10_000;
const REFRESH_MIN_MS = 1000;
const REFRESH_RETRY_MS = 10_000;
/** WebSockets that fail one after the other before HTTP is tried. */
const FAILURES_BEFORE_HTTP = 2;
const TOKENS_REFUSED_MAX = 2;

/** Connects, and stays connected until {@link Client.close}. */
export const connect = (options: ClientOptions): Client => new Client(options);

/** A connection that mends itself. */
export class Client {
  /** Whose publishes these are, for the server's memory of repeats. */
  producer: string = crypto.randomUUID().replace(/-/g, '');
  readonly #options: ClientOptions;
  readonly #urls: URL[];
  readonly #emitter = new Emitter<ClientEvents>();
  readonly #session: Session;
  readonly #backoff: Backoff;
  readonly #upgrades = new Backoff(1000, 30_000, () => 1);
  #status: Status = { state: 'connecting' };
  #user: string | undefined;
  #sessionId: string | undefined;
  #link: Link | undefined;
  /** A link that has not been accepted yet. */
  #dialling: Attempt | undefined;
  #at = 0;
  #failures = 0;
  #tokensRefused = 0;
  #refusedToken: string | undefined;
  #token = '';
  #heard = 0;
  #pinged = false;
  #heartbeatMs = HEARTBEAT_MS;
  #refreshAt = Infinity;
  #dialAt = Infinity;
  #moveAt = Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isScheduled = false;
  /** Ends when the outbox is open, and then after each of its writes. */
  #kept: Promise<void> | undefined;
  /** The server's time from which on everything may be sent at once; none without a connection. */
  #sendsSince: number | undefined;
  /** Publishes that the outbox does not have yet. */
  #keeping = 0;
  readonly #forget: (() => void)[] = [];

  /** @internal Use {@link connect}. */
  constructor(options: ClientOptions) {
    this.#options = options;
    const urls = [options.url].flat() as (string | URL)[];
    this.#urls = urls.map((url) => new URL(String(url).replace(/^ws/, 'http').replace(/\/?$/, '/')));
    if (this.#urls.length === 0) throw new TypeError('url: at least one is due');
    this.#backoff = new Backoff(...(options.backoffMs ?? [200, 20_000]));
    const { queueBytes = 4 << 20, queuePublishes = 10_000, requestTimeoutMs = 30_000 } = options;
    const publishTimeoutMs = options.publishTimeoutMs ?? (options.outbox ? Infinity : 120_000);
    this.#session = new Session(
      { queueBytes, queuePublishes, publishTimeoutMs, requestTimeoutMs },
      {
        changed: () => this.#schedule(),
        abandon: () => this.#lose('a publish was given up', 0),
        moving: (afterMs) => (this.#moveAt = now() + afterMs),
        problem: (error) => this.#emitter.emit('error', error),
        settled: (seq, outbound, outcome) => this.#settled(seq, outbound, outcome),
      },
      now,
    );
    this.#watchNetwork();
    if (options.outbox) {
      this.#kept = this.#openOutbox(options.outbox).catch((error: unknown) => {
        this.#end(new StormError('internal', `the outbox failed: ${String(error)}`));
      });
    }
    this.#dialAt = 0;
    this.#schedule();
  }

  /** How the client stands and why. */
  get status(): Status {
    return this.#status;
  }

  /** Who the token says that this is, once connected. */
  get user(): string | undefined {
    return this.#user;
  }

  /** The session that presence names, once connected. */
  get session(): string | undefined {
    return this.#sessionId;
  }

  /** Publishes without an answer. */
  get pending(): number {
    return this.#session.window.length + this.#keeping;
  }

  /** Listens; the answer ends that. */
  on<K extends keyof ClientEvents>(name: K, handler: (value: ClientEvents[K]) => void): () => void {
    return this.#emitter.on(name, handler);
  }

  /** A channel by its name; `P` names the types of its events. */
  channel<P = object>(name: string): Channel<P> {
    return new Channel<P>(this, name);
  }

  /** Follows all channels of a namespace that match: `orders:*`, `orders:eu.*`. */
  subscribePattern<P = object>(pattern: string, options: SubscribeOptions = {}): Subscription<P> {
    return this.follow<P>(pattern, true, options);
  }

  /** Asks for a fresh token now, and gives it to the server; connects if it was refused before. */
  async refresh(): Promise<void> {
    const token = await this.#getToken();
    if (this.#link) await this.question({ op: 'refresh', token });
    this.#took(token);
  }

  /** Tries at once to connect, if there is no connection. */
  reconnect(): void {
    if (this.#link || this.#status.state === 'closed') return;
    this.#backoff.reset();
    this.#dialAt = 0;
    this.#schedule();
  }

  /**
   * Ends the client. What has no answer is refused with `closed` or `unknown_outcome`; an outbox keeps
   * it for the next client.
   */
  async close(): Promise<void> {
    this.#end(new StormError('closed', 'the client was closed'));
    await this.#kept;
    await this.#options.outbox?.close();
  }

  /** @internal */
  follow<P>(target: string, isPattern: boolean, options: SubscribeOptions): Subscription<P> {
    this.#mustBeOpen();
    const subscription = new Subscription<P>(target, isPattern, options, this.#session);
    this.#session.follow(subscription as unknown as Subscription<never>);
    return subscription;
  }

  /** @internal */
  send(channel: string, events: NewEvent[], isForArchive: boolean): Promise<Published> {
    return new Promise((resolve, reject) => {
      this.#mustBeOpen();
      const receipt = isForArchive ? ('archive' as const) : undefined;
      const outbound: Outbound = {
        channel,
        events: events as OutEvent[],
        receipt,
        bytes: 0,
        resolve,
        reject,
      };
      const { outbox } = this.#options;
      if (!outbox) return this.#session.push(this.#session.reserve(outbound), outbound);
      // Bytes and numbers are kept before anything is sent, in the order of the calls.
      this.#keeping++;
      this.#kept = this.#kept!.then(async () => {
        const seq = this.#session.reserve(outbound);
        const firstSent = this.#sendsSince;
        const entry = { seq, channel, events, ...(receipt && { receipt }) };
        const known = firstSent === undefined ? {} : { firstSent: Math.floor(firstSent) };
        await outbox.put({ ...entry, ...known }, this.#session.window.nextSeq);
        // What was taken before the end is the next client's to send.
        if (this.#status.state === 'closed') return reject(closed());
        // The number is new, so this first attempt is no repeat, whenever it is made.
        this.#session.push(seq, outbound);
      })
        .catch((error: unknown) => {
          reject(error instanceof StormError ? error : new StormError('internal', String(error)));
        })
        .finally(() => this.#keeping--);
    });
  }

  /** @internal */
  question(request: Request): Promise<ServerMessage> {
    if (this.#status.state === 'closed') return Promise.reject(closed());
    return this.#session.question(request);
  }

  /** @internal */
  members(channel: string): Promise<Members> {
    if (this.#status.state === 'closed') return Promise.reject(closed());
    return this.#session.pages(channel);
  }

  /** @internal */
  say(request: Request): boolean {
    return this.#session.say(request);
  }

  #mustBeOpen(): void {
    if (this.#status.state === 'closed') throw this.#status.error ?? closed();
  }

  async #openOutbox(outbox: Outbox): Promise<void> {
    const { producer, nextSeq, entries } = await outbox.open();
    this.producer = producer;
    this.#session.window.resume(nextSeq);
    for (const { seq, channel, events, receipt, firstSent } of entries) {
      const nobody = () => {};
      const outbound = { channel, events: events as OutEvent[], receipt, bytes: 0 };
      this.#session.restore(seq, { ...outbound, resolve: nobody, reject: nobody }, firstSent);
    }
    if (entries.length > 0) this.#emitter.emit('restored', entries);
  }

  #settled(seq: number, outbound: Outbound, outcome: Published | StormError): void {
    const { channel, events } = outbound;
    const isKept = outcome instanceof StormError && this.#status.state === 'closed';
    const { outbox } = this.#options;
    if (outbox && !isKept) {
      this.#kept = this.#kept!.then(() => outbox.remove(seq)).catch((error: unknown) => {
        this.#emitter.emit('error', new StormError('internal', `the outbox failed: ${String(error)}`));
      });
    }
    this.#emitter.emit('settled', { seq, channel, events, outcome });
  }

  /** Looks once at everything that may be due, after all that happens now. */
  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#run();
    });
  }

  #run(): void {
    clearTimeout(this.#timer);
    if (this.#status.state === 'closed') return;
    const time = now();
    this.#session.tick();
    if (this.#link && this.#moveAt <= time) this.#move();
    if (this.#dialAt <= time && !this.#dialling) void this.#dial();
    if (this.#refreshAt <= time) void this.#renew();
    this.#beat(time);
    const isFull = this.#flush();
    const silence = this.#heard + (this.#pinged ? this.#pongWithinMs : this.#heartbeatMs);
    const next = Math.min(
      this.#session.nextTimer(),
      this.#dialling ? Infinity : this.#dialAt,
      this.#refreshAt,
      this.#link ? Math.min(silence, this.#moveAt) : Infinity,
      isFull ? now() + BACKLOG_PAUSE_MS : Infinity,
    );
    if (next === Infinity) return;
    const pause = Math.min(Math.max(1, next - now()), 2 ** 31 - 1);
    this.#timer = setTimeout(() => this.#run(), pause);
  }

  /** Sends what there is; true if the way is full. */
  #flush(): boolean {
    while (this.#link) {
      if (this.#link.backlog > SEND_AHEAD_BYTES) return true;
      const requests = this.#session.take();
      if (requests.length === 0) return false;
      this.#link.send(requests);
    }
    return false;
  }

  /** A browser does not show the server's pings: silence is broken by a question. */
  #beat(time: number): void {
    if (this.#link?.transport !== 'websocket') return;
    if (this.#pinged && this.#heard + this.#pongWithinMs <= time) {
      this.#lose('the server does not answer');
    } else if (!this.#pinged && this.#heard + this.#heartbeatMs <= time) {
      this.#ask();
    }
  }

  get #pongWithinMs(): number {
    return Math.min(PONG_WITHIN_MS, Math.max(1000, this.#heartbeatMs));
  }

  /** Asks whether the server is there. */
  #ask(): void {
    this.#pinged = true;
    this.#heard = now();
    this.#session.say({ op: 'ping' });
  }

  #may(transport: 'websocket' | 'http'): boolean {
    return !this.#options.transports || this.#options.transports.includes(transport);
  }

  async #getToken(): Promise<string> {
    const { token } = this.#options;
    const refused = this.#refusedToken;
    return typeof token === 'string' ? token : token(refused === undefined ? {} : { refused });
  }

  /** Three quarters of its life are over: a fresh one, before the connection ends with it. */
  async #renew(): Promise<void> {
    this.#refreshAt = Infinity;
    const link = this.#link;
    try {
      const token = await this.#getToken();
      if (this.#link !== link || !link) return;
      if (token !== this.#token) await this.question({ op: 'refresh', token });
      this.#took(token);
    } catch {
      this.#refreshAt = now() + REFRESH_RETRY_MS;
    }
    this.#schedule();
  }

  #took(token: string): void {
    this.#token = token;
    const left = lifetime(token, this.#session.window.serverNow(now()));
    const isFixed = typeof this.#options.token === 'string';
    const known = left !== undefined && !isFixed;
    this.#refreshAt = known ? now() + Math.max(REFRESH_MIN_MS, left * 0.75) : Infinity;
  }

  async #dial(): Promise<void> {
    const isUpgrade = this.#link !== undefined;
    const attempt: Attempt = { isUpgrade, over: false };
    this.#dialling = attempt;
    this.#dialAt = Infinity;
    if (!isUpgrade && !isOnline()) return this.#failed(attempt, offline());
    let token: string;
    try {
      token = await this.#getToken();
      await this.#kept;
    } catch (reason) {
      const text = reason instanceof Error ? reason.message : String(reason);
      const final = reason instanceof StormError && !reason.temporary;
      const error = final ? reason : new StormError('unauthenticated', `no token: ${text}`, true);
      return this.#failed(attempt, { error, verdict: final ? 'never' : 'again' });
    }
    if (attempt.over) return;
    const constructor = this.#options.WebSocket ?? globalThis.WebSocket;
    const canWebSocket = this.#may('websocket') && constructor !== undefined;
    const isHttpsTurn = this.#failures >= FAILURES_BEFORE_HTTP && this.#failures % 2 === 0;
    const isHttp = !isUpgrade && this.#may('http') && (!canWebSocket || isHttpsTurn);
    if (!isHttp && !canWebSocket) {
      const error = new StormError('unsupported', 'there is no WebSocket here: give one');
      return this.#failed(attempt, { error, verdict: 'never' });
    }
    const url = this.#urls[this.#at % this.#urls.length]!;
    const hello: Request = { op: 'connect', id: 0, token, producer: this.producer };
    const timeoutMs = this.#options.connectTimeoutMs ?? 10_000;
    const events: LinkEvents = {
      messages: (messages) => {
        for (const message of messages) {
          if (attempt.over) return;
          if (this.#link === attempt.link) this.#incoming(message);
          else if (message.op === 'connected') void this.#accepted(attempt, token, message);
        }
      },
      closed: (closed) => {
        if (this.#link && this.#link === attempt.link) this.#lost(closed);
        else this.#failed(attempt, closed, token);
      },
      transport: (transport) => {
        if (this.#link === attempt.link) this.#become({ state: 'connected', transport });
      },
    };
    attempt.link = isHttp
      ? openHttp(
          {
            fetch: this.#options.fetch ?? fetch.bind(globalThis),
            url,
            producer: this.producer,
            token,
            user: '',
            serverTime: this.#session.window.serverNow(now()) || undefined,
            timeoutMs,
            streams: true,
          },
          events,
        )
      : openWebSocket(constructor!, url, this.#options.codec ?? json, hello, timeoutMs, events);
  }

  async #accepted(attempt: Attempt, token: string, message: Message<'connected'>): Promise<void> {
    const link = attempt.link!;
    this.#sendsSince = message.server_time;
    if (this.#options.outbox) {
      this.#kept = this.#kept!.then(() => this.#options.outbox!.sending(message.server_time));
      await this.#kept.catch(() => {});
      if (attempt.over || this.#dialling !== attempt) return;
    }
    // An upgrade: the same session goes on over the new way.
    const former = this.#link;
    if (former) this.#session.disconnected();
    former?.close();
    this.#dialling = undefined;
    this.#link = link;
    this.#user = message.user || this.#user;
    this.#sessionId = message.session || this.#sessionId;
    const heartbeatMs = Math.min(message.heartbeat_ms, this.#options.heartbeatMs ?? Infinity);
    this.#heartbeatMs = heartbeatMs * (0.8 + 0.2 * Math.random());
    this.#moveAt = Infinity;
    this.#heard = now();
    this.#pinged = false;
    this.#backoff.reset();
    this.#tokensRefused = 0;
    this.#refusedToken = undefined;
    if (link.transport === 'websocket') {
      this.#failures = 0;
      this.#upgrades.reset();
    }
    this.#session.connected(message);
    this.#took(token);
    this.#become({ state: 'connected', transport: link.transport });
    this.#planUpgrade();
  }

  /** From HTTP back to a WebSocket, as soon as one passes. */
  #planUpgrade(): void {
    if (!this.#link || this.#link.transport === 'websocket' || !this.#may('websocket')) return;
    if (!(this.#options.WebSocket ?? globalThis.WebSocket)) return;
    this.#dialAt = now() + this.#upgrades.next();
  }

  #incoming(message: ServerMessage): void {
    this.#heard = now();
    this.#pinged = false;
    this.#session.incoming(message);
  }

  /** An attempt came to nothing. */
  #failed(attempt: Attempt, closed: Closed, token?: string): void {
    if (attempt.over || this.#dialling !== attempt) return;
    attempt.over = true;
    this.#dialling = undefined;
    if (attempt.isUpgrade && this.#link) {
      this.#planUpgrade();
      return this.#schedule();
    }
    this.#at++;
    this.#failures = closed.verdict === 'unreachable' ? this.#failures + 1 : 0;
    this.#retry(closed, token);
  }

  /** The connection is over. */
  #lost(closed: Closed): void {
    this.#drop();
    const isMoving = this.#moveAt !== Infinity && closed.verdict === 'again';
    // Whoever was told to move has a time of his own already.
    this.#retry(isMoving ? { ...closed, afterMs: Math.max(0, this.#moveAt - now()) } : closed, this.#token);
  }

  #retry(closed: Closed, token: string | undefined): void {
    const { error, verdict, afterMs } = closed;
    if (verdict === 'never') return this.#end(error);
    if (verdict === 'token') {
      this.#refusedToken = token;
      if (typeof this.#options.token === 'string' || ++this.#tokensRefused > TOKENS_REFUSED_MAX) {
        return this.#end(error);
      }
    }
    this.#moveAt = Infinity;
    const isHttpNext = verdict === 'unreachable' && this.#failures === FAILURES_BEFORE_HTTP;
    const pause = afterMs ?? (isHttpNext ? 0 : this.#backoff.next());
    this.#dialAt = isOnline() ? now() + pause : Infinity;
    const state = !isOnline() ? 'offline' : this.#user ? 'reconnecting' : 'connecting';
    this.#become({ state, error, nextAttemptAt: Date.now() + pause });
    this.#schedule();
  }

  /** Gives the connection up. */
  #lose(why: string, afterMs?: number): void {
    const error = new StormError('timeout', why, true);
    this.#lost({ error, verdict: 'again', ...(afterMs !== undefined && { afterMs }) });
  }

  #move(): void {
    this.#at++;
    this.#lose('the server moves its connections', 0);
  }

  #drop(): void {
    const link = this.#link;
    this.#link = undefined;
    this.#sendsSince = undefined;
    if (this.#dialling) {
      this.#dialling.over = true;
      this.#dialling.link?.close();
      this.#dialling = undefined;
    }
    this.#refreshAt = Infinity;
    link?.close();
    this.#session.disconnected();
  }

  #end(error: StormError): void {
    if (this.#status.state === 'closed') return;
    clearTimeout(this.#timer);
    this.#forget.forEach((forget) => forget());
    this.#drop();
    this.#become({ state: 'closed', error });
    this.#session.end(error);
  }

  #become(status: Status): void {
    this.#status = status;
    this.#emitter.emit('status', status);
  }

  /** What the browser says of its network, and that it has slept. */
  #watchNetwork(): void {
    const scope = globalThis as { addEventListener?: typeof addEventListener; document?: Document };
    if (!scope.addEventListener) return;
    const listen = (target: EventTarget, name: string, handler: () => void) => {
      target.addEventListener(name, handler);
      this.#forget.push(() => target.removeEventListener(name, handler));
    };
    listen(globalThis as unknown as EventTarget, 'online', () => this.reconnect());
    listen(globalThis as unknown as EventTarget, 'offline', () => {
      if (this.#link || this.#dialling) this.#lost(offline());
    });
    const { document } = scope;
    if (!document) return;
    listen(document, 'visibilitychange', () => {
      if (document.visibilityState !== 'visible') return;
      if (this.#link?.transport === 'websocket' && !this.#pinged) this.#ask();
      this.reconnect();
    });
  }
}

const now = () => performance.now();
const closed = () => new StormError('closed', 'the client is closed');
const isOnline = () => globalThis.navigator?.onLine !== false;
const offline = (): Closed => ({
  error: new StormError('timeout', 'there is no network', true),
  verdict: 'again',
});
