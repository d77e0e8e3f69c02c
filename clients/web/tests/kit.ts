/** A browser, the real server behind TLS, and people who use the app. */
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { chromium, selectors, type Browser, type BrowserContext, type Page } from 'playwright-core';
import { expect } from 'vitest';
import { connect, type Client, type WebSocketConstructor } from '../../js/src/index.js';
import { Server, type Setting } from '../../js/tests/kit/server.js';
import { Wire } from '../../js/tests/kit/wire.js';
import { Authority } from './kit/authority';

const SCREENSHOTS = fileURLToPath(new URL('../screenshots', import.meta.url));
selectors.setTestIdAttribute('data-test');
const PASSWORD = 'correct horse battery';
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export const WIDE = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

/** The numbers from 1 to `n`. */
export const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

/** A browser that trusts this authority beside those that it knows. */
export function launch({ fingerprint }: Authority): Promise<Browser> {
  const executablePath = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
  const trust = `--ignore-certificate-errors-spki-list=${fingerprint}`;
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage', trust] });
}

/** Keeps what the page looks like now as an artefact of the run. */
export async function keep(page: Page, name: string): Promise<void> {
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: `${SCREENSHOTS}/${name}.png` });
}

/** Serious findings of axe, none of which is taken. */
export async function findings(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: { run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string }[] }[] }> };
    };
    // What is half-way between two states has the colours of neither.
    const transitions = document.getAnimations().filter((animation) => animation instanceof CSSTransition);
    await Promise.allSettled(transitions.map(({ finished }) => finished));
    const { violations } = await axe.run();
    const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
    return serious.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`);
  });
}

/** Where a test takes place: a browser, and what its people reach over HTTPS and WSS. */
export class Stage {
  readonly #people: Person[] = [];

  private constructor(
    readonly browser: Browser,
    /** In front of the server: it ends TLS, and can be cut. */
    readonly wire: Wire,
    private readonly own: Server | undefined,
  ) {}

  /** With a server of its own, all in one. */
  static start(...settings: Setting[]): Promise<Stage> {
    return Stage.startAt(() => settings);
  }

  /** The same, where the server is told by which URL the browser reaches it. */
  static async startAt(settings: (url: string) => Setting[]): Promise<Stage> {
    const authority = new Authority();
    const wire = await Wire.to([], authority.issue());
    const [browser, server] = await Promise.all([launch(authority), Server.start(...settings(wire.url))]);
    wire.ports = [server.port];
    return new Stage(browser, wire, server);
  }

  /** In front of gateways that somebody else has started. */
  static async before(ports: readonly number[]): Promise<Stage> {
    const authority = new Authority();
    const [browser, wire] = await Promise.all([launch(authority), Wire.to(ports, authority.issue())]);
    return new Stage(browser, wire, undefined);
  }

  get server(): Server {
    if (!this.own) throw new Error('there is a cluster here, and no one server');
    return this.own;
  }

  async arrive(name: string, options: Parameters<Browser['newContext']>[0] = {}): Promise<Person> {
    const context = await this.browser.newContext({ baseURL: this.wire.url, viewport: WIDE, ...options });
    const person = new Person(context, await context.newPage(), name);
    this.#people.push(person);
    return person;
  }

  /** A program that publishes, and watches nothing. */
  async writer(): Promise<Client> {
    const { WebSocket } = (await import('ws')) as unknown as { WebSocket: WebSocketConstructor };
    return connect({ url: this.server.url, token: this.server.token({ user: 'writer' }), WebSocket });
  }

  /** All go home, and no page has complained. */
  async clear(): Promise<void> {
    for (const person of this.#people.splice(0)) {
      expect(person.complaints).toEqual([]);
      await person.context.close();
    }
  }

  async stop(): Promise<void> {
    await this.browser.close();
    this.wire.close();
    await this.own?.stop();
  }
}

/** Somebody with a window of his own. */
export class Person {
  /** What the page complained of. */
  readonly complaints: string[] = [];

  constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    readonly name: string,
  ) {
    page.setDefaultTimeout(45_000);
    page.on('pageerror', (error) => this.complaints.push(error.message));
  }

  async signUp(next = '/'): Promise<void> {
    await this.page.goto(`/sign-up?next=${encodeURIComponent(next)}`);
    await this.page.getByLabel('User name').fill(this.name);
    await this.page.getByLabel('Password', { exact: true }).fill(PASSWORD);
    await this.page.getByRole('button', { name: 'Create account' }).click();
    await this.connected();
  }

  async signIn(next?: string): Promise<void> {
    if (next !== undefined) await this.page.goto(`/sign-in?next=${encodeURIComponent(next)}`);
    await this.page.getByLabel('User name or mail address').fill(this.name);
    await this.page.getByLabel('Password', { exact: true }).fill(PASSWORD);
    await this.page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await this.connected();
  }

  /** Waits until the app says that it is connected. */
  connected(): Promise<void> {
    return this.says(/^Connected$/);
  }

  /** Waits until the app says so of its connection. */
  says(what: RegExp): Promise<void> {
    const status = this.page.getByTestId('connection').getByRole('status', { includeHidden: true });
    const said = status.filter({ hasText: what }).waitFor({ state: 'attached' });
    return said.catch(async (error: unknown) => {
      await keep(this.page, `failed-${this.name}`);
      throw error;
    });
  }

  async say(text: string): Promise<void> {
    const box = this.page.getByRole('textbox', { name: /^Message / });
    await box.fill(text);
    await box.press('Enter');
  }

  /**
   * Cuts off the network. What was said before is confirmed by then: a message may be on the screen, told
   * by the feed, before its confirmation has come, and counts as unsent so long.
   */
  async goesOffline(): Promise<void> {
    await this.page.waitForFunction(async () => {
      const request = <T>(asked: IDBRequest<T>) =>
        new Promise<T>((resolve, reject) => {
          asked.onsuccess = () => resolve(asked.result);
          asked.onerror = () => reject(asked.error ?? new Error('no result'));
        });
      for (const { name } of await indexedDB.databases()) {
        const database = await request(indexedDB.open(name ?? ''));
        const isOutbox = database.objectStoreNames.contains('entries');
        const kept = isOutbox
          ? await request(database.transaction('entries').objectStore('entries').count())
          : 0;
        database.close();
        if (kept > 0) return false;
      }
      return true;
    });
    await this.context.setOffline(true);
    await this.says(/^Offline/);
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
