import { defineStore } from 'pinia';
import { computed, ref } from 'vue';
import { call } from '../lib/api';
import { useAccount } from './account';

export interface ChannelInfo {
  channel: string;
  /** Events in the archive. */
  count: number;
  /** RFC 3339. */
  lastAt: string | undefined;
}

interface Listed {
  channels: { channel: string; count: number; last_at: string }[];
  next?: string;
}

const RECENT = 'stormwire-recent';
const RECENT_MAX = 12;
const LIST_MAX = 2000;
const NAME = /^[A-Za-z0-9_.~-]{1,64}:[A-Za-z0-9_.~-]{1,190}$/;

/** The name as the server takes it: `lobby` is `room:lobby`. */
export function channelName(text: string): string | undefined {
  const trimmed = text.trim().replace(/^#/, '').replace(/\s+/g, '-');
  const name = trimmed.includes(':') ? trimmed : `room:${trimmed}`;
  return NAME.test(name) ? name : undefined;
}

/** The channels that there are, and those that were looked at last. */
export const useChannels = defineStore('channels', () => {
  const account = useAccount();
  const listed = ref<ChannelInfo[]>([]);
  const recent = ref<string[]>(JSON.parse(localStorage.getItem(RECENT) ?? '[]') as string[]);
  const isLoading = ref(false);
  const problem = ref('');
  /** Events that came in while one looked elsewhere. */
  const unseen = ref<Record<string, number>>({});

  const all = computed<ChannelInfo[]>(() => {
    const known = new Set(listed.value.map(({ channel }) => channel));
    const others = recent.value.filter((channel) => !known.has(channel));
    const own = others.map((channel) => ({ channel, count: 0, lastAt: undefined }));
    return [...own, ...listed.value].sort((a, b) => (b.lastAt ?? '9').localeCompare(a.lastAt ?? '9'));
  });

  async function load(): Promise<void> {
    isLoading.value = true;
    problem.value = '';
    try {
      const found: ChannelInfo[] = [];
      let cursor = '';
      do {
        const query = new URLSearchParams({ limit: '500', ...(cursor && { cursor }) });
        const page = await call<Listed>(`/v1/channels?${query}`, { token: await account.token() });
        for (const { channel, count, last_at: lastAt } of page.channels) {
          if (!channel.startsWith('system:')) found.push({ channel, count, lastAt });
        }
        cursor = page.next ?? '';
      } while (cursor && found.length < LIST_MAX);
      listed.value = found;
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    } finally {
      isLoading.value = false;
    }
  }

  function visit(channel: string): void {
    unseen.value = { ...unseen.value, [channel]: 0 };
    recent.value = [channel, ...recent.value.filter((other) => other !== channel)].slice(0, RECENT_MAX);
    localStorage.setItem(RECENT, JSON.stringify(recent.value));
  }

  function leave(channel: string): void {
    recent.value = recent.value.filter((other) => other !== channel);
    localStorage.setItem(RECENT, JSON.stringify(recent.value));
  }

  function notice(channel: string, count: number): void {
    unseen.value[channel] = (unseen.value[channel] ?? 0) + count;
  }

  return { all, recent, isLoading, problem, unseen, load, visit, leave, notice };
});
