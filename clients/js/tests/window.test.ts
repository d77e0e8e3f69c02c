import { describe, expect, it } from 'vitest';
import { Backoff } from '../src/backoff.js';
import { PublishWindow } from '../src/window.js';

function opened(limit = 256, serverTime = 1000): PublishWindow<string> {
  const window = new PublishWindow<string>(() => 1);
  window.connected(limit, serverTime, 0);
  return window;
}

function push(window: PublishWindow<string>, payload: string, bytes = 10, giveUpAt = Infinity): number {
  const seq = window.number(1);
  window.push(seq, payload, bytes, giveUpAt);
  return seq;
}

function taken(window: PublishWindow<string>, now: number): [number, number | undefined][] {
  const all: [number, number | undefined][] = [];
  for (let next = window.take(now); next; next = window.take(now)) all.push([next.seq, next.again]);
  return all;
}

describe('the publish window', () => {
  it('sends in order, up to the bound between the oldest without an answer and the newest', () => {
    const window = opened(2);
    for (const payload of ['a', 'b', 'c', 'd']) push(window, payload);
    expect(taken(window, 0)).toEqual([
      [1, undefined],
      [2, undefined],
    ]);
    expect(window.settled(2)).toBe('b');
    expect(taken(window, 0)).toEqual([]);
    expect(window.settled(1)).toBe('a');
    expect(taken(window, 0)).toEqual([
      [3, undefined],
      [4, undefined],
    ]);
    expect(window.settled(9)).toBeUndefined();
  });

  it('sends again after a loss what has no answer, and says for how long it may have been sent', () => {
    const window = opened();
    push(window, 'a');
    push(window, 'b');
    expect(taken(window, 0)).toHaveLength(2);
    window.settled(1);
    window.disconnected();
    push(window, 'c');
    expect(taken(window, 50)).toEqual([]);
    window.connected(256, 3000, 100);
    expect(taken(window, 250)).toEqual([
      [2, 2150],
      [3, undefined],
    ]);
  });

  it('holds everything back after a refusal until all in flight is answered, then repeats in order', () => {
    const window = opened();
    for (const payload of ['a', 'b', 'c']) push(window, payload);
    taken(window, 0);
    window.refused(1, false, 40, 0);
    push(window, 'd');
    expect(taken(window, 100)).toEqual([]);
    window.refused(2, true, undefined, 10);
    expect(taken(window, 100)).toEqual([]);
    window.settled(3);
    expect(window.nextTimer()).toBe(40);
    expect(taken(window, 39)).toEqual([]);
    expect(taken(window, 40).map(([seq]) => seq)).toEqual([1, 2, 4]);
  });

  it('gives up what is past its deadline, and says whether it was ever on the wire', () => {
    const window = opened();
    push(window, 'a', 10, 100);
    taken(window, 0);
    window.disconnected();
    push(window, 'b', 10, 100);
    push(window, 'c', 10, 200);
    expect(window.giveUp(99)).toEqual([]);
    expect(window.giveUp(100)).toEqual([
      { seq: 1, payload: 'a', sent: true },
      { seq: 2, payload: 'b', sent: false },
    ]);
    expect(window.drain()).toEqual([{ seq: 3, payload: 'c', sent: false }]);
  });

  it('keeps to its bytes in flight', () => {
    const window = opened();
    for (const payload of ['a', 'b', 'c']) push(window, payload, 500_000);
    expect(taken(window, 0)).toHaveLength(1);
    window.settled(1);
    expect(taken(window, 0)).toHaveLength(1);
  });

  /** A server of one partition that drops repeats and stops at the first refusal, with every mishap. */
  it('stores every publish once and in order, whatever is lost or refused', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = mulberry(seed);
      const window = new PublishWindow<number>(random);
      const log: number[] = [];
      const settled: number[] = [];
      let now = 0;
      let isConnected = false;
      let due = 0;
      let answers: (() => void)[] = [];
      let pushed = 0;
      for (let step = 0; step < 4000 && settled.length < 40; step++) {
        now += Math.floor(random() * 20);
        const dice = random();
        if (!isConnected && dice < 0.2) {
          window.connected(1 + Math.floor(random() * 8), now, now);
          [isConnected, due, answers] = [true, 0, []];
        } else if (dice < 0.03) {
          window.disconnected();
          [isConnected, answers] = [false, []];
        } else if (dice < 0.3 && pushed < 40) {
          const seq = window.number(1);
          window.push(seq, seq, 10, Infinity);
          pushed++;
        } else if (dice < 0.6) {
          const next = window.take(now);
          if (!next) continue;
          const { seq } = next;
          const isStored = log.includes(seq);
          const answer = (work: () => void) => answers.push(work);
          if (isStored && next.again === undefined) throw new Error(`seed ${seed}: ${seq} not said again`);
          if (due !== 0 && seq > due) {
            answer(() => window.refused(seq, true, undefined, now));
          } else if (isStored) {
            due = 0;
            answer(() => settled.push(window.settled(seq)!));
          } else if (random() < 0.1) {
            due = seq;
            answer(() => window.refused(seq, false, random() < 0.5 ? 30 : undefined, now));
          } else {
            due = 0;
            log.push(seq);
            answer(() => settled.push(window.settled(seq)!));
          }
        } else {
          answers.splice(Math.floor(random() * answers.length), 1)[0]?.();
        }
      }
      expect(log, `seed ${seed}`).toEqual([...log].sort((a, b) => a - b));
      expect(new Set(log).size, `seed ${seed}`).toBe(log.length);
      expect(settled.length, `seed ${seed}`).toBe(40);
    }
  });
});

describe('pauses', () => {
  it('are drawn from zero to a ceiling that doubles up to its cap', () => {
    const longest = new Backoff(100, 1000, () => 1);
    expect([1, 2, 3, 4, 5].map(() => longest.next())).toEqual([100, 200, 400, 800, 1000]);
    longest.reset();
    expect(longest.next()).toBe(100);
    expect(new Backoff(100, 1000, () => 0).next()).toBe(0);
  });
});

function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
