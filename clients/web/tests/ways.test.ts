/** How the app reaches its server: by whom it trusts, and by what passes. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { keep, launch, Stage } from './kit';
import { Authority } from './kit/authority';

let stage: Stage;
beforeAll(async () => void (stage = await Stage.start()));
afterAll(() => stage?.stop());
afterEach(() => stage.clear());

describe('over TLS', () => {
  it('opens a wss:// socket where it trusts the authority, and nothing at all where it does not', async () => {
    const alice = await stage.arrive('alice');
    const sockets: string[] = [];
    alice.page.on('websocket', (socket) => sockets.push(socket.url()));
    await alice.signUp('/c/room:tls');
    expect(sockets).toEqual([`${stage.wire.url.replace('https:', 'wss:')}/v1/ws`]);
    expect(await alice.page.evaluate(() => [isSecureContext, location.protocol])).toEqual([true, 'https:']);
    const stranger = await launch(new Authority('Somebody else'));
    try {
      const page = await (await stranger.newContext()).newPage();
      await expect(page.goto(stage.wire.url)).rejects.toThrow(/ERR_CERT_AUTHORITY_INVALID/);
    } finally {
      await stranger.close();
    }
  });
});

describe.each([
  ['streams', false],
  ['polls, where a proxy holds streams back', true],
])('where no WebSocket passes', (what, holdsStreams) => {
  it(`${what}, says so, and takes a WebSocket when one passes again`, async () => {
    const { wire } = stage;
    const alice = await stage.arrive(`anna-${holdsStreams ? 'polls' : 'streams'}`);
    const bob = await stage.arrive(`bert-${holdsStreams ? 'polls' : 'streams'}`);
    const room = `/c/room:${holdsStreams ? 'polls' : 'streams'}`;
    wire.refusesUpgrades = true;
    wire.holdsStreams = holdsStreams;
    const before = wire.webSockets;
    for (const [i, person] of [alice, bob].entries()) {
      await person.page.goto(`/sign-up?next=${encodeURIComponent(room)}`);
      await person.page.getByLabel('User name').fill(person.name);
      await person.page.getByLabel('Password', { exact: true }).fill('correct horse battery');
      await person.page.getByRole('button', { name: 'Create account' }).click();
      await person.says(/^Connected, slower than usual$/);
      await person.say(`I am number ${i + 1}`);
      await person.sees(`I am number ${i + 1}`);
    }
    await alice.sees('I am number 2');
    await bob.sees('I am number 1');
    expect(wire.webSockets).toBe(before);
    await keep(alice.page, `room-${holdsStreams ? 'polls' : 'streams'}-wide`);
    wire.refusesUpgrades = wire.holdsStreams = false;
    await Promise.all([alice.connected(), bob.connected()]);
    await alice.say('Over a WebSocket');
    await Promise.all([alice.sees('Over a WebSocket'), bob.sees('Over a WebSocket')]);
    const texts = ['I am number 1', 'I am number 2', 'Over a WebSocket'];
    expect(await alice.texts()).toEqual(texts);
    expect(await bob.texts()).toEqual(texts);
  });
});
