/** What a subscription reads over HTTP, pages and streams, as the messages of the protocol. */
import { StormError, type ErrorCode } from './error.js';
import { dataIn } from './json.js';
import type { InEvent, Message, Request, ServerMessage } from './protocol.js';
import type { Position } from './types.js';

export type Subscribe = Extract<Request, { op: 'subscribe' }>;
export type Place = Position | { cursor: string } | undefined;

export interface Page {
  epoch: number;
  events: InEvent[];
  more: boolean;
  next?: string;
  gaps?: { from: string | Position; to: string | Position }[];
}

/** One of a pattern's names its channel and its epoch. */
type PatternEvent = InEvent & { channel?: string; epoch?: number };

/** Turns pages and fields of a stream into the messages of the protocol. */
export class Feed {
  place: Place;
  more = false;
  readonly isPattern: boolean;
  readonly target: string;

  constructor(
    private readonly request: Subscribe,
    private readonly say: (...messages: ServerMessage[]) => void,
  ) {
    this.isPattern = request.pattern !== undefined;
    this.target = (request.pattern ?? request.channel)!;
  }

  get #named(): { pattern: string } | { channel: string } {
    return this.isPattern ? { pattern: this.target } : { channel: this.target };
  }

  subscribed(place: Exclude<Place, undefined>): void {
    this.place = place;
    const id = this.request.id!;
    this.say({ op: 'subscribed', id, ...this.#named, ...place, recovered: true });
  }

  /** What a page says, so that a reader who stops at any of it stands where it has come to. */
  page(page: Omit<Message<'history'>, 'op' | 'channel'> & { next?: string }): void {
    const events = page.events as PatternEvent[];
    const gaps = page.gaps ?? [];
    if (this.isPattern) {
      // A cursor says nothing of what lies within the page: until its last event, it is the old one.
      const at = events.length > 0 ? textOf(this.place) : page.next;
      for (const gap of gaps) this.#gap(gap, at);
      events.forEach((event, index) => {
        const cursor = index === events.length - 1 ? page.next : undefined;
        this.#event(event.channel ?? this.target, event.epoch ?? page.epoch, event, cursor);
      });
    } else {
      const told = [
        ...gaps.map((gap) => ({ at: gap.to, tell: () => this.#gap(gap) })),
        ...events.map((event) => ({
          at: { epoch: page.epoch, offset: event.offset },
          tell: () => this.#event(this.target, page.epoch, event),
        })),
      ];
      told.sort(({ at: a }, { at: b }) => a.epoch - b.epoch || a.offset - b.offset);
      for (const { tell } of told) tell();
    }
    this.more = page.more;
    if (page.next !== undefined) this.place = this.#placeOf(page.next);
  }

  field({ name, id, data }: { name: string; id?: string; data: string }): void {
    if (name === ':') {
      if (!this.place) this.subscribed(this.#placeOf(data)!);
      return;
    }
    if (name === 'error') throw problem(JSON.parse(data));
    const place = this.#placeOf(id!)!;
    if (name === 'gap') {
      const { from, to } = JSON.parse(data) as { from: string; to: string };
      this.#gap({ from: placeOf(from), to: placeOf(to) }, id);
    } else {
      const event = dataIn(JSON.parse(data) as PatternEvent);
      const epoch = event.epoch ?? ('epoch' in place ? place.epoch : 1);
      this.#event(event.channel ?? this.target, epoch, event, id);
    }
    this.place = place;
  }

  #gap({ from, to }: { from: Position; to: Position }, at?: string): void {
    this.say({ op: 'gap', ...this.#named, from, to, ...this.#cursor(at) });
  }

  #event(channel: string, epoch: number, event: PatternEvent, at?: string): void {
    delete event.channel;
    const pattern = this.isPattern ? { pattern: this.target } : {};
    this.say({ op: 'events', channel, epoch, events: [event], ...pattern, ...this.#cursor(at) });
  }

  #cursor(at: string | undefined): { cursor?: string } {
    return this.isPattern && at !== undefined ? { cursor: at } : {};
  }

  #placeOf(text: string): Place {
    return this.isPattern ? { cursor: text } : placeOf(text);
  }
}

/** Parses Server-Sent Events as they come; a comment that names a place is told under the name `:`. */
export function sse(tell: (field: { name: string; id?: string; data: string }) => void) {
  let rest = '';
  let name = '';
  let id: string | undefined;
  let data: string[] = [];
  return (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      const at = line.indexOf(':');
      const value = line.slice(at + 1).replace(/^ /, '');
      if (line === '') {
        if (data.length > 0) tell({ name, ...(id !== undefined && { id }), data: data.join('\n') });
        [name, id, data] = ['', undefined, []];
      } else if (at === 0) {
        if (/^\S+$/.test(value)) tell({ name: ':', data: value });
      } else if (line.startsWith('data')) data.push(value);
      else if (line.startsWith('event')) name = value;
      else if (line.startsWith('id')) id = value;
    }
  };
}

export function textOf(place: Place): string | undefined {
  if (!place) return undefined;
  return 'cursor' in place ? place.cursor : `${place.epoch}:${place.offset}`;
}

export function placeOf(place: string | Position): Position {
  if (typeof place !== 'string') return place;
  const [epoch, offset] = place.split(':').map(Number);
  return { epoch: epoch!, offset: offset! };
}

interface Problem {
  code?: ErrorCode;
  message?: string;
  temporary?: boolean;
  retry_after_ms?: number;
  expected?: number;
}

export function problem(said: Problem, status = 0): StormError {
  const temporary = said.temporary ?? (status === 429 || status >= 500);
  const message = said.message ?? `the server answered ${status}`;
  return new StormError(said.code ?? 'internal', message, temporary, said.retry_after_ms, said.expected);
}

export async function refusalOf(answer: Response): Promise<StormError> {
  const said = (await answer.json().catch(() => ({}))) as Problem;
  return problem(said, answer.status);
}
