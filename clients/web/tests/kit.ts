/** A browser, the real server, and people who use the app. */
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium, selectors, type Browser, type BrowserContext, type Page } from 'playwright-core';

export { Server } from '../../js/tests/kit/server.js';
export { Wire } from '../../js/tests/kit/wire.js';

const SCREENSHOTS = fileURLToPath(new URL('../screenshots', import.meta.url));
selectors.setTestIdAttribute('data-test');
const PASSWORD = 'correct horse battery';

export const WIDE = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

export function launch(...args: string[]): Promise<Browser> {
  const executablePath = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage', ...args] });
}

/** Keeps what the page looks like now as an artefact of the run. */
export async function keep(page: Page, name: string): Promise<void> {
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: `${SCREENSHOTS}/${name}.png` });
}

/** Somebody with a window of his own. */
export class Person {
  /** What the page complained of. */
  readonly complaints: string[] = [];

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    readonly name: string,
  ) {
    page.setDefaultTimeout(30_000);
    page.on('pageerror', (error) => this.complaints.push(error.message));
  }

  static async arrive(
    browser: Browser,
    url: string,
    name: string,
    options: Parameters<Browser['newContext']>[0] = {},
  ): Promise<Person> {
    const context = await browser.newContext({ baseURL: url, viewport: WIDE, ...options });
    return new Person(context, await context.newPage(), name);
  }

  async signUp(next = '/'): Promise<void> {
    await this.page.goto(`/sign-up?next=${encodeURIComponent(next)}`);
    await this.page.getByLabel('User name').fill(this.name);
    await this.page.getByLabel('Password', { exact: true }).fill(PASSWORD);
    await this.page.getByRole('button', { name: 'Create account' }).click();
    await this.connected();
  }

  async signIn(next = '/'): Promise<void> {
    await this.page.goto(`/sign-in?next=${encodeURIComponent(next)}`);
    await this.page.getByLabel('User name or mail address').fill(this.name);
    await this.page.getByLabel('Password', { exact: true }).fill(PASSWORD);
    await this.page.getByRole('button', { name: 'Sign in' }).click();
    await this.connected();
  }

  /** Waits until the app says that it is connected. */
  connected(): Promise<void> {
    return this.says(/^Connected$/);
  }

  /** Waits until the app says so of its connection. */
  says(what: RegExp): Promise<void> {
    const status = this.page.getByTestId('connection').getByRole('status', { includeHidden: true });
    return status.filter({ hasText: what }).waitFor({ state: 'attached' });
  }

  async say(text: string): Promise<void> {
    const box = this.page.getByRole('textbox', { name: /^Message / });
    await box.fill(text);
    await box.press('Enter');
  }

  /** Waits until a message is there and stored. */
  sees(text: string): Promise<void> {
    const row = this.page
      .getByRole('article')
      .filter({ hasText: text })
      .filter({ hasNotText: /sending|waiting for/ });
    return row.first().waitFor();
  }

  /** The texts of all rows that are drawn now, in order. */
  texts(): Promise<string[]> {
    return this.page.evaluate(() =>
      [...document.querySelectorAll('article p.whitespace-pre-wrap')].map((row) => row.textContent.trim()),
    );
  }
}
