/** The app in a real browser, against the real server. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect, type Client, type WebSocketConstructor } from '../../js/src/index.js';
import { keep, launch, Person, PHONE, Server, WIDE } from './kit';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let browser: Browser;
let server: Server;
const people: Person[] = [];

beforeAll(async () => {
  [browser, server] = await Promise.all([launch(), Server.start('limits.events_per_second=100000')]);
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
});
afterEach(async () => {
  for (const person of people.splice(0)) {
    expect(person.complaints).toEqual([]);
    await person.context.close();
  }
});

async function arrive(name: string, options = {}): Promise<Person> {
  const person = await Person.arrive(browser, server.url, name, options);
  people.push(person);
  return person;
}

async function writer(): Promise<Client> {
  const { WebSocket } = (await import('ws')) as unknown as { WebSocket: WebSocketConstructor };
  return connect({ url: server.url, token: server.token({ user: 'writer' }), WebSocket });
}

/** Serious findings of axe, none of which is taken. */
async function findings(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: { run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string }[] }[] }> };
    };
    const { violations } = await axe.run();
    const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
    return serious.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`);
  });
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

describe('two people', () => {
  it('talk, see each other, and miss nothing and see nothing twice when the server is killed', async () => {
    const alice = await arrive('alice');
    const bob = await arrive('bob', { viewport: PHONE, colorScheme: 'dark' });
    await alice.signUp('/c/room:lobby');
    await bob.signUp('/c/room:lobby');
    await alice.say('Morning! Did the replay finish?');
    await bob.sees('Did the replay finish?');
    await bob.say('Yes: 3,614 events, none missing, none twice.');
    await alice.sees('none twice');
    await alice.page.getByTestId('people').filter({ hasText: '2' }).waitFor();
    await bob.page.getByRole('textbox', { name: /^Message / }).pressSequentially('…');
    await alice.page.getByText('bob is typing').waitFor();
    await alice.page.getByRole('button', { name: '2 people here' }).click();
    await alice.page.getByRole('region', { name: 'People here' }).getByText('bob').waitFor();
    await keep(alice.page, 'room-wide-light');
    await keep(bob.page, 'room-phone-dark');

    await server.kill();
    await alice.says(/^(Rec|C)onnecting|^Reconnecting/);
    const lines = upTo(6).map((n) => `Message ${n} of six`);
    for (const [i, line] of lines.entries()) await (i % 2 ? bob : alice).say(line);
    await alice.page.getByText('waiting for a connection').first().waitFor();
    await keep(alice.page, 'room-reconnecting-wide');
    await bob.page.getByTestId('banner').waitFor();
    await keep(bob.page, 'room-reconnecting-phone');
    await server.again();
    await Promise.all([alice.connected(), bob.connected()]);
    for (const line of lines) await Promise.all([alice.sees(line), bob.sees(line)]);
    const [hers, his] = await Promise.all([alice.texts(), bob.texts()]);
    expect(hers.filter((text) => text.startsWith('Message')).sort()).toEqual(lines);
    expect(his).toEqual(hers);
  });
});

describe('without a network', () => {
  it('keeps what is written, over a reload too, and sends it once when there is one again', async () => {
    const carol = await arrive('carol');
    await carol.signUp('/c/room:offline');
    await carol.say('Before');
    await carol.sees('Before');
    await carol.page.evaluate(() => navigator.serviceWorker.ready);
    await carol.context.setOffline(true);
    await carol.says(/^Offline/);
    await carol.say('Written in a tunnel');
    await carol.page.getByText('waiting for a connection').waitFor();
    await carol.says(/1 unsent/);
    await keep(carol.page, 'room-offline-wide');
    await carol.page.reload();
    await carol.says(/^Offline/);
    await carol.page.getByText('Written in a tunnel').waitFor();
    await carol.context.setOffline(false);
    await carol.connected();
    await carol.sees('Written in a tunnel');
    await carol.page.reload();
    await carol.sees('Written in a tunnel');
    expect(await carol.texts()).toEqual(['Before', 'Written in a tunnel']);
  });
});

describe('a long history', () => {
  it('is read to its beginning by scrolling up, and the view stays where it is', async () => {
    const client = await writer();
    const room = client.channel('room:history');
    for (let from = 0; from < 10_000; from += 500) {
      await room.publish(upTo(500).map((n) => ({ type: 'message', data: { text: `event ${from + n}` } })));
    }
    await client.close();
    const dave = await arrive('dave');
    await dave.signUp('/c/room:history');
    await dave.sees('event 10000');
    const feed = dave.page.getByTestId('feed');
    // A jump is a row that leaves its place though nobody scrolled: looked for at every page that comes.
    const jumps: string[] = await feed.evaluate(async (box) => {
      const found: string[] = [];
      const place = () => {
        const row = [...box.querySelectorAll('[data-key]')].find(
          (candidate) => candidate.getBoundingClientRect().top >= box.getBoundingClientRect().top,
        ) as HTMLElement | undefined;
        return row && { key: row.dataset['key'], top: row.getBoundingClientRect().top };
      };
      const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
      for (let i = 0; i < 600 && !box.textContent.includes('This is the beginning.'); i++) {
        box.scrollTop = Math.max(0, box.scrollTop - 2500);
        await frame();
        await frame();
        const before = place();
        await frame();
        await frame();
        await frame();
        const row = before && (box.querySelector(`[data-key="${before.key}"]`) as HTMLElement | null);
        const moved = row ? Math.abs(row.getBoundingClientRect().top - before.top) : 0;
        if (moved > 2) found.push(`${before!.key} by ${moved}`);
      }
      return found;
    });
    await feed.evaluate((box) => (box.scrollTop = 0));
    await dave.sees('event 1');
    expect(jumps).toEqual([]);
    const drawn = await dave.page.locator('article').count();
    expect(drawn).toBeLessThan(120);
    await keep(dave.page, 'history-beginning-wide');
    await dave.page.getByRole('button', { name: /Newest|new$/ }).click();
    await dave.sees('event 10000');
  });
});

describe('1,000 events a second', () => {
  it('are drawn to the last one, and what that costs is kept', async () => {
    const erin = await arrive('erin');
    await erin.signUp('/c/room:busy');
    const client = await writer();
    const room = client.channel('room:busy');
    // In the main thread's own time, whatever else the machine does.
    const devtools = await erin.context.newCDPSession(erin.page);
    await devtools.send('Performance.enable', { timeDomain: 'threadTicks' });
    const busy = async () => {
      const { metrics } = await devtools.send('Performance.getMetrics');
      return metrics.find(({ name }) => name === 'TaskDuration')?.value ?? 0;
    };
    const before = await busy();
    const measured = erin.page.evaluate(async () => {
      const pauses: number[] = [];
      let last = performance.now();
      const until = last + 5000;
      while (last < until) {
        await new Promise((resolve) => requestAnimationFrame(resolve));
        const now = performance.now();
        pauses.push(now - last);
        last = now;
      }
      pauses.sort((a, b) => a - b);
      const at = (share: number) => Math.round(pauses[Math.floor(pauses.length * share)]! * 10) / 10;
      return { frames: pauses.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), longest: at(0.9999) };
    });
    for (let from = 0; from < 5000; from += 50) {
      void room.publish(upTo(50).map((n) => ({ type: 'message', data: { text: `event ${from + n}` } })));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const pauses = JSON.stringify(await measured);
    const share = Math.round(((await busy()) - before) * 20);
    process.stdout.write(`1,000 events/s: ${share} % of a core, pauses between frames in ms: ${pauses}\n`);
    await erin.sees('event 5000');
    expect(await erin.page.locator('article').count()).toBeLessThan(120);
    await client.close();
  });
});

describe('every page', () => {
  it('has no serious finding of axe, at two widths, light and dark', async () => {
    const looks = [
      ['wide-light', { viewport: WIDE, colorScheme: 'light' }],
      ['phone-dark', { viewport: PHONE, colorScheme: 'dark' }],
    ] as const;
    for (const [look, options] of looks) {
      const frank = await arrive(`frank-${look}`, options);
      for (const page of ['sign-in', 'sign-up']) {
        await frank.page.goto(`/${page}`);
        await frank.page.getByRole('heading', { level: 1 }).waitFor();
        expect(await findings(frank.page), `${page} ${look}`).toEqual([]);
        await keep(frank.page, `${page}-${look}`);
      }
      await frank.signUp('/account');
      await frank.page.getByText('this one').waitFor();
      expect(await findings(frank.page), `account ${look}`).toEqual([]);
      await keep(frank.page, `account-${look}`);
      await frank.page.goto('/c/room:lobby');
      await frank.connected();
      await frank.page.getByRole('article').first().waitFor();
      expect(await findings(frank.page), `room ${look}`).toEqual([]);
      await keep(frank.page, `lobby-${look}`);
      if (look === 'phone-dark') {
        await frank.page.getByRole('button', { name: 'Open navigation' }).click();
        await frank.page.getByRole('link', { name: 'lobby' }).waitFor();
        expect(await findings(frank.page), `drawer ${look}`).toEqual([]);
        await keep(frank.page, `drawer-${look}`);
        const isWide = await frank.page.evaluate(() => document.body.scrollWidth > innerWidth);
        expect(isWide, 'scrolls sideways').toBe(false);
      }
    }
  });

  it('is used with the keyboard alone', async () => {
    const grace = await arrive('grace');
    await grace.page.goto('/sign-up');
    const { keyboard } = grace.page;
    await grace.page.getByLabel('User name').focus();
    await keyboard.type('grace');
    await keyboard.press('Tab');
    await keyboard.type('correct horse battery');
    await keyboard.press('Enter');
    await grace.connected();
    await grace.page.getByLabel('Find or open a channel').focus();
    await keyboard.type('keyboard');
    await keyboard.press('Enter');
    await grace.page.getByRole('heading', { name: '#keyboard' }).waitFor();
    await grace.page.getByRole('textbox', { name: /^Message / }).focus();
    await keyboard.type('No mouse needed');
    await keyboard.press('Enter');
    await grace.sees('No mouse needed');
  });
});

describe('the first visit', () => {
  it('is a small one, and its figures are kept', async () => {
    const judy = await arrive('judy');
    await judy.page.addInitScript(() => {
      const scope = window as unknown as { blocked: number };
      scope.blocked = 0;
      new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) scope.blocked += Math.max(0, duration - 50);
      }).observe({ type: 'longtask', buffered: true });
    });
    await judy.page.goto('/sign-in', { waitUntil: 'networkidle' });
    const figures = await judy.page.evaluate(() => {
      const loaded = [
        ...performance.getEntriesByType('navigation'),
        ...performance.getEntriesByType('resource'),
      ] as PerformanceResourceTiming[];
      const paint = performance.getEntriesByName('first-contentful-paint')[0];
      return {
        firstPaintMs: Math.round(paint?.startTime ?? -1),
        blockedMs: Math.round((window as unknown as { blocked: number }).blocked),
        bytes: loaded.reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0),
        requests: loaded.length,
      };
    });
    process.stdout.write(`the first visit: ${JSON.stringify(figures)}\n`);
    expect(figures.firstPaintMs).toBeGreaterThan(0);
    expect(figures.bytes).toBeLessThan(150 * 1024);
  });
});

describe('the console', () => {
  it('is for operators, and shows what the server does while it does it', async () => {
    const ivan = await arrive('ivan');
    await ivan.signUp('/account');
    await ivan.page.getByText('this one').waitFor();
    expect(await ivan.page.getByRole('link', { name: 'Console' }).count()).toBe(0);
    server.grant('ivan', 'admin');
    await ivan.page.getByRole('button', { name: 'Sign out' }).click();
    await ivan.signIn('/console');
    const client = await writer();
    const room = client.channel('room:busy');
    const until = Date.now() + 9000;
    for (let n = 0; Date.now() < until; n += 20) {
      await room.publish(upTo(20).map((i) => ({ type: 'message', data: { text: `event ${n + i}` } })));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await client.close();
    const console = ivan.page.getByTestId('console');
    await console.getByText('16/16').waitFor();
    await console.getByText('room:busy').waitFor();
    await console.getByRole('cell', { name: 'stormwire', exact: true }).waitFor();
    expect(await findings(ivan.page)).toEqual([]);
    await keep(ivan.page, 'console-wide-light');
    await console.evaluate((box) => (box.scrollTop = 700));
    await keep(ivan.page, 'console-below-wide-light');
    await ivan.page.setViewportSize(PHONE);
    await ivan.page.emulateMedia({ colorScheme: 'dark' });
    await console.evaluate((box) => (box.scrollTop = 0));
    await console.getByText('16/16').waitFor();
    expect(await findings(ivan.page)).toEqual([]);
    await keep(ivan.page, 'console-phone-dark');
  });
});

describe('signing in and out', () => {
  it('says what is wrong, keeps the sign-in over a reload, and forgets it when told to', async () => {
    const heidi = await arrive('heidi');
    await heidi.page.goto('/c/room:lobby');
    await heidi.page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    await heidi.page.getByLabel('User name or mail address').fill('heidi');
    await heidi.page.getByLabel('Password', { exact: true }).fill('wrong password');
    await heidi.page.getByRole('button', { name: 'Sign in' }).click();
    await heidi.page.getByRole('alert').filter({ hasText: 'do not belong together' }).waitFor();
    await heidi.signUp('/account');
    await heidi.page.reload();
    await heidi.connected();
    const kept = await heidi.page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
    expect(kept).not.toMatch(/eyJ|token/);
    await heidi.page.getByRole('button', { name: 'Sign out' }).click();
    await heidi.page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    await heidi.page.reload();
    await heidi.page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    await heidi.signIn('/c/room:lobby');
  });
});
