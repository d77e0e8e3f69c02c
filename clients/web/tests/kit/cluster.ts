/** A cluster on this machine: `cargo xtask up` starts it, and says where everything is. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect, type Client, type WebSocketConstructor } from '../../../js/src/index.js';
import { ENVIRONMENT, PROGRAM } from '../../../js/tests/kit/server.js';

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));
const XTASK = process.env['XTASK'] ?? join(ROOT, 'target/debug/xtask');
const READY_WITHIN_MS = 180_000;

export class Cluster {
  private constructor(
    readonly folder: string,
    private readonly child: ChildProcess,
  ) {}

  /** One NATS node, Postgres, Redis, an identity service, two gateways, a worker. What dies comes back. */
  static async start(): Promise<Cluster> {
    const folder = mkdtempSync(join(tmpdir(), 'stormwire-cluster-'));
    // Postgres does not run as root, and has to come in.
    chmodSync(folder, 0o755);
    const log = openSync(join(folder, 'log'), 'a');
    const size = ['--nats', '1', '--gateways', '2', '--workers', '1', '--program', PROGRAM];
    const child = spawn(XTASK, ['up', ...size, '--folder', join(folder, 'up')], {
      stdio: ['ignore', log, log],
      cwd: ROOT,
    });
    closeSync(log);
    const cluster = new Cluster(folder, child);
    const until = Date.now() + READY_WITHIN_MS;
    while (!existsSync(cluster.#file)) {
      if (child.exitCode !== null || Date.now() > until) {
        const said = readFileSync(join(folder, 'log'), 'utf8');
        await cluster.stop();
        throw new Error(`no cluster, exit code ${child.exitCode}: ${said}`);
      }
      await pause();
    }
    return cluster;
  }

  get #file(): string {
    return join(this.folder, 'up/cluster.env');
  }

  /** What the cluster says of itself now. */
  value(name: string): string {
    const line = readFileSync(this.#file, 'utf8')
      .split('\n')
      .find((one) => one.startsWith(`${name}=`));
    return line?.slice(name.length + 1) ?? '';
  }

  pid(name: string): number {
    const pid = Number(this.value(`PID_${name}`));
    if (!pid) throw new Error(`${name} does not run`);
    return pid;
  }

  get gateways(): number[] {
    return this.value('STORMWIRE_URLS')
      .split(',')
      .map((url) => Number(new URL(url).port));
  }

  /** A program that publishes, over one of the gateways. */
  async writer(): Promise<Client> {
    const { WebSocket } = (await import('ws')) as unknown as { WebSocket: WebSocketConstructor };
    const url = this.value('STORMWIRE_URLS').split(',');
    return connect({ url, token: this.value('STORMWIRE_TOKEN'), WebSocket });
  }

  /** Makes an account an operator's, as the one who runs the cluster does. */
  grant(name: string, role: string): void {
    const settings = [
      '--data-dir',
      this.value('STORMWIRE_DATA_DIR'),
      '--set',
      `archive.url=${this.value('DATABASE_URL')}`,
    ];
    execFileSync(PROGRAM, ['identity', 'grant', name, role, ...settings], {
      encoding: 'utf8',
      env: ENVIRONMENT,
    });
  }

  /** Kills the gateway that listens there. */
  killGateway(port: number): void {
    process.kill(this.pid(`gateway_${this.gateways.indexOf(port) + 1}`), 'SIGKILL');
  }

  /** Stops Postgres where it stands, with all that works for it; gives back how it goes on. */
  pausePostgres(): () => void {
    const all = family(this.pid('postgres'));
    for (const pid of all) process.kill(pid, 'SIGSTOP');
    let isPaused = true;
    return () => {
      if (isPaused) for (const pid of all) process.kill(pid, 'SIGCONT');
      isPaused = false;
    };
  }

  async stop(): Promise<void> {
    this.child.kill('SIGTERM');
    while (this.child.exitCode === null && this.child.signalCode === null) await pause();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 50));

/** A process and its children; the parent first, so that it starts no more of them. */
function family(parent: number): number[] {
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        // The name in brackets may hold anything: what is behind it is told apart by blanks.
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === parent;
      } catch {
        return false;
      }
    });
  return [parent, ...children.map(Number)];
}
