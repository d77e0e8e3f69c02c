/** The real server, started by the tests that need it; killed and started again on its port. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, openSync, closeSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));
/** The program under test: what `cargo build -p stormwire` makes, or what `SERVER_UNDER_TEST` names. */
export const PROGRAM = process.env['SERVER_UNDER_TEST'] ?? join(ROOT, 'target/debug/stormwire');
const READY_WITHIN_MS = 60_000;

/** The program refuses settings that it does not know, and takes those that it does from there. */
export const ENVIRONMENT = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(STORMWIRE_|PORT$|.*_URL$)/.test(name)),
);

/** A setting as in `limits.events_per_second=1000`, or what stands in the file of the configuration. */
export type Setting = string | { file: string };

export interface Rights {
  user?: string;
  publish?: string;
  subscribe?: string;
  ttl?: string;
}

export class Server {
  readonly #folder = mkdtempSync(join(tmpdir(), 'stormwire-js-'));
  #child: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly settings: Setting[],
  ) {}

  static async start(...settings: Setting[]): Promise<Server> {
    const server = new Server(await freePort(), settings);
    await server.again();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get #dataDir(): string {
    return join(this.#folder, 'data');
  }

  /** Starts it (again) on its port, and waits until it is ready. */
  async again(): Promise<void> {
    const log = openSync(join(this.#folder, 'log'), 'a');
    const settings = this.settings.flatMap((setting) => {
      if (typeof setting === 'string') return ['--set', setting];
      const file = join(this.#folder, 'stormwire.toml');
      writeFileSync(file, setting.file);
      return ['--config', file];
    });
    const listen = ['--listen', `127.0.0.1:${this.port}`, '--data-dir', this.#dataDir];
    this.#child = spawn(PROGRAM, [...listen, ...settings], {
      stdio: ['ignore', log, log],
      env: ENVIRONMENT,
    });
    closeSync(log);
    const child = this.#child;
    const until = Date.now() + READY_WITHIN_MS;
    while (Date.now() < until && child.exitCode === null) {
      const answer = await fetch(`${this.url}/readyz`).catch(() => undefined);
      if (answer?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`${PROGRAM} is not ready, exit code ${child.exitCode}; see ${this.#folder}/log`);
  }

  /** Kills it, or asks it to drain with SIGTERM; settles when it has ended. */
  kill(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const child = this.#child!;
    if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
    return new Promise((resolve) => {
      child.once('exit', () => resolve());
      child.kill(signal);
    });
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Makes an account an operator's, as the one who runs the server does. */
  grant(name: string, role: string): void {
    const named = ['identity', 'grant', name, role, '--data-dir', this.#dataDir];
    execFileSync(PROGRAM, named, { encoding: 'utf8', env: ENVIRONMENT });
  }

  /** A token that the server's development key has signed. */
  token({ user = 'alice', publish = '*', subscribe = '*', ttl = '1h' }: Rights = {}): string {
    const rights = ['--publish', publish, '--subscribe', subscribe];
    const named = ['token', '--user', user, ...rights, '--ttl', ttl, '--data-dir', this.#dataDir];
    return execFileSync(PROGRAM, named, { encoding: 'utf8', env: ENVIRONMENT }).trim();
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}
