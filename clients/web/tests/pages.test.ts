/** Every page, at two widths, light and dark; with the keyboard alone; and how small the first visit is. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findings, keep, PHONE, Stage, WIDE, type Person } from './kit';

let stage: Stage;
beforeAll(async () => void (stage = await Stage.start()));
afterAll(() => stage?.stop());
afterEach(() => stage.clear());

const LONG = 'a-name-that-is-as-long-as-names-may-be-and-then-some-more-of-it-so-that-it-does-not-fit';

/** Looks at a page as axe does, and keeps what it looks like. */
async function look(person: Person, page: string, look: string): Promise<void> {
  expect(await findings(person.page), `${page} ${look}`).toEqual([]);
  const isWide = await person.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  expect(isWide, `${page} ${look} scrolls sideways`).toBe(false);
  await keep(person.page, `${page}-${look}`);
}

describe('every page', () => {
  it.each([
    ['wide-light', { viewport: WIDE, colorScheme: 'light' }],
    ['wide-dark', { viewport: WIDE, colorScheme: 'dark' }],
    ['phone-light', { viewport: PHONE, colorScheme: 'light' }],
    ['phone-dark', { viewport: PHONE, colorScheme: 'dark' }],
  ] as const)('has no serious finding of axe and scrolls in one direction: %s', async (name, options) => {
    const frank = await stage.arrive(`frank-${name}`, options);
    const { page } = frank;
    for (const path of ['sign-in', 'sign-up']) {
      await page.goto(`/${path}`);
      await page.getByRole('heading', { level: 1 }).waitFor();
      await look(frank, path, name);
    }
    await page.goto('/sign-in');
    await page.getByLabel('User name or mail address').fill(frank.name);
    await page.getByLabel('Password', { exact: true }).fill('not the password');
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.getByRole('alert').waitFor();
    await look(frank, 'sign-in-refused', name);
    await frank.signUp('/');
    await page.getByRole('heading', { name: 'Pick a channel' }).waitFor();
    await look(frank, 'home', name);
    await page.goto(`/c/notes:${name}`);
    await page.getByText('Nothing here yet').waitFor();
    await frank.connected();
    await look(frank, 'room-empty', name);
    await page.goto(`/c/${LONG.slice(0, 60)}:${LONG}`);
    await frank.connected();
    await frank.say(`${'A word, '.repeat(40)}and one without a blank: ${'x'.repeat(200)}`);
    await frank.sees('and one without');
    await frank.say('Line one\nline two\n\n    indented');
    await frank.sees('indented');
    await page.reload();
    await frank.sees('indented');
    // However tall its rows are, a feed opens at its end.
    expect(await page.getByRole('button', { name: /^Newest$|new$/ }).count()).toBe(0);
    await page.getByRole('button', { name: /here$/ }).click();
    await page.getByRole('region', { name: 'People here' }).waitFor();
    await look(frank, 'room-people', name);
    await page.getByRole('button', { name: 'Close the list of people' }).click();
    await look(frank, 'room-long', name);
    await page.goto('/account');
    await page.getByText('this one').waitFor();
    await look(frank, 'account', name);
    if (options.viewport === PHONE) {
      await page.getByRole('button', { name: 'Open navigation' }).click();
      await page
        .getByRole('link', { name: 'Account' })
        .or(page.getByRole('link', { name: frank.name }))
        .waitFor();
      await look(frank, 'drawer', name);
    }
  });

  it('is used with the keyboard alone', async () => {
    const grace = await stage.arrive('grace');
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

describe('the app', () => {
  it('can be installed', async () => {
    const judy = await stage.arrive('judy');
    await judy.page.goto('/sign-in');
    await judy.page.evaluate(() => navigator.serviceWorker.ready);
    const devtools = await judy.context.newCDPSession(judy.page);
    const { errors } = await devtools.send('Page.getAppManifest');
    expect(errors).toEqual([]);
    const { installabilityErrors } = await devtools.send('Page.getInstallabilityErrors');
    // A window of a test is a private one, which installs nothing whatever the page is.
    const others = installabilityErrors.filter(({ errorId }) => errorId !== 'in-incognito');
    expect(others).toEqual([]);
  });

  it('is small at the first visit', async () => {
    const judy = await stage.arrive('judy-again');
    await judy.page.goto('/sign-in', { waitUntil: 'networkidle' });
    const bytes = await judy.page.evaluate(() => {
      const loaded = [
        ...performance.getEntriesByType('navigation'),
        ...performance.getEntriesByType('resource'),
      ] as PerformanceResourceTiming[];
      return loaded.reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0);
    });
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(150 * 1024);
  });
});
