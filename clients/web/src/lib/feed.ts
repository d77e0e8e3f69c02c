/**
 * One channel as it is shown: events in the log's order, what is on its way below them, the past above.
 *
 * Events are plain objects in a plain array; what is shown is told to change once a frame, whatever comes.
 */
import {
  StormError,
  type AnyEvent,
  type Channel,
  type Client,
  type OutboxEntry,
  type Members,
  type Subscription,
} from '@stormwire/client';
import { ref, shallowRef } from 'vue';
import { explained } from '../stores/storm';

const FIRST = 100;
const PAGE = 200;
/** Events that a feed holds; the oldest go while one looks at the newest. */
const HELD_MAX = 30_000;
const TYPING_MS = 4000;

/** What somebody wrote. */
export interface Message {
  text: string;
  name?: string;
}

export interface EventItem {
  kind: 'event';
  key: string;
  event: AnyEvent;
}

/** On its way, or refused. */
export interface PendingItem {
  kind: 'pending';
  key: string;
  id: string;
  text: string;
  at: number;
  state: 'sending' | 'failed';
  problem?: string;
}

export interface GapItem {
  kind: 'gap';
  key: string;
}

export type Item = EventItem | PendingItem | GapItem;

export interface FeedHooks {
  learn(user: string, name: unknown): void;
  arrived(count: number): void;
  counted(): void;
  recovering(isSo: boolean): void;
}

export class Feed {
  /** Changes once a frame when {@link items} has changed. */
  readonly version = ref(0);
  readonly members = shallowRef<Members>();
  readonly typing = shallowRef<string[]>([]);
  readonly problem = ref('');
  readonly isLoading = ref(true);
  readonly isLoadingOlder = ref(false);
  /** Why the past can not be read now. */
  readonly olderProblem = ref('');
  readonly hasOlder = ref(true);
  #followsEnd = true;
  readonly #channel: Channel<object>;
  readonly #subscription: Subscription;
  #past: Item[] = [];
  #pending: PendingItem[] = [];
  #items: Item[] | undefined;
  #frame = 0;
  #typingUntil = new Map<string, number>();
  #typingTimer: ReturnType<typeof setInterval> | undefined;
  #said = -Infinity;

  constructor(
    readonly name: string,
    client: Client,
    private readonly hooks: FeedHooks,
  ) {
    this.#channel = client.channel(name);
    this.#subscription = this.#channel.subscribe({ since: { last: FIRST }, presence: true });
    const subscription = this.#subscription;
    subscription.ready.then(
      () => (this.isLoading.value = false),
      (error: unknown) => {
        this.isLoading.value = false;
        this.problem.value = explained(error);
      },
    );
    subscription.on('events', (events) => this.#arrived(events as readonly AnyEvent[]));
    subscription.on('gap', ({ from, to }) => {
      this.#past.push({ kind: 'gap', key: `gap ${from.epoch}:${from.offset} ${to.epoch}:${to.offset}` });
      this.#changed();
    });
    subscription.on('members', (members) => (this.members.value = members));
    subscription.on('joined', () => this.#introduce());
    subscription.on('signal', ({ from, data }) => this.#heard(from, data));
    subscription.on('state', (state) => hooks.recovering(state === 'recovering'));
    subscription.on('error', (error: StormError) => (this.problem.value = explained(error)));
    client.on('restored', (entries) => this.restore(entries.filter(({ channel }) => channel === name)));
    client.on('settled', ({ channel, events, outcome }) => {
      if (channel !== name || !(outcome instanceof StormError)) return;
      for (const { id } of events) this.#failed(id, explained(outcome));
    });
  }

  get items(): readonly Item[] {
    this.#items ??= [...this.#past, ...this.#pending];
    return this.#items;
  }

  /** Whether the newest are looked at: then the oldest may go. */
  follow(isSo: boolean): void {
    this.#followsEnd = isSo;
  }

  /** Shows what an earlier visit could not send. */
  restore(entries: readonly OutboxEntry[]): void {
    for (const { id, data } of entries.flatMap(({ events }) => events)) {
      const { text } = data as Message;
      if (!id || this.#pending.some((pending) => pending.id === id)) continue;
      this.#pending.push({ kind: 'pending', key: id, id, text, at: Date.now(), state: 'sending' });
    }
    this.hooks.counted();
    this.#changed();
  }

  close(): void {
    this.#subscription.unsubscribe();
    clearInterval(this.#typingTimer);
    cancelAnimationFrame(this.#frame);
  }

  /** Shows it at once, and sends it. */
  publish(text: string, name: string, id: string = crypto.randomUUID()): void {
    this.#said = -Infinity;
    this.#pending = this.#pending.filter((pending) => pending.id !== id);
    this.#pending.push({ kind: 'pending', key: id, id, text, at: Date.now(), state: 'sending' });
    this.#changed();
    this.#channel.publish({ type: 'message', id, data: { text, name } }).catch((error: unknown) => {
      // A closed client keeps it in its outbox.
      if (!(error instanceof StormError) || error.code !== 'closed') this.#failed(id, explained(error));
    });
    this.hooks.counted();
  }

  /** Sends again what was refused, under its id: a reader knows it for the same. */
  retry(item: PendingItem, name: string): void {
    this.publish(item.text, name, item.id);
  }

  discard(item: PendingItem): void {
    this.#pending = this.#pending.filter((pending) => pending !== item);
    this.#changed();
  }

  /** Says that one is writing, now and then. */
  type(name: string): void {
    if (performance.now() - this.#said < TYPING_MS / 2) return;
    this.#said = performance.now();
    this.#channel.signal({ typing: true, name });
  }

  /** Reads the page before the oldest event; whether there was anything. */
  async loadOlder(): Promise<boolean> {
    const oldest = this.#past.find((item) => item.kind === 'event');
    if (this.isLoadingOlder.value || !this.hasOlder.value || !oldest) return false;
    this.isLoadingOlder.value = true;
    this.olderProblem.value = '';
    try {
      const { epoch, offset } = oldest.event;
      const page = await this.#channel.history({ before: { epoch, offset }, limit: PAGE });
      this.hasOlder.value = page.more;
      this.#past.unshift(...(page.events as AnyEvent[]).map((event) => this.#item(event)));
      this.#changed(true);
      return page.events.length > 0;
    } catch (error) {
      // Whatever reads the past may be away while the present goes on.
      const isForNow = error instanceof StormError && error.temporary;
      this.olderProblem.value = isForNow
        ? 'Older messages can not be read right now. New ones arrive as always.'
        : explained(error);
      return false;
    } finally {
      this.isLoadingOlder.value = false;
    }
  }

  #item(event: AnyEvent): EventItem {
    this.hooks.learn(event.from, (event.data as Message | null)?.name);
    return { kind: 'event', key: `${event.epoch}:${event.offset}`, event };
  }

  #arrived(events: readonly AnyEvent[]): void {
    for (const event of events) {
      this.#past.push(this.#item(event));
      this.#typingUntil.delete(event.from);
      if (this.#pending.length > 0) this.#pending = this.#pending.filter(({ id }) => id !== event.id);
    }
    if (this.#followsEnd && this.#past.length > HELD_MAX) {
      this.#past = this.#past.slice(-HELD_MAX / 2);
      this.hasOlder.value = true;
    }
    this.hooks.arrived(events.length);
    this.hooks.counted();
    this.#changed();
  }

  #failed(id: string | undefined, problem: string): void {
    const at = this.#pending.findIndex((pending) => pending.id === id);
    if (at < 0) return;
    this.#pending[at] = { ...this.#pending[at]!, state: 'failed', problem };
    this.hooks.counted();
    this.#changed();
  }

  /** Tells whoever came who one is. */
  #introduce(): void {
    this.#channel.signal({ name: this.myName });
  }

  /** What one calls oneself. */
  myName = '';

  #heard(from: string, data: unknown): void {
    const { name, typing } = (data ?? {}) as { name?: unknown; typing?: unknown };
    this.hooks.learn(from, name);
    if (typing !== true) return;
    this.#typingUntil.set(from, performance.now() + TYPING_MS);
    this.#showTyping();
    this.#typingTimer ??= setInterval(() => this.#showTyping(), 1000);
  }

  #showTyping(): void {
    const now = performance.now();
    for (const [user, until] of this.#typingUntil) if (until <= now) this.#typingUntil.delete(user);
    this.typing.value = [...this.#typingUntil.keys()];
    if (this.#typingUntil.size > 0) return;
    clearInterval(this.#typingTimer);
    this.#typingTimer = undefined;
  }

  #changed(atOnce = false): void {
    this.#items = undefined;
    if (atOnce) {
      cancelAnimationFrame(this.#frame);
      this.#frame = 0;
      this.version.value++;
      return;
    }
    // A page that is not shown draws no frames.
    if (document.hidden) return void this.version.value++;
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.version.value++;
    });
  }
}
