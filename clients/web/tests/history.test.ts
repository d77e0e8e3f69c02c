/** Long feeds and busy ones: only what is in view is drawn, and nothing jumps. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { keep, PHONE, Stage, upTo, WIDE } from './kit';

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

describe('a feed that is opened', () => {
  it.each([
    ['wide', WIDE],
    ['phone', PHONE],
  ] as const)('stands at its end, however tall its rows are: %s', async (name, viewport) => {
    const client = await stage.writer();
    const room = client.channel(`room:tall-${name}`);
    // Nothing like the height that a row is thought to have before it is drawn.
    const tall = (n: number) =>
      `event ${n}: ${'a line of it, and another one; '.repeat((n * 7) % 40)}\n${'\n'.repeat(n % 11)}.`;
    await room.publish(upTo(300).map((n) => ({ type: 'message', data: { text: tall(n) } })));
    const frank = await stage.arrive(`frank-${name}`, { viewport });
    await frank.signUp(`/c/room:tall-${name}`);
    const { page } = frank;
    const isAtEnd = async () => {
      await frank.sees('event 300:');
      const place = await page.getByTestId('feed').evaluate((box) => ({
        below: box.scrollHeight - box.scrollTop - box.clientHeight,
        last: [...box.querySelectorAll('article')].at(-1)?.textContent.includes('event 300:'),
      }));
      expect(place.last).toBe(true);
      return place.below;
    };
    // Rows are measured as they are drawn, and the end stays where one looks meanwhile and for good.
    for (let look = 0; look < 3; look++) {
      await expect.poll(isAtEnd, { timeout: 20_000 }).toBeLessThan(2);
      expect(await page.getByRole('button', { name: /^Newest$|new$/ }).count()).toBe(0);
      await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)));
    }
    // Left for another channel and opened again.
    await page.goto('/c/room:elsewhere');
    await page.getByText('Nothing here yet').waitFor();
    await page.goto(`/c/room:tall-${name}`);
    await expect.poll(isAtEnd, { timeout: 20_000 }).toBeLessThan(2);
    // What comes next is seen, and keeps the end.
    await room.publish({ type: 'message', data: { text: `The newest.${'\nA line of it.'.repeat(30)}` } });
    await frank.sees('The newest.');
    await expect
      .poll(
        () => page.getByTestId('feed').evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight),
        { timeout: 20_000 },
      )
      .toBeLessThan(2);
    await client.close();
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
