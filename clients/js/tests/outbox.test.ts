/** Publishes that outlive the process, in IndexedDB. */
import 'fake-indexeddb/auto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StormError, type AnyEvent, type Client } from '../src/index.js';
import { indexedDbOutbox } from '../src/outbox.js';
import { client, until, upTo, whenStatus } from './kit/client.js';
import { Server } from './kit/server.js';
import { Wire } from './kit/wire.js';

let server: Server;
let token: string;

beforeAll(async () => {
  server = await Server.start();
  token = server.token();
});
afterAll(() => server.stop());

async function stored(channel: string): Promise<unknown[]> {
  const reader = client({ url: server.url, token });
  const { events } = await reader.channel(channel).history({ limit: 1000 });
  await reader.close();
  return events.map((event: AnyEvent) => event.data);
}

describe('an outbox', () => {
  it('sends what was written offline, after the process has ended', async () => {
    const outbox = () => indexedDbOutbox('offline');
    const first = client({ url: 'http://127.0.0.1:9', token, outbox: outbox() });
    for (const data of upTo(5))
      first
        .channel('js:offline')
        .publish({ data })
        .catch(() => {});
    await until('all are kept', () => first.pending === 5);
    await first.close();
    const second = client({ url: server.url, token, outbox: outbox() });
    const settled: number[] = [];
    second.on('settled', ({ seq }) => settled.push(seq));
    await until('all are sent', () => settled.length === 5);
    await second.channel('js:offline').publish({ data: 6 });
    await second.close();
    expect(second.producer).toBe(first.producer);
    expect(await stored('js:offline')).toEqual(upTo(6));
  });

  it('stores once what was sent before the end, answered or not', async () => {
    const wire = await Wire.to(server.port);
    const refused: string[] = [];
    const note = (alice: Client) =>
      alice.on('settled', ({ outcome }) => {
        if (outcome instanceof StormError && outcome.code !== 'unknown_outcome') refused.push(outcome.code);
      });
    for (let round = 0; round < 4; round++) {
      const alice = client({ url: wire.url, token, outbox: indexedDbOutbox('once') });
      note(alice);
      await whenStatus(alice, ({ state }) => state === 'connected');
      await until('what was left is settled', () => alice.pending === 0);
      // Stored, but the process ends before it hears so.
      wire.isMute = true;
      const room = alice.channel('js:once');
      for (const n of upTo(10)) room.publish({ data: round * 10 + n }).catch(() => {});
      await until('ten are on the way', () => alice.pending === 10);
      await new Promise((resolve) => setTimeout(resolve, 60));
      await alice.close();
      wire.isMute = false;
    }
    const last = client({ url: wire.url, token, outbox: indexedDbOutbox('once') });
    note(last);
    await whenStatus(last, ({ state }) => state === 'connected');
    await until('all are settled', () => last.pending === 0);
    await last.close();
    wire.close();
    expect(await stored('js:once')).toEqual(upTo(40));
    // A repeat that does not say that it is one is refused as a conflict.
    expect(refused).toEqual([]);
  });
});
