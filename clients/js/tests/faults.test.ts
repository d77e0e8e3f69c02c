/** Killed servers, cut and muted wires, proxies that know no WebSocket: nothing is lost, nothing twice. */
import { afterEach, describe, expect, it } from 'vitest';
import type { AnyEvent } from '../src/index.js';
import { client, gather, until, upTo, whenStatus } from './kit/client.js';
import { Server } from './kit/server.js';
import { Wire } from './kit/wire.js';

const servers: Server[] = [];
const wires: Wire[] = [];

async function start(...settings: string[]): Promise<Server> {
  const server = await Server.start(...settings);
  servers.push(server);
  return server;
}

async function wireTo(server: Server): Promise<Wire> {
  const wire = await Wire.to(server.port);
  wires.push(wire);
  return wire;
}

afterEach(async () => {
  wires.splice(0).forEach((wire) => wire.close());
  await Promise.all(servers.splice(0).map((server) => server.stop()));
});

const numbers = (events: AnyEvent[]) => events.map(({ data }) => data);

describe('nothing is lost or twice', () => {
  it('while the server is killed again and again', async () => {
    const server = await start();
    const token = server.token();
    const writer = client({ url: server.url, token });
    const reader = client({ url: server.url, token });
    const feed = reader.channel('js:killed').subscribe();
    const events = gather(feed);
    await feed.ready;
    const room = writer.channel('js:killed');
    const acknowledged: Promise<unknown>[] = [];
    let kills = 0;
    for (const n of upTo(600)) {
      acknowledged.push(room.publish({ data: n }));
      if (n % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      if (n % 200 === 100) {
        await server.kill();
        kills++;
        await server.again();
      }
    }
    await Promise.all(acknowledged);
    await until('all events', () => events.length >= 600);
    expect(kills).toBe(3);
    expect(numbers(events)).toEqual(upTo(600));
    const page = await room.history({ limit: 1000 });
    expect(numbers(page.events)).toEqual(upTo(600));
    await Promise.all([writer.close(), reader.close()]);
  });

  it('while sockets are cut, and answers are lost on their way', async () => {
    const server = await start();
    const wire = await wireTo(server);
    const token = server.token();
    const writer = client({ url: wire.url, token });
    const reader = client({ url: wire.url, token });
    const feed = reader.channel('js:cut').subscribe();
    const events = gather(feed);
    await feed.ready;
    await whenStatus(writer, ({ state }) => state === 'connected');
    const room = writer.channel('js:cut');
    let duplicates = 0;
    let next = 1;
    for (let round = 0; round < 8; round++) {
      // What the server stores now it can not say any more.
      await whenStatus(writer, ({ state }) => state === 'connected');
      const before = wire.lost;
      wire.isMute = true;
      const batch = upTo(20).map(() => room.publish({ data: next++ }));
      await until('an answer is lost', () => wire.lost > before);
      wire.isMute = false;
      wire.cut();
      for (const { duplicate } of await Promise.all(batch)) duplicates += Number(duplicate);
    }
    await until('all events', () => events.length >= 160);
    expect(numbers(events)).toEqual(upTo(160));
    // Else the wire lost nothing and this test shows nothing.
    expect(duplicates).toBeGreaterThan(0);
    await Promise.all([writer.close(), reader.close()]);
  });

  it('while the server drains: it says when to move, and its clients come back', async () => {
    const server = await start('shutdown_spread=2s');
    const token = server.token();
    const alice = client({ url: server.url, token });
    const feed = alice.channel('js:drain').subscribe();
    const events = gather(feed);
    await feed.ready;
    const reasons: (string | undefined)[] = [];
    alice.on('status', ({ error }) => reasons.push(error?.message));
    const room = alice.channel('js:drain');
    let isDone = false;
    const writing = (async () => {
      const all: Promise<unknown>[] = [];
      for (let n = 1; !isDone; n++) {
        all.push(room.publish({ data: n }));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await Promise.all(all);
      return all.length;
    })();
    await server.kill('SIGTERM');
    await server.again();
    await whenStatus(alice, ({ state }) => state === 'connected');
    isDone = true;
    const count = await writing;
    await until('all events', () => events.length >= count);
    expect(numbers(events)).toEqual(upTo(count));
    expect(reasons[0]).toMatch(/mov/);
    await alice.close();
  });
});

describe('a server that falls silent', () => {
  it('is left, and found again', async () => {
    const server = await start();
    const wire = await wireTo(server);
    const alice = client({ url: wire.url, token: server.token(), heartbeatMs: 200 });
    await whenStatus(alice, ({ state }) => state === 'connected');
    wire.isMute = true;
    await whenStatus(alice, ({ state }) => state !== 'connected');
    expect(alice.status.error?.message).toMatch(/does not answer/);
    wire.isMute = false;
    await whenStatus(alice, ({ state }) => state === 'connected');
    await alice.close();
  });
});

describe.each([
  ['streams', 'sse', false],
  ['polls, where a proxy holds streams back', 'poll', true],
])('where no WebSocket passes', (what, transport, holdsStreams) => {
  it(`${what}, and a WebSocket takes over when one does`, async () => {
    const server = await start();
    const wire = await wireTo(server);
    const token = server.token();
    // The first publishes go over a WebSocket and lose their answers: HTTP must know them for repeats.
    const alice = client({ url: wire.url, token });
    const room = alice.channel('js:http');
    const feed = room.subscribe({ since: { last: 5 } });
    const events = gather(feed);
    await feed.ready;
    await room.publish({ data: 1 });
    wire.isMute = true;
    const unanswered = upTo(5).map((n) => room.publish({ data: n + 1 }));
    await until('answers are lost', () => wire.lost > 0);
    wire.refusesUpgrades = true;
    wire.holdsStreams = holdsStreams;
    wire.isMute = false;
    wire.cut();
    await whenStatus(alice, (status) => status.transport === transport, `by ${transport}`);
    const answers = await Promise.all(unanswered);
    expect(answers.filter(({ duplicate }) => duplicate).length).toBeGreaterThan(0);
    for (const n of upTo(20)) void room.publish({ data: n + 6 });
    await until('all so far', () => events.length >= 26);
    const other = await room.history({ limit: 3 });
    expect(numbers(other.events)).toEqual([24, 25, 26]);
    expect((await room.presence()).members).toEqual([]);
    await expect(alice.channel('js:http').publish({ data: 'x'.repeat(70_000) })).rejects.toMatchObject({
      code: 'too_large',
    });
    wire.refusesUpgrades = false;
    await whenStatus(alice, (status) => status.transport === 'websocket', 'by a WebSocket');
    for (const n of upTo(20)) await room.publish({ data: n + 26 });
    await until('all', () => events.length >= 46);
    expect(numbers(events)).toEqual(upTo(46));
    await alice.close();
  });
});

describe('without any WebSocket', () => {
  it('follows a pattern and many channels over HTTP', async () => {
    const server = await start();
    const alice = client({ url: server.url, token: server.token(), transports: ['http'] });
    const wide = alice.subscribePattern('many:*');
    const all = gather(wide);
    await wide.ready;
    const feeds = upTo(5).map((n) => alice.channel(`many:${n}`).subscribe());
    const gathered = feeds.map(gather);
    await Promise.all(feeds.map(({ ready }) => ready));
    for (const n of upTo(5)) await alice.channel(`many:${n}`).publish({ data: n });
    await until('one each', () => gathered.every(({ length }) => length === 1));
    await until('five of the pattern', () => all.length === 5);
    expect(gathered.map(([event]) => event!.data)).toEqual(upTo(5));
    await expect(alice.channel('nobody').history()).rejects.toMatchObject({ code: 'invalid_field' });
    await alice.close();
  });

  it.each([
    ['streams', false],
    ['polls', true],
  ])('begins with the last ones, and a slow reader of a pattern misses nothing (%s)', async (_, holds) => {
    const server = await start();
    const wire = await wireTo(server);
    wire.holdsStreams = holds;
    const token = server.token();
    const beside = client({ url: server.url, token });
    const first = beside.subscribePattern('slow:*');
    await first.ready;
    const since = first.place!;
    await beside.close();
    const alice = client({ url: wire.url, token, transports: ['http'] });
    const [a, b] = [alice.channel('slow:a'), alice.channel('slow:b')];
    for (const n of upTo(10)) await a.publish({ data: n });
    const last = gather(a.subscribe({ since: { last: 3 } }));
    await until('the last three', () => last.length >= 3);
    const wide = alice.subscribePattern('slow:*', { since, queue: 2 });
    const reading = (async () => {
      const found: number[] = [];
      for await (const item of wide) {
        if (item.kind === 'event') found.push(item.data as number);
        await new Promise((resolve) => setTimeout(resolve, 2));
        if (found.length >= 30) break;
      }
      return found;
    })();
    for (const n of upTo(20)) await (n % 2 ? a : b).publish({ data: n + 10 });
    const found = await reading;
    // Each once; between channels there is no order.
    expect(found.sort((x, y) => x - y)).toEqual(upTo(30));
    await until('all of the channel', () => last.length >= 13);
    expect(numbers(last)).toEqual([
      8,
      9,
      10,
      ...upTo(20)
        .filter((n) => n % 2)
        .map((n) => n + 10),
    ]);
    await alice.close();
  });
});
