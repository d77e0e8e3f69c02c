/** A channel as a program uses it. */
import type { Client } from './client.js';
import type { Message, Request } from './protocol.js';
import { Subscription, toEvent, type SubscribeOptions } from './subscription.js';
import type { EventOf, HistoryPage, Members, NewEvent, Position, Published } from './types.js';

/** How to publish. */
export interface PublishOptions {
  /** What the answer means: in the journal (default), or committed in the long store. */
  receipt?: 'journal' | 'archive';
}

/** Which page of the past: the newest without a position. */
export interface HistoryOptions {
  before?: Position;
  after?: Position;
  /** 1 to 1000; 100 by default. */
  limit?: number;
}

/** A named, ordered log of events: `namespace:name`. Costs nothing until it is used. */
export class Channel<P = object> {
  /** @internal */
  constructor(
    private readonly client: Client,
    readonly name: string,
  ) {}

  /** Follows it. One subscription of a channel at a time. */
  subscribe(options: SubscribeOptions = {}): Subscription<P> {
    return this.client.follow<P>(this.name, false, options);
  }

  /**
   * Publishes one event or several, stored together and in order. Settles when they are durable; what
   * was lost on its way is sent again and stored once. Without a connection it waits in the queue.
   *
   * @throws {@link StormError}: `queue_full` at the queue's bound, or what the server refuses for good.
   */
  publish(events: NewEvent<P> | readonly NewEvent<P>[], options: PublishOptions = {}): Promise<Published> {
    const list = (Array.isArray(events) ? events : [events]) as NewEvent[];
    return this.client.send(this.name, list, options.receipt === 'archive');
  }

  /** A page of the past, ascending. */
  async history(options: HistoryOptions = {}): Promise<HistoryPage<P>> {
    const { before, after, limit = 100 } = options;
    const request: Request = {
      op: 'history',
      channel: this.name,
      limit,
      ...(before && { before: { epoch: before.epoch, offset: before.offset } }),
      ...(after && { after: { epoch: after.epoch, offset: after.offset } }),
    };
    const page = (await this.client.question(request)) as Message<'history'>;
    return {
      events: page.events.map((event) => toEvent(this.name, page.epoch, event) as EventOf<P>),
      more: page.more,
      gaps: (page.gaps ?? []).map(({ from, to }) => ({ kind: 'gap' as const, from, to })),
    };
  }

  /** Who is there now. */
  presence(): Promise<Members> {
    return this.client.members(this.name);
  }

  /**
   * Tells all who are subscribed now; not stored, at most once. Lost without a connection, which the
   * answer says.
   */
  signal(data: unknown): boolean {
    return this.client.say({ op: 'signal', channel: this.name, data });
  }
}
