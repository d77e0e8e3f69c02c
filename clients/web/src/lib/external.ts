/**
 * Signing in through another provider: the browser goes there, and comes back to the sign-in page with a
 * ticket, which opens only with the verifier that stayed here.
 */
import { ApiError, call } from './api';

const KEPT = 'stormwire-trip';

/** What waits here for the browser to come back. */
interface Trip {
  verifier: string;
  next: string;
}

/** What the browser came back with. */
export type Arrival = { ticket: string; verifier: string; next: string } | { problem: string };

/** The names of the server's providers; none where it can not be asked. */
export async function providers(): Promise<string[]> {
  const said = await call<{ providers?: string[] }>('/v1/auth/oidc').catch(() => undefined);
  return said?.providers ?? [];
}

/** Sends the browser to a provider; throws where the server does not let it go. */
export async function depart(provider: string, next: string): Promise<void> {
  const verifier = base64(crypto.getRandomValues(new Uint8Array(32)));
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier));
  sessionStorage.setItem(KEPT, JSON.stringify({ verifier, next } satisfies Trip));
  const page = `${location.origin}/sign-in`;
  const query = new URLSearchParams({ challenge: base64(new Uint8Array(hash)), return_to: page });
  const path = `/v1/auth/oidc/${encodeURIComponent(provider)}?${query}`;
  // A refusal is said on this page rather than shown as the server wrote it.
  const answer = await fetch(path, { redirect: 'manual' }).catch(() => undefined);
  if (answer?.type !== 'opaqueredirect') {
    const said = (await answer?.json().catch(() => undefined)) as
      { code?: string; message?: string } | undefined;
    const message = said?.message ?? 'The server can not be reached.';
    throw new ApiError(said?.code ?? 'offline', message, answer?.status ?? 0);
  }
  location.assign(path);
}

/** What the address says, if the browser comes back just now; it says so once. */
export function arrival(): Arrival | undefined {
  const said = new URLSearchParams(location.hash.slice(1));
  const [ticket, error] = [said.get('ticket'), said.get('error')];
  if (!ticket && !error) return undefined;
  history.replaceState(history.state, '', location.pathname + location.search);
  const kept = sessionStorage.getItem(KEPT);
  sessionStorage.removeItem(KEPT);
  if (ticket && kept) return { ticket, ...(JSON.parse(kept) as Trip) };
  return { problem: explained(error) };
}

function explained(code: string | null): string {
  switch (code) {
    case 'forbidden':
      return 'The provider, or this server, did not let you in.';
    case 'conflict':
      return 'There is an account with that address already. Sign in to it as you did before.';
    default:
      return 'That sign-in came to nothing. Try again.';
  }
}

function base64(bytes: Uint8Array): string {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
}
