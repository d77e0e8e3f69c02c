/** What the cluster tells of itself on `system:stats` (docs/stats.md), gathered for the console. */
export const STATS = 'system:stats';
/** Seconds that the charts reach back. */
export const REACH = 120;
const GONE_MS = 5000;
/** The archive is late when something has waited for so long, */
const LATE_S = 10;
/** or when nobody has told for so long how far a partition is. */
const SILENT_MS = 10_000;

export interface Latency {
  count: number;
  p50: number;
  p99: number;
}

export interface Partition {
  partition: number;
  role: 'owner' | 'claiming' | 'follower';
  owner: string | null;
  epoch: number;
  last: number;
  lane_bytes: number;
  problem: string | null;
}

/** One process, one second. An absent figure is not zero: the process does not have it. */
export interface Figures {
  process: string;
  role: string;
  version: string;
  at: number;
  uptime_s: number;
  draining: boolean;
  rates?: Record<string, number>;
  refused?: Record<string, number>;
  latency_ms?: Record<string, Latency>;
  connections?: number;
  subscriptions?: number;
  partitions?: Partition[];
  channels?: { channel: string; events_per_second: number }[];
  backlog?: { partition: number; frames: number; lag_s: number }[];
}

/** All processes together, one second. */
export interface Point {
  at: number;
  published: number;
  delivered: number;
  persisted: number;
  acknowledgeP50: number | undefined;
  acknowledgeP99: number | undefined;
  deliverP50: number | undefined;
  deliverP99: number | undefined;
  connections: number;
  backlog: number | undefined;
}

/** How the archive keeps up with the journal. */
export interface Backlog {
  /** Frames that wait for it; not known of partitions that nobody speaks for. */
  frames: number;
  /** Seconds that the oldest of them has waited. */
  lag: number;
  /** Partitions of which something waits for too long. */
  late: number[];
  /** Partitions that no worker speaks for. */
  silent: number[];
}

interface Heard {
  figures: Figures;
  heard: number;
}

export class Cluster {
  readonly #processes = new Map<string, Heard>();
  readonly #refused = new Map<string, number>();
  /** When a gateway first spoke of a partition, or a worker last did. */
  readonly #spokenFor = new Map<number, number>();
  points: Point[] = [];
  /** As of the last second. */
  backlog: Backlog = { frames: 0, lag: 0, late: [], silent: [] };

  /** Takes what one process tells; what is none is left out. */
  hear(data: unknown, now: number): void {
    const figures = data as Figures | null;
    if (typeof figures?.process !== 'string' || typeof figures.role !== 'string') return;
    this.#processes.set(figures.process, { figures, heard: now });
    for (const { partition } of figures.partitions ?? []) {
      if (!this.#spokenFor.has(partition)) this.#spokenFor.set(partition, now);
    }
    for (const { partition } of figures.backlog ?? []) this.#spokenFor.set(partition, now);
    for (const [code, count] of Object.entries(figures.refused ?? {})) {
      this.#refused.set(code, (this.#refused.get(code) ?? 0) + count);
    }
  }

  /** Once a second: another point of the charts. */
  tick(now: number): void {
    for (const [name, { heard }] of this.#processes) if (now - heard > GONE_MS) this.#processes.delete(name);
    if (this.#processes.size === 0 && this.points.length === 0) return;
    const rate = (name: string) => this.#sum(({ rates }) => rates?.[name] ?? 0);
    this.backlog = this.#waiting(now);
    const { frames, silent } = this.backlog;
    const [acknowledge, deliver] = [this.#latency('publish'), this.#latency('deliver')];
    const point: Point = {
      at: now,
      published: rate('published'),
      delivered: rate('delivered') + rate('recovered'),
      persisted: rate('persisted'),
      acknowledgeP50: acknowledge?.p50,
      acknowledgeP99: acknowledge?.p99,
      deliverP50: deliver?.p50,
      deliverP99: deliver?.p99,
      connections: this.#sum(({ connections }) => connections ?? 0),
      backlog: silent.length > 0 ? undefined : frames,
    };
    this.points = [...this.points, point].slice(-REACH);
  }

  get processes(): Figures[] {
    const all = [...this.#processes.values()].map(({ figures }) => figures);
    return all.sort((a, b) => a.role.localeCompare(b.role) || a.process.localeCompare(b.process));
  }

  #waiting(now: number): Backlog {
    const all = this.processes.flatMap(({ backlog }) => backlog ?? []);
    const late = all.filter(({ lag_s: lag }) => lag > LATE_S).map(({ partition }) => partition);
    const silent = [...this.#spokenFor]
      .filter(([, at]) => now - at > SILENT_MS)
      .map(([partition]) => partition);
    return {
      frames: all.reduce((sum, partition) => sum + partition.frames, 0),
      lag: all.reduce((most, { lag_s: lag }) => Math.max(most, lag), 0),
      late: late.sort((a, b) => a - b),
      silent: silent.sort((a, b) => a - b),
    };
  }

  /** Each partition as its owner sees it, or else as anybody does. */
  get partitions(): Partition[] {
    const found = new Map<number, Partition>();
    for (const { partitions } of this.processes) {
      for (const partition of partitions ?? []) {
        if (!found.has(partition.partition) || partition.role === 'owner') {
          found.set(partition.partition, partition);
        }
      }
    }
    return [...found.values()].sort((a, b) => a.partition - b.partition);
  }

  /** The channels that most is published to. */
  get channels(): { channel: string; rate: number }[] {
    const rates = new Map<string, number>();
    for (const { channels } of this.processes) {
      for (const { channel, events_per_second: rate } of channels ?? []) {
        rates.set(channel, (rates.get(channel) ?? 0) + rate);
      }
    }
    const all = [...rates].map(([channel, rate]) => ({ channel, rate }));
    return all.sort((a, b) => b.rate - a.rate).slice(0, 10);
  }

  /** Refusals since the console was opened, by code. */
  get refused(): { code: string; count: number }[] {
    return [...this.#refused].map(([code, count]) => ({ code, count })).sort((a, b) => b.count - a.count);
  }

  #sum(of: (figures: Figures) => number): number {
    return this.processes.reduce((sum, figures) => sum + of(figures), 0);
  }

  /** The middle weighed by how much each measured, and the slowest of the ends. */
  #latency(name: string): Latency | undefined {
    const all = this.processes.flatMap(({ latency_ms: latency }) => latency?.[name] ?? []);
    const count = all.reduce((sum, one) => sum + one.count, 0);
    if (count === 0) return undefined;
    const p50 = all.reduce((sum, one) => sum + one.p50 * one.count, 0) / count;
    return { count, p50, p99: Math.max(...all.map(({ p99 }) => p99)) };
  }
}

/** What an operator is told while the archive does not keep up; nothing while it does. */
export function lateness({ frames, lag, late, silent }: Backlog): string {
  const which = (all: number[]) => (all.length === 1 ? `partition ${all[0]}` : `partitions ${ranges(all)}`);
  if (silent.length > 0) return `Nobody writes ${which(silent)} to the archive.`;
  if (late.length === 0) return '';
  return `The archive is ${lasting(lag)} behind in ${which(late)}: ${shortly(frames)} frames wait for it.`;
}

/** `0–3, 7`. */
function ranges(sorted: number[]): string {
  const found: [number, number][] = [];
  for (const number of sorted) {
    const last = found.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(', ');
}

/** A number as a person reads it at a glance. */
export function shortly(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(value >= 1e7 ? 0 : 1)}M`;
  if (value >= 1e4) return `${Math.round(value / 1e3)}k`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(1)}k`;
  return value >= 10 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

export function lasting(seconds: number): string {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}
