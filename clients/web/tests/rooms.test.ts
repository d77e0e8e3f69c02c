/** People who talk to each other, whatever happens to the server and to their network. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { keep, PHONE, Stage, upTo } from './kit';

let stage: Stage;
beforeAll(async () => void (stage = await Stage.start()));
afterAll(() => stage?.stop());
afterEach(() => stage.clear());

describe('two people', () => {
  it('talk, see each other, and miss nothing and see nothing twice when the server is killed', async () => {
    const alice = await stage.arrive('alice');
    const bob = await stage.arrive('bob', { viewport: PHONE, colorScheme: 'dark' });
    await Promise.all([alice.signUp('/c/room:lobby'), bob.signUp('/c/room:lobby')]);
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

    await stage.server.kill();
    await alice.says(/^Reconnecting/);
    const lines = upTo(6).map((n) => `Message ${n} of six`);
    for (const [i, line] of lines.entries()) await (i % 2 ? bob : alice).say(line);
    await alice.page.getByText('waiting for a connection').first().waitFor();
    await keep(alice.page, 'room-reconnecting-wide');
    await bob.page.getByTestId('banner').waitFor();
    await keep(bob.page, 'room-reconnecting-phone');
    await stage.server.again();
    await Promise.all([alice.connected(), bob.connected()]);
    for (const line of lines) await Promise.all([alice.sees(line), bob.sees(line)]);
    const [hers, his] = await Promise.all([alice.texts(), bob.texts()]);
    expect(hers.filter((text) => text.startsWith('Message')).sort()).toEqual(lines);
    expect(his).toEqual(hers);
  });
});

describe('without a network', () => {
  it('keeps what is written, over a reload too, and sends it once when there is one again', async () => {
    const carol = await stage.arrive('carol');
    await carol.signUp('/c/room:offline');
    await carol.say('Before');
    await carol.sees('Before');
    await carol.page.evaluate(() => navigator.serviceWorker.ready);
    await carol.goesOffline();
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
