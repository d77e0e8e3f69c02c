/** What the clients weigh and cost: measured in Chromium, written to `FIGURES.md`. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type { CDPSession, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PHONE, Stage, upTo, WIDE } from '../tests/kit';

const HERE = fileURLToPath(new URL('..', import.meta.url));
const VISITS = 5;
const RATES = [250, 500, 1000, 2000, 4000];
const RATE_SECONDS = 5;
const sections: string[] = [];
const loadBefore = loadavg()[0]!;
let stage: Stage;

beforeAll(async () => void (stage = await Stage.start('limits.events_per_second=1000000')));
afterAll(async () => {
  const version = stage.browser.version();
  const processor = `${cpus().length} cores (${cpus()[0]?.model.trim()})`;
  const load = `Load ${loadBefore.toFixed(1)} when it began, ${loadavg()[0]!.toFixed(1)} when it ended: what is measured in time is worth something on a machine that does nothing else.`;
  const machine = `Chromium ${version} without a window, ${processor}, which also ran the server. ${load}`;
  await stage.stop();
  const head = `# What the clients weigh and cost\n\nMade by \`cargo xtask clients report\`. ${machine}\n`;
  writeFileSync(`${HERE}/FIGURES.md`, [head, ...sections].join('\n'));
});

const kilobytes = (bytes: number) => `${(bytes / 1000).toFixed(1)} kB`;
const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;
const table = (head: string[], rows: (string | number)[][]) =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n') + '\n';

function weights(folder: string): { name: string; raw: number; gzipped: number }[] {
  return readdirSync(`${HERE}/${folder}`)
    .filter((name) => /\.(js|css|html)$/.test(name))
    .map((name) => {
      const bytes = readFileSync(`${HERE}/${folder}/${name}`);
      const gzipped = gzipSync(bytes, { level: 9 }).length;
      return { name: name.replace(/-[\w-]{8}\./, '.'), raw: bytes.length, gzipped };
    })
    .sort((a, b) => b.gzipped - a.gzipped);
}

it('the bundles', () => {
  const parts = [
    ['`@stormwire/client`', weights('../js/dist')],
    ['the app', weights('dist/assets')],
  ] as const;
  const rows = parts.flatMap(([of, files]) => [
    ...files.map(({ name, raw, gzipped }) => [of, name, kilobytes(raw), kilobytes(gzipped)]),
    [
      of,
      '**all**',
      ...(['raw', 'gzipped'] as const).map((by) => kilobytes(files.reduce((sum, file) => sum + file[by], 0))),
    ],
  ]);
  sections.push('## Bundles\n', table(['of', 'file', 'bytes', 'gzipped'], rows));
});

/** Gathers what is told of a page's first moments, from before its first script. */
async function watchPaint(page: Page): Promise<void> {
  await page.addInitScript(() => {
    const scope = window as unknown as { seen: { largest: number; blocked: number } };
    scope.seen = { largest: 0, blocked: 0 };
    const look = (type: string, see: (entry: PerformanceEntry) => void) =>
      new PerformanceObserver((list) => list.getEntries().forEach(see)).observe({ type, buffered: true });
    look('largest-contentful-paint', ({ startTime }) => (scope.seen.largest = startTime));
    look('longtask', ({ duration }) => (scope.seen.blocked += Math.max(0, duration - 50)));
  });
}

const paint = (page: Page) =>
  page.evaluate(() => {
    const { largest, blocked } = (window as unknown as { seen: { largest: number; blocked: number } }).seen;
    const loaded = [
      ...performance.getEntriesByType('navigation'),
      ...performance.getEntriesByType('resource'),
    ] as PerformanceResourceTiming[];
    const first = performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN;
    const bytes = loaded.reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0);
    return { first, largest, blocked, bytes, requests: loaded.length };
  });

/** A middling phone on a slow mobile network, as Lighthouse has them. */
async function slow(devtools: CDPSession): Promise<void> {
  await devtools.send('Emulation.setCPUThrottlingRate', { rate: 4 });
  await devtools.send('Network.enable');
  const bytes = (1.6 * 1024 * 1024) / 8;
  const network = { offline: false, latency: 150, downloadThroughput: bytes, uploadThroughput: bytes / 2 };
  await devtools.send('Network.emulateNetworkConditions', network);
}

it('the first visit', async () => {
  const rows: (string | number)[][] = [];
  for (const [what, viewport, isSlow] of [
    ['desktop', WIDE, false],
    ['phone: processor slowed 4 times, 1.6 Mbit/s, 150 ms', PHONE, true],
  ] as const) {
    const seen: Awaited<ReturnType<typeof paint>>[] = [];
    for (let visit = 0; visit < VISITS; visit++) {
      const { page, context } = await stage.arrive('visitor', { viewport });
      await watchPaint(page);
      if (isSlow) await slow(await context.newCDPSession(page));
      await page.goto('/sign-in', { waitUntil: 'networkidle' });
      seen.push(await paint(page));
      await stage.clear();
    }
    const middle = (of: (one: (typeof seen)[number]) => number) => Math.round(median(seen.map(of)));
    rows.push([
      what,
      `${middle(({ first }) => first)} ms`,
      `${middle(({ largest }) => largest)} ms`,
      `${middle(({ blocked }) => blocked)} ms`,
      kilobytes(middle(({ bytes }) => bytes)),
      middle(({ requests }) => requests),
    ]);
  }
  const head = ['first visit of /sign-in', 'first paint', 'largest paint', 'blocked', 'loaded', 'requests'];
  sections.push(
    `## First paint and blocking time\n\nThe middle of ${VISITS} visits; blocked is what tasks took beyond 50 ms each.\n`,
    table(head, rows),
  );
});

it('events a second without a dropped frame', async () => {
  const erin = await stage.arrive('erin');
  await erin.signUp('/c/room:busy');
  const devtools = await erin.context.newCDPSession(erin.page);
  await devtools.send('Performance.enable', { timeDomain: 'threadTicks' });
  const client = await stage.writer();
  const room = client.channel('room:busy');
  const busy = async () => {
    const { metrics } = await devtools.send('Performance.getMetrics');
    return metrics.find(({ name }) => name === 'TaskDuration')?.value ?? 0;
  };
  const rows: (string | number)[][] = [];
  let written = 0;
  for (const rate of [0, ...RATES]) {
    const before = await busy();
    const pauses = erin.page.evaluate(async (ms) => {
      const found: number[] = [];
      const frame = () => new Promise<number>((resolve) => requestAnimationFrame(resolve));
      let last = await frame();
      for (const end = last + ms; last < end;) {
        const now = await frame();
        found.push(now - last);
        last = now;
      }
      return found;
    }, RATE_SECONDS * 1000);
    const began = performance.now();
    for (let sent = 0; sent < rate * RATE_SECONDS;) {
      const due = Math.min(rate * RATE_SECONDS, Math.floor(((performance.now() - began) / 1000) * rate));
      const events = upTo(Math.min(500, due - sent)).map((n) => ({
        type: 'message',
        data: { text: `event ${written + n}` },
      }));
      if (events.length > 0) void room.publish(events);
      sent += events.length;
      written += events.length;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const found = await pauses;
    const share = Math.round((((await busy()) - before) / RATE_SECONDS) * 100);
    const interval = median(found);
    const dropped = found.reduce((sum, pause) => sum + Math.max(0, Math.round(pause / interval) - 1), 0);
    const sorted = [...found].sort((a, b) => a - b);
    const at = (part: number) => `${sorted[Math.floor((sorted.length - 1) * part)]!.toFixed(1)} ms`;
    rows.push([rate, found.length, dropped, at(0.5), at(0.99), `${share} %`]);
    if (written > 0) await erin.sees(`event ${written}`);
  }
  await client.close();
  expect(await erin.page.locator('article').count()).toBeLessThan(120);
  const head = ['events/s', 'frames in 5 s', 'dropped', 'p50 between frames', 'p99', 'main thread'];
  sections.push(
    '## Events a second\n\nOne channel that is looked at; every event is kept, the rows in view are drawn. A frame is dropped where the next one came a frame too late.\n',
    table(head, rows),
  );
  await stage.clear();
});
