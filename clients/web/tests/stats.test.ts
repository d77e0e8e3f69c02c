/** What the console makes of what processes tell; without a browser. */
import { describe, expect, it } from 'vitest';
import { Cluster, lateness } from '../src/lib/stats';

const gateway = {
  process: 'gateway-1',
  role: 'gateway',
  partitions: [0, 1, 2, 3].map((partition) => ({ partition })),
};
const worker = (lags: number[]) => ({
  process: 'messages-1',
  role: 'messages',
  backlog: lags.map((lag, partition) => ({ partition, frames: lag * 10, lag_s: lag })),
});

/** What is said after these seconds, in each of which those processes tell their figures. */
function said(...seconds: object[][]): string[] {
  const cluster = new Cluster();
  return seconds.map((told, at) => {
    for (const figures of told) cluster.hear(figures, at * 1000);
    cluster.tick(at * 1000);
    return lateness(cluster.backlog);
  });
}

const times = (count: number, ...told: object[]) => Array.from({ length: count }, () => told);

describe('an archive that does not keep up', () => {
  it('is said to be late, where and by how much, until it has caught up', () => {
    const inTime = [gateway, worker([0, 0.4, 0, 9])];
    const late = [gateway, worker([31, 12, 0, 75])];
    expect(said(inTime, late, inTime)).toEqual([
      '',
      'The archive is 1 min behind in partitions 0–1, 3: 1.2k frames wait for it.',
      '',
    ]);
  });

  it('is told from one that nobody writes to; a worker that was not heard for a moment is neither', () => {
    const all = [gateway, worker([0, 0, 0, 0])];
    expect(said(...times(20, gateway)).map((text) => text !== '')).toEqual(
      Array.from({ length: 20 }, (_, second) => second > 10),
    );
    expect(said(...times(15, gateway)).at(-1)).toBe('Nobody writes partitions 0–3 to the archive.');
    expect(said(...times(3, ...all), ...times(8, gateway), ...times(3, ...all))).toEqual(Array(14).fill(''));
    expect(said(...times(3, ...all), ...times(12, gateway, worker([0, 0, 0]))).at(-1)).toBe(
      'Nobody writes partition 3 to the archive.',
    );
  });

  it('leaves its backlog out of the chart while it is not known', () => {
    const cluster = new Cluster();
    for (let at = 0; at < 12_000; at += 1000) {
      cluster.hear(gateway, at);
      cluster.tick(at);
    }
    expect(cluster.points.at(0)?.backlog).toBe(0);
    expect(cluster.points.at(-1)?.backlog).toBeUndefined();
  });
});
