/** One subscription: where its reader stands, and what it is told. */
import { Emitter } from './emitter.js';
import { StormError } from './error.js';
import { MemberTable } from './members.js';
import type { InEvent, Message, Request } from './protocol.js';
import type {
  AnyEvent,
  EventOf,
  Gap,
  Member,
  Members,
  Position,
  Signal,
  Since,
  SubscriptionState,
} from './types.js';

/** A feed that was silent for so long after its beginning has caught up. */
const CAUGHT_UP_MS = 400;
const QUEUE_DEFAULT = 1024;

/** How to follow a channel or a pattern. */
export interface SubscribeOptions {
  /** Where to begin; without it, from now on. */
  since?: Since | undefined;
  /** `latest`: while the reader is too slow, only the newest event of each key. */
  mode?: 'all' | 'latest';
  /** Be a member of the channel, and hear who comes and goes. */
  presence?: boolean;
  /** Events that wait for an iterator; beyond them the subscription rests and loses nothing. */
  queue?: number;
}

/** What a subscription tells. */
export interface SubscriptionEvents<P> {
  /** An event, in the log's order, once. */
  event: EventOf<P>;
  /** The events of one message at once; for those who draw rather many. */
  events: readonly EventOf<P>[];
  /** Events that can not be given any more. */
  gap: Gap;
  state: SubscriptionState;
  /** Who is there now (with `presence`). */
  members: Members;
  joined: readonly Member[];
  left: readonly Member[];
  signal: Signal;
  /** It is over, and why. */
  error: StormError;
}

/** What a subscription needs of its client. */
export interface Host {
  ask(subscription: Subscription<never>): void;
  drop(subscription: Subscription<never>): void;
  pages(channel: string): Promise<Members>;
}

/** Where it stands towards the server. */
export type Stage = 'due' | 'asked' | 'live' | 'resting' | 'ended';

type Item<P> = EventOf<P> | Gap;

/**
 * The events of one channel or pattern, over all reconnects: none lost, none twice, in order. Listen
 * with {@link on}, or iterate: `for await (const item of subscription)`. Choose one before events come.
 */
export class Subscription<P = object> implements AsyncIterable<Item<P>> {
  /** Settles with the server's first answer. */
  readonly ready: Promise<void>;
  /** @internal */
  stage: Stage = 'due';
  readonly #emitter = new Emitter<SubscriptionEvents<P>>();
  readonly #table = new MemberTable();
  readonly #queueMax: number;
  #state: SubscriptionState = 'waiting';
  #place: Position | { cursor: string } | undefined;
  /** Events of a pattern whose cursor is still to come, within the same message. */
  #pending: EventOf<P>[] = [];
  #queue: Item<P>[] | undefined;
  #wake: (() => void) | undefined;
  #error: StormError | undefined;
  #caughtUp: ReturnType<typeof setTimeout> | undefined;
  #opened!: (error?: StormError) => void;

  /** @internal */
  constructor(
    /** The channel, or the pattern. */
    readonly target: string,
    readonly isPattern: boolean,
    readonly options: SubscribeOptions,
    private readonly host: Host,
  ) {
    const { since } = options;
    if (since && ('offset' in since || 'cursor' in since)) this.#place = since;
    this.#queueMax = Math.max(1, options.queue ?? QUEUE_DEFAULT);
    this.ready = new Promise((resolve, reject) => {
      this.#opened = (error) => (error ? reject(error) : resolve());
    });
    // Whoever does not wait for it hears of a refusal by `error`.
    this.ready.catch(() => {});
  }

  get state(): SubscriptionState {
    return this.#state;
  }

  /** Where the reader stands after what it was told last: another process goes on from here. */
  get place(): Position | { cursor: string } | undefined {
    return this.#place;
  }

  /** Who is in the channel, as far as it is known (with `presence`). */
  get members(): Members {
    return this.#table.snapshot;
  }

  /** Listens; the answer ends that. */
  on<K extends keyof SubscriptionEvents<P>>(
    name: K,
    handler: (value: SubscriptionEvents<P>[K]) => void,
  ): () => void {
    return this.#emitter.on(name, handler);
  }

  /** Ends the subscription. */
  unsubscribe(): void {
    if (this.stage === 'ended') return;
    this.host.drop(this as unknown as Subscription<never>);
    this.#finish(undefined);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Item<P>, void, undefined> {
    if (this.#queue) throw new TypeError(`${this.target} is iterated already`);
    const queue: Item<P>[] = (this.#queue = []);
    try {
      for (;;) {
        const item = queue.shift();
        if (item) yield item;
        else if (this.#error) throw this.#error;
        else if (this.stage === 'ended') return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
        if (this.stage === 'resting' && queue.length <= this.#queueMax / 2) {
          this.stage = 'due';
          this.#become('waiting');
          this.host.ask(this as unknown as Subscription<never>);
        }
      }
    } finally {
      this.unsubscribe();
    }
  }

  /** @internal What is asked of the server: from where the reader stands, else as the caller said. */
  request(id: number): Request {
    const since = this.#place ?? this.options.since;
    return {
      op: 'subscribe',
      id,
      ...(this.isPattern ? { pattern: this.target } : { channel: this.target }),
      ...(since && { since: 'offset' in since ? position(since) : since }),
      ...(this.options.mode === 'latest' && { mode: 'latest' }),
      ...(this.options.presence && { presence: true }),
    };
  }

  /** @internal The server agrees: events after its place follow. */
  subscribed(message: Message<'subscribed'>): void {
    const isFirst = !this.#place && !this.options.since;
    this.stage = 'live';
    this.#pending = [];
    this.#place ??=
      message.cursor === undefined
        ? { epoch: message.epoch ?? 0, offset: message.offset ?? 0 }
        : { cursor: message.cursor };
    this.#opened();
    this.#become(isFirst ? 'live' : 'recovering');
    this.#soonCaughtUp();
  }

  /** @internal Hands over what is new; false where the reader is too slow. */
  events(message: Message<'events'>): boolean {
    if (this.stage !== 'live') return true;
    const { channel, epoch, cursor } = message;
    const known = this.#place && 'offset' in this.#place ? this.#place : undefined;
    for (const event of message.events) {
      if (known && !isAfter(epoch, event.offset, known)) continue;
      this.#pending.push(toEvent(channel, epoch, event) as EventOf<P>);
    }
    if (this.isPattern && cursor === undefined) return true;
    const events = this.#pending;
    this.#pending = [];
    const last = message.events.at(-1);
    const place = cursor === undefined ? last && { epoch, offset: last.offset } : { cursor };
    if (!place || (events.length === 0 && !this.isPattern)) return true;
    this.#soonCaughtUp();
    return this.#hand(events, place);
  }

  /** @internal */
  gap(message: Message<'gap'>): boolean {
    if (this.stage !== 'live') return true;
    const { from, to, cursor } = message;
    this.#soonCaughtUp();
    return this.#hand([{ kind: 'gap', from, to }], cursor === undefined ? to : { cursor });
  }

  /** @internal */
  signal(message: Message<'signal'>): void {
    const { channel, from, data } = message;
    this.#emitter.emit('signal', { channel, from, data });
  }

  /** @internal Members came, went, or stand somewhere. */
  presence(message: Message<'presence'> | Message<'joined'> | Message<'left'>): void {
    if (message.op === 'presence') {
      this.#table.resync(message);
    } else if (this.#table.change(message)) {
      this.#emitter.emit(message.op, message.members);
      this.#emitter.emit('members', this.members);
    }
    if (this.#table.isStale) void this.#readMembers();
  }

  /** @internal The connection is gone. */
  disconnected(): void {
    this.#table.disconnected();
    this.#pending = [];
    clearTimeout(this.#caughtUp);
    if (this.stage === 'resting' || this.stage === 'ended') return;
    this.stage = 'due';
    this.#become('waiting');
  }

  /** @internal It is over. */
  end(error: StormError): void {
    if (this.stage === 'ended') return;
    // A client that was closed on purpose is no failure: iterators come to their end.
    if (error.code !== 'closed') {
      this.#error = error;
      this.#emitter.emit('error', error);
    }
    this.#finish(error);
  }

  #finish(error: StormError | undefined): void {
    this.stage = 'ended';
    clearTimeout(this.#caughtUp);
    this.#opened(error);
    this.#become('ended');
    this.#wake?.();
  }

  async #readMembers(): Promise<void> {
    this.#table.reading();
    const pages = await this.host.pages(this.target).catch(() => undefined);
    if (this.stage === 'ended') return;
    this.#table.read(pages);
    if (pages) this.#emitter.emit('members', this.members);
    if (pages && this.#table.isStale) await this.#readMembers();
  }

  /** The place moves only with what the reader has, so asking again from it loses and repeats nothing. */
  #hand(items: Item<P>[], place: Position | { cursor: string }): boolean {
    if (this.#queue) {
      if (this.#queue.length > 0 && this.#queue.length + items.length > this.#queueMax) {
        this.stage = 'resting';
        this.#become('resting');
        return false;
      }
      this.#queue.push(...items);
      this.#wake?.();
    }
    this.#place = place;
    const [first] = items;
    if (first?.kind === 'gap') {
      this.#emitter.emit('gap', first);
    } else if (first) {
      const events = items as EventOf<P>[];
      this.#emitter.emit('events', events);
      if (this.#emitter.hears('event')) events.forEach((event) => this.#emitter.emit('event', event));
    }
    return true;
  }

  /** Live is whoever was told nothing for a moment: the server does not say so. */
  #soonCaughtUp(): void {
    if (this.#state !== 'recovering') return;
    clearTimeout(this.#caughtUp);
    this.#caughtUp = setTimeout(() => {
      if (this.stage === 'live') this.#become('live');
    }, CAUGHT_UP_MS);
  }

  #become(state: SubscriptionState): void {
    if (this.#state === state || (this.#state === 'ended' && state !== 'ended')) return;
    this.#state = state;
    this.#emitter.emit('state', state);
  }
}

const position = ({ epoch, offset }: Position): Position => ({ epoch, offset });

const isAfter = (epoch: number, offset: number, known: Position) =>
  epoch > known.epoch || (epoch === known.epoch && offset > known.offset);

/** An event as programs see it. */
export function toEvent(channel: string, epoch: number, event: InEvent): AnyEvent {
  return { kind: 'event', channel, epoch, ...event };
}
