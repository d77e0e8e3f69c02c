/** Sign-ins: their beginning, their refresh, and their end. Tokens live for a minute here. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { findings, keep, Stage, type Person } from './kit';

const TOKEN_MS = 60_000;
let stage: Stage;
let patient: Person;
let since: number;
const refreshes: number[] = [];

beforeAll(async () => {
  stage = await Stage.start('identity.access_ttl=1m');
  patient = await stage.arrive('patient');
  patient.page.on('response', (answer) => {
    if (answer.url().endsWith('/v1/auth/refresh')) refreshes.push(answer.status());
  });
  await patient.signUp('/c/room:patience');
  since = Date.now();
});
afterAll(async () => {
  await stage?.clear();
  await stage?.stop();
});

/** Ends every session of somebody, from elsewhere; returns when the server takes none of their tokens any more. */
async function endSessions(name: string): Promise<void> {
  const ask = async (path: string, init: RequestInit) => {
    const answer = await fetch(`${stage.server.url}/v1/auth/${path}`, init);
    expect(answer.ok, path).toBe(true);
    return (await answer.json().catch(() => ({}))) as Record<string, never>;
  };
  const json = { 'content-type': 'application/json' };
  const body = JSON.stringify({ username: name, password: 'correct horse battery' });
  const signIn = async () => {
    const { access_token: token } = await ask('login', { method: 'POST', headers: json, body });
    return { authorization: `Bearer ${token}` };
  };
  // The last of the sessions that end. The server hears of ends in their order, a moment later.
  const last = await signIn();
  const headers = await signIn();
  const { sessions } = (await ask('sessions', { headers })) as unknown as {
    sessions: { id: string; current: boolean }[];
  };
  const others = sessions.filter(({ current }) => !current).sort((a, b) => (a.id < b.id ? -1 : 1));
  for (const { id } of others) {
    await ask(`sessions/${id}`, { method: 'DELETE', headers });
  }
  await vi.waitFor(
    async () => {
      const answer = await fetch(`${stage.server.url}/v1/channels/room:ended/events?last=1`, {
        headers: last,
      });
      expect(answer.status).toBe(401);
    },
    { timeout: 20_000 },
  );
}

const ended = (person: Person) => person.page.getByText(/^Your sign-in has ended/).waitFor();

describe('signing in and out', () => {
  it('says what is wrong, keeps the sign-in over a reload, and forgets it when told to', async () => {
    const heidi = await stage.arrive('heidi');
    const { page } = heidi;
    await page.goto('/c/room:lobby');
    await page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    await page.getByLabel('User name or mail address').fill('heidi');
    await page.getByLabel('Password', { exact: true }).fill('wrong password');
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.getByRole('alert').filter({ hasText: 'do not belong together' }).waitFor();
    await heidi.signUp('/account');
    await page.reload();
    await heidi.connected();
    const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
    expect(kept).not.toMatch(/eyJ|token/);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    expect(await page.getByText('has ended').count()).toBe(0);
    await page.reload();
    await page.getByRole('heading', { name: 'Sign in to Stormwire' }).waitFor();
    await heidi.signIn('/c/room:lobby');
  });
});

describe('a sign-in that is ended elsewhere', () => {
  it('leads to the sign-in page; what was not sent waits, and is sent once', async () => {
    const bob = await stage.arrive('bob');
    await bob.signUp('/c/room:ended');
    await bob.say('Stored before');
    await bob.sees('Stored before');
    await bob.goesOffline();
    await bob.say('Written before the end');
    await bob.says(/1 unsent/);
    await endSessions('bob');
    await bob.context.setOffline(false);
    await ended(bob);
    await bob.page.getByText('One message that was not sent is kept').waitFor();
    expect(await findings(bob.page)).toEqual([]);
    await keep(bob.page, 'sign-in-ended-wide');
    await bob.signIn();
    await bob.sees('Written before the end');
    expect(new URL(bob.page.url()).pathname).toBe('/c/room:ended');
    await bob.page.reload();
    await bob.sees('Written before the end');
    expect(await bob.texts()).toEqual(['Stored before', 'Written before the end']);

    await endSessions('bob');
    await ended(bob);
    expect(await bob.page.getByText('not sent').count()).toBe(0);
  });
});

describe('a sign-in that lasts', () => {
  it('has a fresh token before the first one runs out, on the same connection', async () => {
    await patient.say('With the first token');
    await patient.sees('With the first token');
    const sockets: string[] = [];
    patient.page.on('websocket', (socket) => sockets.push(socket.url()));
    await new Promise((resolve) => setTimeout(resolve, since + TOKEN_MS + 8000 - Date.now()));
    await patient.say('With the second token');
    await patient.sees('With the second token');
    expect(refreshes).toEqual([200]);
    expect(sockets).toEqual([]);
  });
});
