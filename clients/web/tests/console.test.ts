/** The operators' console. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findings, keep, PHONE, Stage, upTo } from './kit';

let stage: Stage;
beforeAll(async () => void (stage = await Stage.start('limits.events_per_second=100000')));
afterAll(() => stage?.stop());
afterEach(() => stage.clear());

describe('the console', () => {
  it('is for operators, and shows what the server does while it does it', async () => {
    const ivan = await stage.arrive('ivan');
    const { page } = ivan;
    await ivan.signUp('/account');
    await page.getByText('this one').waitFor();
    expect(await page.getByRole('link', { name: 'Console' }).count()).toBe(0);
    stage.server.grant('ivan', 'admin');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await ivan.signIn('/console');
    const client = await stage.writer();
    const room = client.channel('room:busy');
    const console = page.getByTestId('console');
    let isSeen = false;
    const writing = (async () => {
      for (let n = 0; !isSeen; n += 20) {
        await room.publish(upTo(20).map((i) => ({ type: 'message', data: { text: `event ${n + i}` } })));
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    })();
    await console.getByText('16/16').waitFor();
    await console.getByText('room:busy').waitFor();
    await console.getByRole('cell', { name: 'stormwire', exact: true }).waitFor();
    // A line of four points at least.
    await page.waitForFunction(() => {
      const line = document.querySelector('figure path')?.getAttribute('d') ?? '';
      return (line.match(/L/g)?.length ?? 0) >= 4;
    });
    for (const [width, viewport] of [
      ['wide', { width: 1280, height: 800 }],
      ['phone', PHONE],
    ] as const) {
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.setViewportSize(viewport);
        await page.emulateMedia({ colorScheme });
        await console.evaluate((box) => (box.scrollTop = 0));
        await console.getByText('16/16').waitFor();
        expect(await findings(page), `${width} ${colorScheme}`).toEqual([]);
        await keep(page, `console-${width}-${colorScheme}`);
        await console.evaluate((box) => (box.scrollTop = 700));
        await keep(page, `console-below-${width}-${colorScheme}`);
      }
    }
    isSeen = true;
    await writing;
    await client.close();
  });
});
