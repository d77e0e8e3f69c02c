/** Clients whose pauses are short, and what they were told. */
import { WebSocket } from 'ws';
import { connect, type Client, type ClientOptions, type Status } from '../../src/index.js';
import type { AnyEvent, Subscription, WebSocketConstructor } from '../../src/index.js';

/** A client of Node 20, which has no WebSocket of its own. */
export function client(options: Partial<ClientOptions> & Pick<ClientOptions, 'url' | 'token'>): Client {
  return connect({
    WebSocket: WebSocket as unknown as WebSocketConstructor,
    backoffMs: [20, 500],
    ...options,
  });
}

/** Waits until it is so. */
export async function until(what: string, isSo: () => boolean, withinMs = 45_000): Promise<void> {
  const end = performance.now() + withinMs;
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export function whenStatus(of: Client, isSo: (status: Status) => boolean, what = 'status'): Promise<void> {
  return until(`${what}, now ${JSON.stringify(of.status)}`, () => isSo(of.status));
}

/** Gathers what a subscription is told. */
export function gather(subscription: Subscription): AnyEvent[] {
  const events: AnyEvent[] = [];
  subscription.on('event', (event) => events.push(event as AnyEvent));
  return events;
}

/** The numbers from 1 to `n`. */
export const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);
