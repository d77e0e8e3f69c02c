/** The connections of a client, one after the other: dialled, listened to, left and replaced. */
import { Backoff } from './backoff.js';
import { StormError } from './error.js';
import { openHttp } from './http.js';
import { json } from './json.js';
import type { Closed, Link, LinkEvents } from './link.js';
import type { ClientOptions } from './options.js';
import type { Message, Request, ServerMessage } from './protocol.js';
import type { Session } from './session.js';
import { lifetime } from './token.js';
import type { Status } from './types.js';
import { openWebSocket } from './websocket.js';

/** What a connection asks of the client that it belongs to. */
export interface ConnectionHooks {
  /** Settles when it may be dialled: the producer is known then. */
  ready(): Promise<void> | undefined;
  /** Whose publishes they are. */
  producer(): string;
  /** The server has accepted one; it is used when the answer has settled. */
  accepted(serverTime: number): Promise<void> | undefined;
  status(status: Status): void;
  /** A timer has changed. */
  changed(): void;
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

export class Connection {
  status: Status = { state: 'connecting' };
  /** Who the token says that this is, and the session that presence names; once connected. */
  user: string | undefined;
  sessionId: string | undefined;
  /** The server's time from which on everything may be sent at once; none without a connection. */
  sendsSince: number | undefined;
  readonly #urls: URL[];
  readonly #backoff: Backoff;
  readonly #upgrades = new Backoff(1000, 30_000, () => 1);
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
  #dialAt = 0;
  #moveAt = Infinity;
  readonly #forget: (() => void)[] = [];

  constructor(
    private readonly options: ClientOptions,
    private readonly session: Session,
    private readonly hooks: ConnectionHooks,
  ) {
    const urls = [options.url].flat() as (string | URL)[];
    this.#urls = urls.map((url) => new URL(String(url).replace(/^ws/, 'http').replace(/\/?$/, '/')));
    if (this.#urls.length === 0) throw new TypeError('url: at least one is due');
    this.#backoff = new Backoff(...(options.backoffMs ?? [200, 20_000]));
    this.#watchNetwork();
  }

  /** Asks for a fresh token now, and gives it to the server; connects if it was refused before. */
  async refresh(): Promise<void> {
    const token = await this.#getToken();
    if (this.#link) await this.session.question({ op: 'refresh', token });
    this.#took(token);
  }

  /** Tries at once to connect, if there is no connection. */
  reconnect(): void {
    if (this.#link || this.status.state === 'closed') return;
    this.#backoff.reset();
    this.#dialAt = 0;
    this.hooks.changed();
  }

  /** Connects again after so many milliseconds. */
  moving(afterMs: number): void {
    this.#moveAt = now() + afterMs;
  }

  /** Does what is due, and says when something will be. */
  run(time: number): number {
    if (this.#link && this.#moveAt <= time) this.#move();
    if (this.#dialAt <= time && !this.#dialling) void this.#dial();
    if (this.#refreshAt <= time) void this.#renew();
    this.#beat(time);
    const isFull = this.#flush();
    const silence = this.#heard + (this.#pinged ? this.#pongWithinMs : this.#heartbeatMs);
    return Math.min(
      this.#dialling ? Infinity : this.#dialAt,
      this.#refreshAt,
      this.#link ? Math.min(silence, this.#moveAt) : Infinity,
      isFull ? now() + BACKLOG_PAUSE_MS : Infinity,
    );
  }

  /** Sends what there is; true if the way is full. */
  #flush(): boolean {
    while (this.#link) {
      if (this.#link.backlog > SEND_AHEAD_BYTES) return true;
      const requests = this.session.take();
      if (requests.length === 0) return false;
      this.#link.send(requests);
    }
    return false;
  }

  /** A browser does not show the server's pings: silence is broken by a question. */
  #beat(time: number): void {
    if (this.#link?.transport !== 'websocket') return;
    if (this.#pinged && this.#heard + this.#pongWithinMs <= time) {
      this.lose('the server does not answer');
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
    this.session.say({ op: 'ping' });
  }

  #may(transport: 'websocket' | 'http'): boolean {
    return !this.options.transports || this.options.transports.includes(transport);
  }

  async #getToken(): Promise<string> {
    const { token } = this.options;
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
      if (token !== this.#token) await this.session.question({ op: 'refresh', token });
      this.#took(token);
    } catch {
      this.#refreshAt = now() + REFRESH_RETRY_MS;
    }
    this.hooks.changed();
  }

  #took(token: string): void {
    this.#token = token;
    const left = lifetime(token, this.session.window.serverNow(now()));
    const isFixed = typeof this.options.token === 'string';
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
      await this.hooks.ready();
    } catch (reason) {
      const text = reason instanceof Error ? reason.message : String(reason);
      const final = reason instanceof StormError && !reason.temporary;
      const error = final ? reason : new StormError('unauthenticated', `no token: ${text}`, true);
      return this.#failed(attempt, { error, verdict: final ? 'never' : 'again' });
    }
    if (attempt.over) return;
    const constructor = this.options.WebSocket ?? globalThis.WebSocket;
    const canWebSocket = this.#may('websocket') && constructor !== undefined;
    const isHttpsTurn = this.#failures >= FAILURES_BEFORE_HTTP && this.#failures % 2 === 0;
    const isHttp = !isUpgrade && this.#may('http') && (!canWebSocket || isHttpsTurn);
    if (!isHttp && !canWebSocket) {
      const error = new StormError('unsupported', 'there is no WebSocket here: give one');
      return this.#failed(attempt, { error, verdict: 'never' });
    }
    const url = this.#urls[this.#at % this.#urls.length]!;
    const producer = this.hooks.producer();
    const hello: Request = { op: 'connect', id: 0, token, producer };
    const timeoutMs = this.options.connectTimeoutMs ?? 10_000;
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
            fetch: this.options.fetch ?? fetch.bind(globalThis),
            url,
            producer,
            token,
            user: '',
            serverTime: this.session.window.serverNow(now()) || undefined,
            timeoutMs,
            streams: true,
          },
          events,
        )
      : openWebSocket(constructor!, url, this.options.codec ?? json, hello, timeoutMs, events);
  }

  async #accepted(attempt: Attempt, token: string, message: Message<'connected'>): Promise<void> {
    const link = attempt.link!;
    this.sendsSince = message.server_time;
    const kept = this.hooks.accepted(message.server_time);
    if (kept) {
      await kept.catch(() => {});
      if (attempt.over || this.#dialling !== attempt) return;
    }
    // An upgrade: the same session goes on over the new way.
    const former = this.#link;
    if (former) this.session.disconnected();
    former?.close();
    this.#dialling = undefined;
    this.#link = link;
    this.user = message.user || this.user;
    this.sessionId = message.session || this.sessionId;
    const heartbeatMs = Math.min(message.heartbeat_ms, this.options.heartbeatMs ?? Infinity);
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
    this.session.connected(message);
    this.#took(token);
    this.#become({ state: 'connected', transport: link.transport });
    this.#planUpgrade();
  }

  /** From HTTP back to a WebSocket, as soon as one passes. */
  #planUpgrade(): void {
    if (!this.#link || this.#link.transport === 'websocket' || !this.#may('websocket')) return;
    if (!(this.options.WebSocket ?? globalThis.WebSocket)) return;
    this.#dialAt = now() + this.#upgrades.next();
  }

  #incoming(message: ServerMessage): void {
    this.#heard = now();
    this.#pinged = false;
    this.session.incoming(message);
  }

  /** An attempt came to nothing. */
  #failed(attempt: Attempt, closed: Closed, token?: string): void {
    if (attempt.over || this.#dialling !== attempt) return;
    attempt.over = true;
    this.#dialling = undefined;
    if (attempt.isUpgrade && this.#link) {
      this.#planUpgrade();
      return this.hooks.changed();
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
    if (verdict === 'never') return this.end(error);
    if (verdict === 'token') {
      this.#refusedToken = token;
      if (typeof this.options.token === 'string' || ++this.#tokensRefused > TOKENS_REFUSED_MAX) {
        return this.end(error);
      }
    }
    this.#moveAt = Infinity;
    const isHttpNext = verdict === 'unreachable' && this.#failures === FAILURES_BEFORE_HTTP;
    const pause = afterMs ?? (isHttpNext ? 0 : this.#backoff.next());
    this.#dialAt = isOnline() ? now() + pause : Infinity;
    const state = !isOnline() ? 'offline' : this.user ? 'reconnecting' : 'connecting';
    this.#become({ state, error, nextAttemptAt: Date.now() + pause });
    this.hooks.changed();
  }

  /** Gives the connection up. */
  lose(why: string, afterMs?: number): void {
    const error = new StormError('timeout', why, true);
    this.#lost({ error, verdict: 'again', ...(afterMs !== undefined && { afterMs }) });
  }

  #move(): void {
    this.#at++;
    this.lose('the server moves its connections', 0);
  }

  /** There will be no further one. */
  end(error: StormError): void {
    if (this.status.state === 'closed') return;
    this.#forget.forEach((forget) => forget());
    this.#drop();
    this.#become({ state: 'closed', error });
    this.session.end(error);
  }

  #become(status: Status): void {
    this.status = status;
    this.hooks.status(status);
  }

  #drop(): void {
    const link = this.#link;
    this.#link = undefined;
    this.sendsSince = undefined;
    if (this.#dialling) {
      this.#dialling.over = true;
      this.#dialling.link?.close();
      this.#dialling = undefined;
    }
    this.#refreshAt = Infinity;
    link?.close();
    this.session.disconnected();
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

export const now = () => performance.now();
const isOnline = () => globalThis.navigator?.onLine !== false;
const offline = (): Closed => ({
  error: new StormError('timeout', 'there is no network', true),
  verdict: 'again',
});
