/**
 * The client's memory, which outlives its connections: publishes, subscriptions, questions. Calls of the
 * program and messages of the server go in; requests for the server come out when there is room.
 */
import { Backoff } from './backoff.js';
import { StormError } from './error.js';
import type { Message, OutEvent, Request, ServerMessage } from './protocol.js';
import type { Host, Subscription } from './subscription.js';
import type { Member, Members, NewEvent, Published } from './types.js';
import { PublishWindow } from './window.js';

const SUBSCRIBE_PAUSE_MS = [500, 30_000] as const;
const MEMBERS_LIMIT = 1000;
/** About so many bytes of publishes travel in one message; a server takes 1 MiB. */
const MESSAGE_BYTES = 256 * 1024;
const MESSAGE_OPERATIONS_MAX = 512;
const EVENTS_PER_PUBLISH_MAX = 4096;
/** What a server takes in a message, less what base64 and field names add. */
const PUBLISH_BYTES_MAX = 512 * 1024;

/** A publish on its way. */
export interface Outbound {
  channel: string;
  events: OutEvent[];
  receipt: 'archive' | undefined;
  bytes: number;
  resolve(published: Published): void;
  reject(error: StormError): void;
}

/** What the session asks of whoever owns the connection. */
export interface SessionHooks {
  /** There is something to send, or a timer has changed. */
  changed(): void;
  /** End the connection: the server may wait on it for what has been given up. */
  abandon(): void;
  /** Connect again after so many milliseconds. */
  moving(afterMs: number): void;
  /** A complaint that belongs to no request that anybody waits for. */
  problem(error: StormError): void;
  /** A publish has its answer. */
  settled(seq: number, outbound: Outbound, outcome: Published | StormError): void;
}

/** Bounds and deadlines. */
export interface SessionLimits {
  queueBytes: number;
  queuePublishes: number;
  publishTimeoutMs: number;
  requestTimeoutMs: number;
}

interface Ask {
  request: Request;
  resolve(message: ServerMessage): void;
  reject(error: StormError): void;
  deadline: number;
}

export class Session implements Host {
  readonly window = new PublishWindow<Outbound>();
  readonly #follows = new Map<string, Subscription<never>>();
  readonly #asks = new Map<number, Ask>();
  /** Subscriptions asked for, by request. */
  readonly #asked = new Map<number, Subscription<never>>();
  /** Subscriptions to be asked for again later. */
  #later: { at: number; subscription: Subscription<never> }[] = [];
  #control: Request[] = [];
  #lastRequest = 0;
  #queuedBytes = 0;
  #connected = false;
  #lastError: StormError | undefined;
  readonly #backoff = new Backoff(...SUBSCRIBE_PAUSE_MS);

  constructor(
    private readonly limits: SessionLimits,
    private readonly hooks: SessionHooks,
    private readonly now: () => number,
  ) {}

  /** Checks a publish and holds a place for it; the caller then calls {@link push}. */
  reserve(outbound: Outbound): number {
    const { events } = outbound;
    if (events.length === 0 || events.length > EVENTS_PER_PUBLISH_MAX) {
      const text = `a publish has 1 to ${EVENTS_PER_PUBLISH_MAX} events, this one has ${events.length}`;
      throw new StormError('invalid_field', text);
    }
    outbound.bytes = sizeOf(events);
    if (outbound.bytes > PUBLISH_BYTES_MAX) {
      const text = `a publish has at most ${PUBLISH_BYTES_MAX} bytes, this one has about ${outbound.bytes}`;
      throw new StormError('too_large', `${text}: split it`);
    }
    const { queueBytes, queuePublishes } = this.limits;
    if (this.window.length >= queuePublishes || this.#queuedBytes + outbound.bytes > queueBytes) {
      const text = `${this.window.length} publishes wait for an answer; wait for some of them`;
      throw new StormError('queue_full', text, true);
    }
    this.#queuedBytes += outbound.bytes;
    return this.window.number(events.length);
  }

  push(seq: number, outbound: Outbound, firstSent?: number): void {
    const giveUpAt = this.now() + this.limits.publishTimeoutMs;
    this.window.push(seq, outbound, outbound.bytes, giveUpAt, firstSent);
    this.hooks.changed();
  }

  /** Takes what an earlier process left. */
  restore(seq: number, outbound: Outbound, firstSent?: number): void {
    outbound.bytes = sizeOf(outbound.events);
    this.#queuedBytes += outbound.bytes;
    this.push(seq, outbound, firstSent);
  }

  follow(subscription: Subscription<never>): void {
    if (this.#follows.has(subscription.target)) {
      throw new StormError('already_subscribed', `${subscription.target} is followed already`);
    }
    this.#follows.set(subscription.target, subscription);
    this.ask(subscription);
  }

  ask(subscription: Subscription<never>): void {
    if (!this.#connected || subscription.stage !== 'due') return;
    const id = this.#nextId();
    subscription.stage = 'asked';
    this.#asked.set(id, subscription);
    this.#say(subscription.request(id));
  }

  drop(subscription: Subscription<never>): void {
    this.#forget(subscription);
    const { target, isPattern, stage } = subscription;
    if (!this.#connected || stage === 'due' || stage === 'resting') return;
    const named = isPattern ? { pattern: target } : { channel: target };
    this.#say({ op: 'unsubscribe', id: this.#nextId(), ...named });
  }

  #forget(subscription: Subscription<never>): void {
    this.#follows.delete(subscription.target);
    this.#later = this.#later.filter((later) => later.subscription !== subscription);
  }

  /** All members of a channel, page after page. */
  async pages(channel: string): Promise<Members> {
    const members: Member[] = [];
    let first: Message<'presence'> | undefined;
    let after: string | undefined;
    do {
      const page = (await this.question({
        op: 'presence',
        channel,
        limit: MEMBERS_LIMIT,
        ...(after !== undefined && { after }),
      })) as Message<'presence'>;
      first ??= page;
      members.push(...page.members);
      after = page.next;
    } while (after !== undefined);
    const { version, users, sessions, partial = false } = first;
    return { version, users, sessions, members, partial };
  }

  /** Asks the server something, now or when there is a connection again. */
  question(request: Request): Promise<ServerMessage> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId();
      const asked = { ...request, id };
      const deadline = this.now() + this.limits.requestTimeoutMs;
      this.#asks.set(id, { request: asked, resolve, reject, deadline });
      if (this.#connected) this.#say(asked);
      this.hooks.changed();
    });
  }

  /** Says what nobody waits for; lost without a connection. */
  say(request: Request): boolean {
    if (this.#connected) this.#say({ ...request, id: this.#nextId() });
    return this.#connected;
  }

  connected(message: Message<'connected'>): void {
    this.#connected = true;
    this.#lastError = undefined;
    this.window.connected(message.limits.unacked, message.server_time, this.now());
    for (const { request } of this.#asks.values()) this.#say(request);
    for (const subscription of this.#follows.values()) this.ask(subscription);
    this.hooks.changed();
  }

  disconnected(): void {
    this.#connected = false;
    this.window.disconnected();
    this.#control = [];
    this.#asked.clear();
    this.#later = [];
    for (const subscription of this.#follows.values()) subscription.disconnected();
  }

  /** The requests of one message, if there is anything to say. */
  take(): Request[] {
    const requests = this.#control.splice(0, MESSAGE_OPERATIONS_MAX);
    let bytes = 0;
    while (bytes < MESSAGE_BYTES && requests.length < MESSAGE_OPERATIONS_MAX) {
      const next = this.window.take(this.now());
      if (!next) break;
      const { channel, events, receipt } = next.payload;
      bytes += next.payload.bytes;
      requests.push({
        op: 'publish',
        id: next.seq,
        channel,
        seq: next.seq,
        ...(next.again !== undefined && { again: next.again }),
        ...(receipt && { receipt }),
        events,
      });
    }
    return requests;
  }

  incoming(message: ServerMessage): void {
    const id = message.id ?? 0;
    switch (message.op) {
      case 'published':
        this.window.heard(message.server_time, this.now());
        this.#settle(id, {
          epoch: message.epoch,
          first: message.first,
          last: message.last,
          duplicate: message.duplicate ?? false,
          deadLetters: message.dead_letters ?? 0,
        });
        break;
      case 'events':
        this.#follow(message, (subscription) => subscription.events(message));
        break;
      case 'gap':
        this.#follow(message, (subscription) => subscription.gap(message));
        break;
      case 'subscribed': {
        const subscription = this.#asked.get(id);
        this.#asked.delete(id);
        if (subscription?.stage !== 'asked') break;
        this.#backoff.reset();
        subscription.subscribed(message);
        break;
      }
      case 'unsubscribed': {
        // Without an id the server ended it; why, it has said before.
        const subscription = this.#follows.get(message.pattern ?? message.channel ?? '');
        if (message.id === undefined && subscription) {
          this.#forget(subscription);
          const text = `${subscription.target} was ended by the server`;
          subscription.end(this.#lastError ?? new StormError('forbidden', text));
        }
        break;
      }
      case 'presence':
        if (id !== 0) this.#answer(id, message);
        else this.#follows.get(message.channel)?.presence(message);
        break;
      case 'joined':
      case 'left':
        this.#follows.get(message.channel)?.presence(message);
        break;
      case 'signal':
        this.#follows.get(message.channel)?.signal(message);
        break;
      case 'pong':
        this.window.heard(message.server_time, this.now());
        this.#answer(id, message);
        break;
      case 'moving':
        this.hooks.moving(message.reconnect_after_ms);
        break;
      case 'error':
        this.#refused(id, message);
        break;
      default:
        this.#answer(id, message);
    }
    this.hooks.changed();
  }

  /** Does what is due by the clock. */
  tick(): void {
    const now = this.now();
    const givenUp = this.window.giveUp(now);
    const timeout = this.limits.publishTimeoutMs;
    for (const { seq, payload, sent } of givenUp) {
      const error = sent
        ? new StormError('unknown_outcome', `no answer within ${timeout} ms: stored or not`)
        : new StormError('timeout', `not sent within ${timeout} ms`);
      this.#end(seq, payload, error);
    }
    if (this.#connected && givenUp.some(({ sent }) => sent)) this.hooks.abandon();
    for (const [id, ask] of this.#asks) {
      if (ask.deadline > now) continue;
      this.#asks.delete(id);
      const text = `no answer within ${this.limits.requestTimeoutMs} ms`;
      ask.reject(new StormError('timeout', text, true));
    }
    const due = this.#later.filter(({ at }) => at <= now);
    this.#later = this.#later.filter(({ at }) => at > now);
    for (const { subscription } of due) this.ask(subscription);
  }

  /** When {@link tick} is due, or a publish may go again. */
  nextTimer(): number {
    let next = this.window.nextTimer();
    for (const { deadline } of this.#asks.values()) next = Math.min(next, deadline);
    for (const { at } of this.#later) next = Math.min(next, at);
    return next;
  }

  /** There will be no further connection. */
  end(error: StormError): void {
    this.disconnected();
    for (const { seq, payload, sent } of this.window.drain()) {
      const unknown = new StormError('unknown_outcome', `stored or not: ${error.message}`);
      this.#end(seq, payload, sent ? unknown : error);
    }
    for (const ask of this.#asks.values()) ask.reject(error);
    this.#asks.clear();
    for (const subscription of this.#follows.values()) subscription.end(error);
    this.#follows.clear();
  }

  #nextId(): number {
    return --this.#lastRequest;
  }

  #say(request: Request): void {
    this.#control.push(request);
    this.hooks.changed();
  }

  #follow(
    message: Message<'events'> | Message<'gap'>,
    hand: (subscription: Subscription<never>) => boolean,
  ): void {
    const subscription = this.#follows.get(message.pattern ?? message.channel ?? '');
    // A reader that rests is unsubscribed, and asked for again from where it stands.
    if (!subscription || hand(subscription)) return;
    const { target, isPattern } = subscription;
    const named = isPattern ? { pattern: target } : { channel: target };
    this.#say({ op: 'unsubscribe', id: this.#nextId(), ...named });
  }

  #answer(id: number, message: ServerMessage): void {
    this.#asks.get(id)?.resolve(message);
    this.#asks.delete(id);
  }

  #settle(seq: number, outcome: Published | StormError): void {
    const outbound = this.window.settled(seq);
    if (outbound) this.#end(seq, outbound, outcome);
  }

  #end(seq: number, outbound: Outbound, outcome: Published | StormError): void {
    this.#queuedBytes -= outbound.bytes;
    if (outcome instanceof StormError) outbound.reject(outcome);
    else outbound.resolve(outcome);
    this.hooks.settled(seq, outbound, outcome);
  }

  #refused(id: number, message: Message<'error'>): void {
    const { code, temporary, retry_after_ms: after, expected } = message;
    const error = new StormError(code, message.message, temporary, after, expected);
    const subscription = this.#asked.get(id);
    const ask = this.#asks.get(id);
    if (id > 0) {
      if (temporary) this.window.refused(id, code === 'out_of_order', after, this.now());
      else this.#settle(id, error);
    } else if (subscription) {
      this.#asked.delete(id);
      if (temporary) {
        if (subscription.stage === 'asked') subscription.stage = 'due';
        this.#later.push({ at: this.now() + (after ?? this.#backoff.next()), subscription });
      } else {
        this.#forget(subscription);
        subscription.end(error);
      }
    } else if (ask) {
      this.#asks.delete(id);
      ask.reject(error);
    } else {
      this.#lastError = error;
      this.hooks.problem(error);
    }
  }
}

/** About how many bytes these events are on the wire. */
function sizeOf(events: readonly NewEvent[]): number {
  let bytes = 0;
  for (const { data, type, key, id } of events) {
    const text = data instanceof Uint8Array ? undefined : JSON.stringify(data);
    if (text === undefined && !(data instanceof Uint8Array)) {
      throw new StormError('invalid_field', 'data: what JSON can say, or a Uint8Array, is due');
    }
    bytes += 64 + (text ? utf8(text) : Math.ceil((data as Uint8Array).length * 1.34));
    bytes += (type?.length ?? 0) + (key?.length ?? 0) + (id?.length ?? 0);
  }
  return bytes;
}

function utf8(text: string): number {
  let bytes = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit > 0x7f) bytes += unit > 0x7ff ? 2 : 1;
  }
  return bytes;
}
