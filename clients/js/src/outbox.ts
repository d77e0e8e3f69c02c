/**
 * An outbox in the browser's IndexedDB: what is published without a network is sent when there is one
 * again, after the page was closed too, and stored once.
 *
 * ```ts
 * import { indexedDbOutbox } from '@stormwire/client/outbox';
 * const client = connect({ url, token, outbox: indexedDbOutbox('storm-alice') });
 * ```
 *
 * Each tab has a producer of its own, held by a Web Lock; a new tab takes over one that nobody holds, and
 * those that have something to send first. Name it after the user: what one user wrote is not for another
 * to send.
 *
 * @module
 */
import type { Outbox, OutboxEntry, OutboxState } from './outbox-port.js';

export type { Outbox, OutboxEntry, OutboxState } from './outbox-port.js';

interface Producer {
  producer: string;
  nextSeq: number;
}

type Kept = OutboxEntry & { producer: string };

/** Opens the database `name`; nothing happens before a client opens the outbox. */
export function indexedDbOutbox(name: string): Outbox {
  let database: IDBDatabase;
  let own: Producer;
  let release = () => {};

  const write = (work: (entries: IDBObjectStore, producers: IDBObjectStore) => void) => {
    const transaction = database.transaction(['entries', 'producers'], 'readwrite');
    work(transaction.objectStore('entries'), transaction.objectStore('producers'));
    return done(transaction);
  };
  const all = async <T>(store: string): Promise<T[]> =>
    answer(database.transaction(store).objectStore(store).getAll() as IDBRequest<T[]>);

  return {
    async open(): Promise<OutboxState> {
      database = await openDatabase(name);
      const producers = await all<Producer>('producers');
      const entries = await all<Kept>('entries');
      const waiting = new Set(entries.map(({ producer }) => producer));
      producers.sort((a, b) => Number(waiting.has(b.producer)) - Number(waiting.has(a.producer)));
      const fresh = { producer: crypto.randomUUID().replace(/-/g, ''), nextSeq: 1 };
      for (const candidate of [...producers, fresh]) {
        const held = await hold(`${name} ${candidate.producer}`);
        if (!held) continue;
        own = candidate;
        release = held;
        break;
      }
      await write((_, store) => void store.put(own));
      // Read again under the lock: another tab may have sent some of it meanwhile.
      const kept = (await all<Kept>('entries')).filter(({ producer }) => producer === own.producer);
      kept.sort((a, b) => a.seq - b.seq);
      return { ...own, entries: kept };
    },
    put(entry, nextSeq) {
      own = { ...own, nextSeq };
      return write((entries, producers) => {
        entries.put({ ...entry, producer: own.producer });
        producers.put(own);
      });
    },
    sending(serverTime) {
      return write((entries) => {
        const cursor = entries.openCursor(range(own.producer));
        cursor.onsuccess = () => {
          const at = cursor.result;
          if (!at) return;
          const entry = at.value as Kept;
          if (entry.firstSent === undefined) at.update({ ...entry, firstSent: serverTime });
          at.continue();
        };
      });
    },
    remove: (seq) => write((entries) => void entries.delete([own.producer, seq])),
    close() {
      release();
      database?.close();
      return Promise.resolve();
    },
  };
}

const range = (producer: string) => IDBKeyRange.bound([producer, 0], [producer, Infinity]);

function openDatabase(name: string): Promise<IDBDatabase> {
  const request = indexedDB.open(name, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore('entries', { keyPath: ['producer', 'seq'] });
    request.result.createObjectStore('producers', { keyPath: 'producer' });
  };
  return answer(request);
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('IndexedDB refused'));
  });
}

function done(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error('IndexedDB refused'));
  });
}

/** Takes a lock that ends with the page, if nobody has it; gives back how to release it. */
function hold(name: string): Promise<(() => void) | undefined> {
  const locks = globalThis.navigator?.locks;
  // Without locks (Node) a process is alone with its database.
  if (!locks) return Promise.resolve(() => {});
  return new Promise((resolve, reject) => {
    locks
      .request(name, { ifAvailable: true }, (lock) => {
        if (!lock) return resolve(undefined);
        return new Promise<void>((release) => resolve(release));
      })
      .catch(reject);
  });
}
