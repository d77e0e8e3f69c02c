/** Two gateways, a worker, an identity service, NATS and Postgres under the browser; some of them fail. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findings, keep, PHONE, Stage, upTo, WIDE, type Person } from './kit';
import { Cluster } from './kit/cluster';

let cluster: Cluster;
let stage: Stage;
beforeAll(async () => {
  cluster = await Cluster.start();
  stage = await Stage.before(cluster.gateways);
}, 300_000);
afterAll(async () => {
  await stage?.stop();
  await cluster?.stop();
});
afterEach(() => stage.clear());

const messages = (texts: string[]) => texts.filter((text) => text.startsWith('Message'));

async function agree(lines: string[], ...people: Person[]): Promise<void> {
  for (const line of lines) await Promise.all(people.map((person) => person.sees(line)));
  const screens = await Promise.all(people.map((person) => person.texts()));
  for (const screen of screens) {
    expect(messages(screen).sort()).toEqual([...lines].sort());
    expect(screen).toEqual(screens[0]);
  }
}

describe('a gateway that is killed', () => {
  it('is replaced by the other one, and nothing is missing or double on either screen', async () => {
    const alice = await stage.arrive('alice');
    const bob = await stage.arrive('bob');
    const gateways: (number | undefined)[] = [];
    for (const person of [alice, bob]) {
      await person.signUp('/c/room:cluster');
      gateways.push(stage.wire.webSocketTo);
      stage.wire.ports = [...stage.wire.ports].reverse();
    }
    // Else they met on one gateway, and this says nothing of two.
    expect(new Set(gateways).size).toBe(2);
    const lines = upTo(18).map((n) => `Message ${String(n).padStart(2, '0')}`);
    const before = stage.wire.webSockets;
    for (const [i, line] of lines.entries()) {
      if (i === 6) cluster.killGateway(gateways[0]!);
      if (i === 12) await alice.connected();
      await (i % 2 ? bob : alice).say(line);
    }
    await agree(lines, alice, bob);
    expect(stage.wire.webSockets).toBeGreaterThan(before);
    expect(stage.wire.webSocketTo).not.toBe(gateways[0]);
    for (const person of [alice, bob]) await person.page.reload();
    await agree(lines, alice, bob);
    await keep(alice.page, 'room-after-takeover-wide');
  });
});

describe('Postgres that stands still', () => {
  it('delays nothing that is said; people are told that the past has to wait, and have it afterwards', async () => {
    const writer = await cluster.writer();
    const past = writer.channel('room:past');
    await past.publish(
      upTo(400).map((n) => ({ type: 'message', data: { text: `event ${n}` } })),
      {
        receipt: 'archive',
      },
    );
    await writer.close();
    const carol = await stage.arrive('carol');
    const dave = await stage.arrive('dave');
    await Promise.all([carol.signUp('/c/room:past'), dave.signUp('/c/room:paused')]);
    await carol.sees('event 400');
    const goOn = cluster.pausePostgres();
    try {
      const feed = carol.page.getByTestId('feed');
      await feed.evaluate((box) => (box.scrollTop = 0));
      await carol.page.getByText('Older messages can not be read right now').waitFor();
      await keep(carol.page, 'room-archive-away-wide');
      await carol.page.getByRole('button', { name: /Newest|new$/ }).click();
      await carol.say('Message to the past');
      await carol.sees('Message to the past');
      for (const n of upTo(3)) await dave.say(`Message ${n}`);
      await agree(['Message 1', 'Message 2', 'Message 3'], dave);
    } finally {
      goOn();
    }
    const feed = carol.page.getByTestId('feed');
    await expect
      .poll(
        async () => {
          await feed.evaluate((box) => (box.scrollTop = 0));
          return carol.page.getByText('This is the beginning.').count();
        },
        { timeout: 60_000, interval: 200 },
      )
      .toBe(1);
    await carol.sees('event 1');
    await dave.page.reload();
    await agree(['Message 1', 'Message 2', 'Message 3'], dave);
  });

  it('is told to operators: what waits for the archive, until it has it', async () => {
    const eve = await stage.arrive('eve', { viewport: WIDE });
    const { page } = eve;
    await eve.signUp('/account');
    await page.getByText('this one').waitFor();
    cluster.grant('eve', 'admin');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    await eve.signIn('/console');
    const console = page.getByTestId('console');
    await console.getByText('16/16').waitFor();
    const late = console.getByRole('alert').filter({ hasText: /^(The archive is|Nobody writes)/ });
    const writer = await cluster.writer();
    const goOn = cluster.pausePostgres();
    try {
      for (const n of upTo(40))
        await writer.channel(`room:late-${n}`).publish({ type: 'message', data: { text: `${n}` } });
      await late.waitFor();
      for (const [width, viewport] of [
        ['wide', WIDE],
        ['phone', PHONE],
      ] as const) {
        await page.setViewportSize(viewport);
        expect(await findings(page), width).toEqual([]);
        await keep(page, `console-archive-late-${width}`);
      }
    } finally {
      goOn();
    }
    await late.waitFor({ state: 'detached', timeout: 120_000 });
    await writer.close();
  });
});
