import { connect, StormError, type Client, type Status } from '@stormwire/client';
import { indexedDbOutbox } from '@stormwire/client/outbox';
import { defineStore } from 'pinia';
import { computed, ref, shallowRef } from 'vue';
import { useAccount } from './account';

/** The one connection of this tab. */
export const useStorm = defineStore('storm', () => {
  const account = useAccount();
  const client = shallowRef<Client>();
  const status = shallowRef<Status>({ state: 'connecting' });
  /** Feeds that are being given what they missed. */
  const recovering = ref(0);
  /** Publishes without an answer. */
  const waiting = ref(0);
  const isOnline = computed(() => status.value.state === 'connected');

  function open(): Client {
    if (client.value) return client.value;
    const opened = connect({
      url: location.origin,
      token: (request) => account.token(request),
      outbox: indexedDbOutbox(`stormwire-${account.user}`),
    });
    opened.on('status', (now) => {
      status.value = now;
      if (now.state === 'closed' && now.error?.code === 'unauthenticated') void account.signOut();
    });
    opened.on('settled', () => count());
    client.value = opened;
    return opened;
  }

  function count(): void {
    waiting.value = client.value?.pending ?? 0;
  }

  async function close(): Promise<void> {
    const closing = client.value;
    client.value = undefined;
    status.value = { state: 'connecting' };
    waiting.value = recovering.value = 0;
    await closing?.close();
  }

  return { client, status, recovering, waiting, isOnline, open, close, count };
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
    case 'forgotten':
      return 'It waited too long to tell whether it had been sent before. Send it again if it is missing.';
    default:
      return error.message;
  }
}
