/** Long feeds and busy ones: only what is in view is drawn, and nothing jumps. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { keep, Stage, upTo } from './kit';

let stage: Stage;
beforeAll(async () => void (stage = await Stage.start('limits.events_per_second=100000')));
afterAll(() => stage?.stop());
afterEach(() => stage.clear());

describe('a long history', () => {
  it('is read to its beginning by scrolling up, and the view stays where it is', async () => {
    const client = await stage.writer();
    const room = client.channel('room:history');
    for (let from = 0; from < 10_000; from += 500) {
      await room.publish(upTo(500).map((n) => ({ type: 'message', data: { text: `event ${from + n}` } })));
    }
    await client.close();
    const dave = await stage.arrive('dave');
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
  it('are shown to the last one, and few of them are drawn', async () => {
    const erin = await stage.arrive('erin');
    await erin.signUp('/c/room:busy');
    const client = await stage.writer();
    const room = client.channel('room:busy');
    for (let from = 0; from < 3000; from += 50) {
      void room.publish(upTo(50).map((n) => ({ type: 'message', data: { text: `event ${from + n}` } })));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await erin.sees('event 3000');
    expect(await erin.page.locator('article').count()).toBeLessThan(120);
    await client.close();
  });
});
