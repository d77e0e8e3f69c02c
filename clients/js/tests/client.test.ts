/** What a program sees, against the real server. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StormError, type AnyEvent, type Codec, type Gap } from '../src/index.js';
import { protobuf } from '../src/protobuf.js';
import { client, gather, until, upTo, whenStatus } from './kit/client.js';
import { Server } from './kit/server.js';
import { Wire } from './kit/wire.js';

let server: Server;
let token: string;

beforeAll(async () => {
  server = await Server.start();
  token = server.token();
});
afterAll(() => server.stop());

describe.each<[string, { codec?: Codec }]>([
  ['json', {}],
  ['protobuf', { codec: protobuf }],
])('with %s', (codec, options) => {
  it('publishes, follows, reads back, and carries every kind of data', async () => {
    const alice = client({ url: server.url, token, ...options });
    const room = alice.channel(`js:kinds-${codec}`);
    const feed = room.subscribe();
    const events = gather(feed);
    await feed.ready;
    const bytes = Uint8Array.from([0, 255, 10]);
    const published = await room.publish([
      { type: 'text', key: 'k', id: 'mine', data: { text: 'Grüße ⚡' } },
      { data: null },
      { type: 'bytes', data: bytes },
    ]);
    expect(published).toMatchObject({ duplicate: false, deadLetters: 0 });
    await until('three events', () => events.length === 3);
    expect(events[0]).toMatchObject({
      kind: 'event',
      channel: room.name,
      offset: published.first,
      type: 'text',
      key: 'k',
      id: 'mine',
      from: 'alice',
      data: { text: 'Grüße ⚡' },
    });
    expect(events.map(({ data }) => data)).toEqual([{ text: 'Grüße ⚡' }, null, bytes]);
    const page = await room.history({ limit: 2 });
    expect(page.events).toEqual(events.slice(1));
    expect(page.more).toBe(true);
    const { epoch, offset } = page.events[0]!;
    const before = await room.history({ before: { epoch, offset } });
    expect(before.events).toEqual(events.slice(0, 1));
    expect((await room.publish({ data: 1 }, { receipt: 'archive' })).deadLetters).toBe(0);
    await alice.close();
  });

  it('tells who is there, and what others say', async () => {
    const alice = client({ url: server.url, token, ...options });
    const bob = client({ url: server.url, token: server.token({ user: 'bob' }), ...options });
    const name = `js:presence-${codec}`;
    const feed = alice.channel(name).subscribe({ presence: true });
    const joined: string[] = [];
    const left: string[] = [];
    const signals: unknown[] = [];
    feed.on('joined', (members) => joined.push(...members.map(({ user }) => user)));
    feed.on('left', (members) => left.push(...members.map(({ user }) => user)));
    feed.on('signal', (signal) => signals.push(signal));
    await until('alice is there', () => feed.members.members.some(({ user }) => user === 'alice'));
    const other = bob.channel(name).subscribe({ presence: true });
    await until('bob is seen', () => joined.includes('bob'));
    expect(feed.members).toMatchObject({ users: 2, sessions: 2 });
    await until('bob sees both', () => other.members.members.length === 2);
    expect((await bob.channel(name).presence()).members.map(({ user }) => user)).toEqual(['alice', 'bob']);
    expect(bob.channel(name).signal({ typing: true })).toBe(true);
    await until('the signal', () => signals.length === 1);
    expect(signals).toEqual([{ channel: name, from: 'bob', data: { typing: true } }]);
    other.unsubscribe();
    await until('bob has left', () => left.includes('bob'));
    await Promise.all([alice.close(), bob.close()]);
  });
});

describe('a subscription', () => {
  it('begins with the last events, goes on where another stopped, and follows patterns', async () => {
    const alice = client({ url: server.url, token });
    const room = alice.channel('since:one');
    await room.publish(upTo(10).map((data) => ({ data })));
    const last = room.subscribe({ since: { last: 3 } });
    const seen = gather(last);
    await until('the last three', () => seen.length === 3);
    expect(seen.map(({ data }) => data)).toEqual([8, 9, 10]);
    await until('caught up', () => last.state === 'live');
    const place = last.place;
    last.unsubscribe();
    expect(last.state).toBe('ended');
    await room.publish({ data: 11 });
    const on = room.subscribe({ since: place });
    const wide = alice.subscribePattern('since:*');
    const [next, all] = [gather(on), gather(wide)];
    await until('what came meanwhile', () => next.length === 1);
    expect(next[0]!.data).toBe(11);
    await wide.ready;
    await alice.channel('since:two').publish({ data: 'wide' });
    await until('the other channel', () => all.some(({ channel }) => channel === 'since:two'));
    expect(wide.place).toHaveProperty('cursor');
    expect(() => room.subscribe()).toThrow(expect.objectContaining({ code: 'already_subscribed' }));
    await alice.close();
    expect(on.state).toBe('ended');
  });

  it('tells a gap with both ends, and goes on behind it', async () => {
    const alice = client({ url: server.url, token });
    const room = alice.channel('js:gap');
    const { epoch, last } = await room.publish({ data: 1 });
    const above = { epoch, offset: last + 4096 * 1000 };
    const items: (AnyEvent | Gap)[] = [];
    const feed = room.subscribe({ since: above });
    void (async () => {
      for await (const item of feed) items.push(item);
    })();
    await until('the gap', () => items.length === 1);
    expect(items[0]).toMatchObject({ kind: 'gap', from: above });
    await room.publish({ data: 2 });
    await until('the event behind it', () => items.length === 2);
    expect(items[1]).toMatchObject({ kind: 'event', data: 2 });
    await alice.close();
  });

  it('rests while its iterator is slow, and loses nothing', async () => {
    const alice = client({ url: server.url, token });
    const room = alice.channel('js:slow');
    const feed = room.subscribe({ queue: 16 });
    const states = new Set<string>();
    feed.on('state', (state) => states.add(state));
    await feed.ready;
    const iterator = feed[Symbol.asyncIterator]();
    const first = iterator.next();
    for (let i = 0; i < 40; i++) await room.publish(upTo(5).map((n) => ({ data: i * 5 + n })));
    await until('it rests', () => feed.state === 'resting');
    const numbers = [((await first).value as AnyEvent).data];
    while (numbers.length < 200) numbers.push(((await iterator.next()).value as AnyEvent).data);
    expect(numbers).toEqual(upTo(200));
    expect(states).toContain('resting');
    await iterator.return();
    expect(feed.state).toBe('ended');
    await alice.close();
  });

  it('ends with the reason where a right is missing', async () => {
    const alice = client({ url: server.url, token: server.token({ subscribe: 'js:mine' }) });
    const errors: StormError[] = [];
    const feed = alice.channel('js:secret').subscribe();
    feed.on('error', (error) => errors.push(error));
    await expect(feed.ready).rejects.toMatchObject({ code: 'forbidden', temporary: false });
    expect(errors).toHaveLength(1);
    await expect(alice.channel('js:secret').history()).rejects.toBeInstanceOf(StormError);
    await alice.close();
  });
});

describe('a client', () => {
  it('refuses what the protocol does not carry before it is sent', async () => {
    const alice = client({ url: server.url, token });
    const room = alice.channel('js:refused');
    const large = { data: 'x'.repeat(600_000) };
    await expect(room.publish([])).rejects.toMatchObject({ code: 'invalid_field' });
    await expect(room.publish({ data: undefined })).rejects.toMatchObject({ code: 'invalid_field' });
    await expect(room.publish(large)).rejects.toMatchObject({ code: 'too_large' });
    await expect(room.publish({ data: 'x'.repeat(70_000) })).rejects.toMatchObject({ code: 'too_large' });
    expect(await room.publish({ data: 'and goes on' })).toMatchObject({ duplicate: false });
    await alice.close();
    await expect(room.publish({ data: 1 })).rejects.toMatchObject({ code: 'closed' });
  });

  it('ends with what the server says of a token that it does not take', async () => {
    const fixed = client({ url: server.url, token: 'nonsense' });
    await whenStatus(fixed, ({ state }) => state === 'closed');
    expect(fixed.status.error).toMatchObject({ code: 'unauthenticated' });
    const asked: (string | undefined)[] = [];
    const tokens = ['stale', token];
    const provided = client({
      url: server.url,
      token: ({ refused }) => {
        asked.push(refused);
        return tokens.shift()!;
      },
    });
    await whenStatus(provided, ({ state }) => state === 'connected');
    expect(asked).toEqual([undefined, 'stale']);
    await provided.close();
  });

  it('refreshes its token before it runs out, and the connection outlives the first one', async () => {
    let asked = 0;
    const wire = await Wire.to(server.port);
    const alice = client({
      url: wire.url,
      token: () => (asked++, server.token({ ttl: '4s' })),
    });
    await whenStatus(alice, ({ state }) => state === 'connected');
    const began = performance.now();
    const lost: string[] = [];
    alice.on('status', ({ state, error }) => lost.push(`${state} ${error?.message}`));
    await until('two refreshes', () => asked >= 3);
    await until('past the first token', () => performance.now() - began > 6000);
    await alice.channel('js:refresh').publish({ data: 1 });
    expect(lost).toEqual([]);
    expect(wire.connections).toBe(1);
    await alice.close();
    wire.close();
  });

  it('says what a missing server means, and waits with a bounded queue', async () => {
    const alice = client({ url: 'http://127.0.0.1:9', token, queuePublishes: 3, publishTimeoutMs: 700 });
    const room = alice.channel('js:nobody');
    const waiting = upTo(3).map((data) => room.publish({ data }));
    await expect(room.publish({ data: 4 })).rejects.toMatchObject({ code: 'queue_full', temporary: true });
    expect(alice.pending).toBe(3);
    for (const publish of waiting) await expect(publish).rejects.toMatchObject({ code: 'timeout' });
    expect(alice.status).toMatchObject({ state: 'connecting', error: { temporary: true } });
    await alice.close();
  });
});
