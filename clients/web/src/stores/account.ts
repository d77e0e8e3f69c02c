import { StormError, type TokenRequest } from '@stormwire/client';
import { defineStore } from 'pinia';
import { computed, ref } from 'vue';
import { ApiError, call } from '../lib/api';
import { forget, keep, kept } from '../lib/vault';

interface Tokens {
  user: string;
  name: string;
  session: string;
  access: string;
  refresh: string;
  /** Unix milliseconds. */
  expiresAt: number;
}

interface SignedIn {
  user: string;
  session: string;
  access_token: string;
  refresh_token: string;
  expires_in: number;
}

const KEPT = 'account';
/** A token that is good for so long is good enough. */
const MARGIN_MS = 20_000;

/** Who is signed in. Tabs share a sign-in, and refresh it one at a time: a refresh token is good once. */
export const useAccount = defineStore('account', () => {
  const tokens = ref<Tokens>();
  const isSignedIn = computed(() => tokens.value !== undefined);
  const name = computed(() => tokens.value?.name ?? '');
  const user = computed(() => tokens.value?.user ?? '');
  /** The sign-in was ended by the server: whoever looks at the sign-in page wants to know. */
  const hasEnded = ref(false);
  const isAdmin = computed(() => roles(tokens.value?.access).includes('admin'));

  const restored = kept<Tokens>(KEPT).then((found) => {
    tokens.value = found;
  });

  async function take(answer: SignedIn, called: string): Promise<void> {
    tokens.value = {
      user: answer.user,
      name: called,
      session: answer.session,
      access: answer.access_token,
      refresh: answer.refresh_token,
      expiresAt: Date.now() + answer.expires_in * 1000,
    };
    hasEnded.value = false;
    await keep(KEPT, tokens.value);
  }

  async function signIn(username: string, password: string): Promise<void> {
    const named = username.includes('@') ? { email: username } : { username };
    await take(await call<SignedIn>('/v1/auth/login', { body: { ...named, password } }), username);
  }

  /** With what another provider's sign-in came back with. */
  async function signInWith({ ticket, verifier }: { ticket: string; verifier: string }): Promise<void> {
    const answer = await call<SignedIn>('/v1/auth/ticket', { body: { ticket, verifier } });
    const { preferred_username: called } = claims(answer.access_token);
    await take(answer, called ?? `user ${answer.user.slice(-4)}`);
  }

  async function signUp(username: string, password: string): Promise<void> {
    await call('/v1/auth/register', { body: { username, password } });
    await signIn(username, password);
  }

  async function forgetHere(): Promise<void> {
    tokens.value = undefined;
    await forget(KEPT);
  }

  /** The server takes this sign-in no more. What was not sent stays in its outbox until the next one. */
  async function end(): Promise<void> {
    if (!tokens.value) return;
    hasEnded.value = true;
    await forgetHere();
  }

  async function signOut(): Promise<void> {
    hasEnded.value = false;
    const refresh = tokens.value?.refresh;
    await forgetHere();
    // The session ends on the server as well, or else by itself.
    if (refresh) await call('/v1/auth/logout', { body: { refresh_token: refresh } }).catch(() => {});
  }

  async function refreshed(refused: string | undefined): Promise<string> {
    // Another tab may have refreshed meanwhile.
    const current = (await kept<Tokens>(KEPT)) ?? tokens.value;
    if (!current) throw new StormError('unauthenticated', 'signed out');
    tokens.value = current;
    const isFresh = current.expiresAt - Date.now() > MARGIN_MS && current.access !== refused;
    if (isFresh) return current.access;
    try {
      const body = { refresh_token: current.refresh };
      await take(await call<SignedIn>('/v1/auth/refresh', { body }), current.name);
      return tokens.value.access;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        await end();
        throw new StormError('unauthenticated', 'This sign-in has ended. Sign in again.');
      }
      throw error;
    }
  }

  /** A token that is good, fetched if need be. */
  async function token({ refused }: TokenRequest = {}): Promise<string> {
    const current = tokens.value;
    // The client asks at three quarters of a token's life: then a fresh one is due.
    const isFresh = current && current.expiresAt - Date.now() > MARGIN_MS && current.access !== refused;
    if (isFresh && current.expiresAt - Date.now() > lifeOf(current.access) * 0.3) return current.access;
    const locks = navigator.locks as LockManager | undefined;
    return locks ? locks.request('stormwire-refresh', () => renew(refused)) : renew(refused);
  }

  async function renew(refused: string | undefined): Promise<string> {
    const current = (await kept<Tokens>(KEPT)) ?? tokens.value;
    const left = current ? current.expiresAt - Date.now() : 0;
    const isEarly = current && left > lifeOf(current.access) * 0.3 && current.access !== refused;
    return refreshed(isEarly ? refused : (refused ?? current?.access));
  }

  return {
    tokens,
    isSignedIn,
    hasEnded,
    name,
    user,
    isAdmin,
    restored,
    signIn,
    signInWith,
    signUp,
    signOut,
    end,
    token,
  };
});

interface Claims {
  preferred_username?: string;
  roles?: string[];
  exp?: number;
  iat?: number;
}

function claims(token: string | undefined): Claims {
  try {
    const text = atob(token!.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/'));
    // A name may have any letters.
    const bytes = Uint8Array.from(text, (byte) => byte.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) as Claims;
  } catch {
    return {};
  }
}

const roles = (token: string | undefined) => claims(token).roles ?? [];

function lifeOf(token: string): number {
  const { exp = 0, iat = 0 } = claims(token);
  return exp > iat && iat > 0 ? (exp - iat) * 1000 : 900_000;
}
