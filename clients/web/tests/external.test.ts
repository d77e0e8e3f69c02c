/** Signing in through another provider: there and back, by the server's real routes. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findings, keep, PHONE, Stage, type Person } from './kit';
import { Provider } from './kit/provider';

let stage: Stage;
let provider: Provider;
const folder = mkdtempSync(join(tmpdir(), 'stormwire-provider-'));

beforeAll(async () => {
  provider = await Provider.start();
  const secret = join(folder, 'secret');
  writeFileSync(secret, provider.secret);
  stage = await Stage.startAt((url) => [
    `identity.public_url=${url}`,
    `identity.return_urls=${url}/sign-in`,
    { file: provider.section('acme', secret) },
  ]);
});
afterAll(async () => {
  await stage?.stop();
  provider?.stop();
  rmSync(folder, { recursive: true, force: true });
});
afterEach(() => stage.clear());

/** Goes from the app's sign-in page to the provider's own. */
async function depart({ page }: Person, from: string): Promise<void> {
  await page.goto(from);
  await page.getByRole('button', { name: 'Continue with Acme' }).click();
  await page.getByRole('heading', { name: 'Acme: who are you?' }).waitFor();
}

async function allow({ page, name }: Person): Promise<void> {
  await page.getByLabel('Name').fill(name);
  await page.getByRole('button', { name: 'Allow' }).click();
}

describe('another provider', () => {
  it('signs in, leads to where one was going, and knows one again; the way back holds no token', async () => {
    const mallory = await stage.arrive('mallory');
    const { page } = mallory;
    const seen: string[] = [];
    page.on('framenavigated', (frame) => seen.push(frame.url()));
    await page.goto('/c/room:abroad');
    await depart(mallory, page.url());
    await allow(mallory);
    await mallory.connected();
    expect(new URL(page.url()).pathname).toBe('/c/room:abroad');
    await mallory.say('Hello from elsewhere');
    await mallory.sees('Hello from elsewhere');
    // The name that the account got is shown, and not the id that the server knows it by.
    await page.getByRole('link', { name: 'mallory' }).waitFor();
    expect(seen.filter((url) => /eyJ|refresh/.test(url))).toEqual([]);
    expect(new URL(page.url()).hash).toBe('');
    expect(await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }))).not.toMatch(
      /eyJ|verifier/,
    );
    await page.reload();
    await mallory.connected();

    // The same person again, in another browser: the same account.
    const again = await stage.arrive('mallory', { viewport: PHONE, colorScheme: 'dark' });
    await again.page.goto('/sign-in');
    await again.page.getByRole('button', { name: 'Continue with Acme' }).waitFor();
    expect(await findings(again.page)).toEqual([]);
    await keep(again.page, 'sign-in-external-phone-dark');
    await depart(again, '/sign-in?next=/c/room:abroad');
    await allow(again);
    await again.connected();
    await again.sees('Hello from elsewhere');
    await again.say('From my telephone');
    await mallory.sees('From my telephone');
    const authors = await page.evaluate(
      () =>
        [...document.querySelectorAll('article')].filter((row) => row.textContent.includes('mallory')).length,
    );
    // Both messages are of one author, so the second has no head of its own.
    expect(authors).toBe(1);
    expect(provider.exchanged).toBe(2);
    expect(provider.refused).toEqual([]);
  });

  it('that says no leaves one where one was, and the password still opens', async () => {
    const nina = await stage.arrive('nina');
    const { page } = nina;
    await nina.signUp('/account');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    await depart(nina, '/sign-in?next=/c/room:abroad');
    await page.getByRole('button', { name: 'Deny' }).click();
    await page.getByRole('alert').filter({ hasText: 'came to nothing' }).waitFor();
    expect(new URL(page.url()).hash).toBe('');
    expect(await findings(page)).toEqual([]);
    await keep(page, 'sign-in-external-denied-wide');
    await nina.signIn();
  });

  it('whose answer another browser brings signs nobody in', async () => {
    const oscar = await stage.arrive('oscar');
    await depart(oscar, '/sign-in');
    provider.holdsAnswers = true;
    await allow(oscar);
    await oscar.page.getByText('Held').waitFor();
    const before = provider.exchanged;
    const peggy = await stage.arrive('peggy');
    const refused = await peggy.page.goto(provider.answer);
    expect(refused?.status()).toBe(401);
    await peggy.page.goto('/c/room:abroad');
    await peggy.page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    expect(provider.exchanged).toBe(before);
    // A ticket that nobody here asked for opens nothing either.
    await peggy.page.goto('/sign-in#ticket=of-somebody-else');
    await peggy.page.getByRole('alert').filter({ hasText: 'came to nothing' }).waitFor();
  });
});
