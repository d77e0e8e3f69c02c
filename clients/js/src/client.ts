/** The client as a program uses it: a session that outlives its connections. */
import { Channel } from './channel.js';
import { Connection, now } from './connection.js';
import { Emitter } from './emitter.js';
import { StormError } from './error.js';
import type { ClientEvents, ClientOptions } from './options.js';
import type { Outbox } from './outbox-port.js';
import type { OutEvent, Request, ServerMessage } from './protocol.js';
import { Session, type Outbound } from './session.js';
import { Subscription, type SubscribeOptions } from './subscription.js';
import type { Members, NewEvent, Published, Status } from './types.js';

/** Connects, and stays connected until {@link Client.close}. */
export const connect = (options: ClientOptions): Client => new Client(options);

/** A connection that mends itself. */
export class Client {
  /** Whose publishes these are, for the server's memory of repeats. */
  producer: string = crypto.randomUUID().replace(/-/g, '');
  readonly #outbox: Outbox | undefined;
  readonly #emitter = new Emitter<ClientEvents>();
  readonly #session: Session;
  readonly #connection: Connection;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isScheduled = false;
  /** Ends when the outbox is open, and then after each of its writes. */
  #kept: Promise<void> | undefined;
  /** Publishes that the outbox does not have yet. */
  #keeping = 0;

  /** @internal Use {@link connect}. */
  constructor(options: ClientOptions) {
    const outbox = (this.#outbox = options.outbox);
    const { queueBytes = 4 << 20, queuePublishes = 10_000, requestTimeoutMs = 30_000 } = options;
    const publishTimeoutMs = options.publishTimeoutMs ?? (outbox ? Infinity : 120_000);
    this.#session = new Session(
      { queueBytes, queuePublishes, publishTimeoutMs, requestTimeoutMs },
      {
        changed: () => this.#schedule(),
        abandon: () => this.#connection.lose('a publish was given up', 0),
        moving: (afterMs) => this.#connection.moving(afterMs),
        problem: (error) => this.#emitter.emit('error', error),
        settled: (seq, outbound, outcome) => this.#settled(seq, outbound, outcome),
      },
      now,
    );
    this.#connection = new Connection(options, this.#session, {
      ready: () => this.#kept,
      producer: () => this.producer,
      accepted: (serverTime) => {
        if (!outbox) return undefined;
        return (this.#kept = this.#kept!.then(() => outbox.sending(serverTime)));
      },
      status: (status) => {
        if (status.state === 'closed') clearTimeout(this.#timer);
        this.#emitter.emit('status', status);
      },
      changed: () => this.#schedule(),
    });
    if (outbox) {
      this.#kept = this.#openOutbox(outbox).catch((error: unknown) => {
        this.#connection.end(new StormError('internal', `the outbox failed: ${String(error)}`));
      });
    }
    this.#schedule();
  }

  /** How the client stands and why. */
  get status(): Status {
    return this.#connection.status;
  }

  /** Who the token says that this is, once connected. */
  get user(): string | undefined {
    return this.#connection.user;
  }

  /** The session that presence names, once connected. */
  get session(): string | undefined {
    return this.#connection.sessionId;
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
  refresh(): Promise<void> {
    return this.#connection.refresh();
  }

  /** Tries at once to connect, if there is no connection. */
  reconnect(): void {
    this.#connection.reconnect();
  }

  /**
   * Ends the client. What has no answer is refused with `closed` or `unknown_outcome`; an outbox keeps
   * it for the next client.
   */
  async close(): Promise<void> {
    this.#connection.end(new StormError('closed', 'the client was closed'));
    await this.#kept;
    await this.#outbox?.close();
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
      const outbox = this.#outbox;
      if (!outbox) return this.#session.push(this.#session.reserve(outbound), outbound);
      // Bytes and numbers are kept before anything is sent, in the order of the calls.
      this.#keeping++;
      this.#kept = this.#kept!.then(async () => {
        const seq = this.#session.reserve(outbound);
        const firstSent = this.#connection.sendsSince;
        const entry = { seq, channel, events, ...(receipt && { receipt }) };
        const known = firstSent === undefined ? {} : { firstSent: Math.floor(firstSent) };
        await outbox.put({ ...entry, ...known }, this.#session.window.nextSeq);
        // What was taken before the end is the next client's to send.
        if (this.#isOver()) return reject(closed());
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
    if (this.#isOver()) return Promise.reject(closed());
    return this.#session.question(request);
  }

  /** @internal */
  members(channel: string): Promise<Members> {
    if (this.#isOver()) return Promise.reject(closed());
    return this.#session.pages(channel);
  }

  /** @internal */
  say(request: Request): boolean {
    return this.#session.say(request);
  }

  #isOver(): boolean {
    return this.status.state === 'closed';
  }

  #mustBeOpen(): void {
    if (this.#isOver()) throw this.status.error ?? closed();
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
    const isKept = outcome instanceof StormError && this.#isOver();
    const outbox = this.#outbox;
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
    if (this.#isOver()) return;
    this.#session.tick();
    const next = Math.min(this.#connection.run(now()), this.#session.nextTimer());
    if (next === Infinity || this.#isOver()) return;
    const pause = Math.min(Math.max(1, next - now()), 2 ** 31 - 1);
    this.#timer = setTimeout(() => this.#run(), pause);
  }
}

const closed = () => new StormError('closed', 'the client is closed');
