import { connect, StormError, type Client, type OutboxEntry, type Status } from '@stormwire/client';
import { indexedDbOutbox } from '@stormwire/client/outbox';
import { defineStore } from 'pinia';
import { computed, ref, shallowRef } from 'vue';
import { useAccount } from './account';

/** A person waits no longer for an answer. */
const REQUEST_MS = 10_000;

/** The one connection of this tab. */
export const useStorm = defineStore('storm', () => {
  const account = useAccount();
  const client = shallowRef<Client>();
  const status = shallowRef<Status>({ state: 'connecting' });
  /** Feeds that are being given what they missed. */
  const recovering = ref(0);
  /** Publishes without an answer. */
  const waiting = ref(0);
  /** What an earlier visit could not send, until it has its answer. */
  const restored = new Map<number, OutboxEntry>();
  /** Publishes that waited when the sign-in ended. */
  const left = ref(0);
  const isOnline = computed(() => status.value.state === 'connected');

  function open(): Client {
    if (client.value) return client.value;
    const opened = connect({
      url: location.origin,
      token: (request) => account.token(request),
      requestTimeoutMs: REQUEST_MS,
      outbox: indexedDbOutbox(`stormwire-${account.user}`),
    });
    opened.on('status', (now) => {
      status.value = now;
      if (now.state === 'closed' && now.error?.code === 'unauthenticated') void account.end();
    });
    opened.on('restored', (entries) => {
      for (const entry of entries) restored.set(entry.seq, entry);
      count();
    });
    opened.on('settled', ({ seq }) => {
      restored.delete(seq);
      count();
    });
    client.value = opened;
    left.value = 0;
    return opened;
  }

  /** What an earlier visit left for a channel. */
  function unsent(channel: string): OutboxEntry[] {
    return [...restored.values()].filter((entry) => entry.channel === channel);
  }

  function count(): void {
    waiting.value = client.value?.pending ?? 0;
  }

  async function close(): Promise<void> {
    const closing = client.value;
    client.value = undefined;
    status.value = { state: 'connecting' };
    left.value = waiting.value;
    restored.clear();
    waiting.value = recovering.value = 0;
    await closing?.close();
  }

  return { client, status, recovering, waiting, left, isOnline, open, close, count, unsent };
});

/** What a person can do about it. */
export function explained(error: unknown): string {
  if (!(error instanceof StormError)) return error instanceof Error ? error.message : String(error);
  switch (error.code) {
    case 'forbidden':
      return 'You do not have the right to do that here.';
    case 'queue_full':
      return 'Too many messages are waiting to be sent. Wait until some of them are through.';
    case 'too_large':
      return 'That is too long for one message.';
    case 'timeout':
      return 'The server took too long to answer.';
    case 'forgotten':
      return 'It waited too long to tell whether it had been sent before. Send it again if it is missing.';
    default:
      return error.message;
  }
}
