import { defineStore } from 'pinia';
import { reactive } from 'vue';
import { useAccount } from './account';

/**
 * What people call themselves. Events name their publisher by an id that never changes; the name beside it
 * is what that account says of itself in what it publishes.
 */
export const useNames = defineStore('names', () => {
  const account = useAccount();
  const known = reactive(new Map<string, string>());

  function learn(user: string, name: unknown): void {
    if (typeof name === 'string' && name.length > 0 && name.length <= 64 && known.get(user) !== name) {
      known.set(user, name);
    }
  }

  function of(user: string): string {
    if (user === account.user) return account.name;
    return known.get(user) ?? short(user);
  }

  return { learn, of };
});

/** The end of an id tells it from others: its beginning is a time. */
function short(user: string): string {
  return /^[0-9a-f-]{36}$/.test(user) ? `user ${user.slice(-4)}` : user;
}
