/** Both codecs against the golden files that the server's own codecs are tested with. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { json } from '../src/json.js';
import { protobuf } from '../src/protobuf.js';
import type { Request, ServerMessage } from '../src/protocol.js';

const golden = (name: string) =>
  readFileSync(new URL(`../../../crates/wire/golden/${name}`, import.meta.url), 'utf8')
    .trim()
    .split('\n');

const SAID = ['connect', 'publish', 'signal', 'history', 'unsubscribe', 'refresh', 'ping'];

interface Pair {
  text: string;
  bytes: Uint8Array<ArrayBuffer>;
  ops: string[];
  ids: unknown[];
}

const pairs: Pair[] = golden('protocol.jsonl').map((text, line) => {
  const parsed = JSON.parse(text) as { op: string; id?: unknown } | { op: string; id?: unknown }[];
  const messages = [parsed].flat();
  const bytes = Uint8Array.from(Buffer.from(golden('protocol.hex')[line]!, 'hex'));
  return { text, bytes, ops: messages.map(({ op }) => op), ids: messages.map(({ id }) => id) };
});

const isServers = ({ ops, text }: Pair) =>
  ops.every((op) => !SAID.includes(op) && op !== 'subscribe') &&
  !/"op":"(presence|signal)","id"|"limit"/.test(text);

/** Leaves out what a reader may not tell apart: empty lists, false, ids that are texts. */
function plain(messages: ServerMessage[]): unknown {
  return JSON.parse(
    JSON.stringify(messages, (key, value: unknown) => {
      if (key === 'id' && typeof value === 'string' && !/-/.test(value)) return undefined;
      if (value instanceof Uint8Array) return [...value];
      if (Array.isArray(value) && value.length === 0) return undefined;
      return value === false ? undefined : value;
    }),
  );
}

describe('the codecs', () => {
  const servers = pairs.filter(isServers).filter(({ ops }) => !ops.includes('unsubscribed'));

  it('read every message of a server alike', () => {
    expect(servers.length).toBeGreaterThan(15);
    for (const { text, bytes } of servers) {
      const read = plain(protobuf.decode(bytes.buffer));
      expect(read, text).toEqual(plain(json.decode(text)));
    }
  });

  it('write requests as the server expects them', () => {
    let compared = 0;
    for (const { text, bytes, ops, ids } of pairs) {
      const hasNumbers = ids.every((id) => id === undefined || typeof id === 'number');
      const isSaid = ops.every((op) => SAID.includes(op) || op === 'subscribe');
      const isAnswer = ops.includes('history') && !text.includes('"limit"');
      if (!isSaid || isAnswer || !hasNumbers || text.includes('"channels"') || /"from"/.test(text)) continue;
      const requests = [JSON.parse(text)].flat() as Request[];
      for (const request of requests) {
        const carriers = request.op === 'publish' ? request.events : [request as { data?: unknown }];
        for (const carrier of carriers as { data?: unknown; data_base64?: string }[]) {
          if (carrier.data_base64 === undefined) continue;
          carrier.data = Uint8Array.from(Buffer.from(carrier.data_base64, 'base64'));
          delete carrier.data_base64;
        }
        const { mode, receipt } = request as { mode?: string; receipt?: string };
        if (mode === 'all') delete (request as { mode?: string }).mode;
        if (receipt === 'journal') delete (request as { receipt?: string }).receipt;
      }
      const hex = Buffer.from(protobuf.encode(requests) as Uint8Array).toString('hex');
      expect(hex, text).toBe(Buffer.from(bytes).toString('hex'));
      expect(JSON.parse(json.encode(requests) as string), text).toEqual(
        JSON.parse(text.replace(/"mode":"all",?|"receipt":"journal",?/g, '').replace(/,}/g, '}')),
      );
      compared++;
    }
    expect(compared).toBeGreaterThan(8);
  });

  it('carry binary data, large and negative numbers, and skip what they do not know', () => {
    const data = Uint8Array.from({ length: 300 }, (_, i) => i % 256);
    const said = json.encode([{ op: 'signal', id: -7, channel: 'a:b', data }]) as string;
    const [back] = json.decode(said.replace('"channel"', '"from":"x","channel"'));
    expect(back).toMatchObject({ op: 'signal', id: -7, data });
    const bytes = protobuf.encode([{ op: 'ping', id: -7 }]) as Uint8Array;
    // The same bytes as an answer's, but for the operation: one that nobody knows, and a pong.
    const answer = Uint8Array.from(bytes);
    answer[answer.length - 2] = 2 * 8 + 2;
    expect(protobuf.decode(answer.buffer)).toEqual([]);
    answer[answer.length - 2] = 15 * 8 + 2;
    expect(protobuf.decode(answer.buffer)).toEqual([{ op: 'pong', id: -7, server_time: 0 }]);
    expect(() => protobuf.decode(answer.slice(0, -4).buffer)).toThrow(RangeError);
    const large = Number.MAX_SAFE_INTEGER;
    const written = protobuf.encode([
      { op: 'publish', id: large, channel: 'a:b', seq: large, events: [] },
    ]) as Uint8Array;
    expect(Buffer.from(written).toString('hex')).toContain('ffffffffffffff0f');
  });
});
