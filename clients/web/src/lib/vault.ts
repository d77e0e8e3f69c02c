/**
 * Keeps a sign-in on this device: sealed in IndexedDB with a key that no script can read out, shared by the
 * tabs. Scripts of this page can still use it; it is out of reach of copies of the disk and of other pages.
 */
const DATABASE = 'stormwire-vault';
const STORE = 'kept';

interface Sealed {
  iv: Uint8Array<ArrayBuffer>;
  bytes: ArrayBuffer;
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('IndexedDB refused'));
  });
}

async function store(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  const database = await answer(request);
  const transaction = database.transaction(STORE, mode);
  transaction.oncomplete = () => database.close();
  return transaction.objectStore(STORE);
}

async function key(): Promise<CryptoKey> {
  const kept = (await answer((await store('readonly')).get('key'))) as CryptoKey | undefined;
  if (kept) return kept;
  const made = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, false, [
    'encrypt',
    'decrypt',
  ]);
  await answer((await store('readwrite')).put(made, 'key'));
  return made;
}

/** Keeps `value` under `name`. Pages without a secure origin have no way to seal: nothing is kept. */
export async function keep(name: string, value: unknown): Promise<void> {
  if (!globalThis.crypto?.subtle) return;
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const text = new TextEncoder().encode(JSON.stringify(value));
  const bytes = await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, await key(), text);
  await answer((await store('readwrite')).put({ iv, bytes } satisfies Sealed, name));
}

/** What was kept, if anything was. */
export async function kept<T>(name: string): Promise<T | undefined> {
  if (!globalThis.crypto?.subtle) return undefined;
  try {
    const sealed = (await answer((await store('readonly')).get(name))) as Sealed | undefined;
    if (!sealed) return undefined;
    const { iv, bytes } = sealed;
    const text = await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, await key(), bytes);
    return JSON.parse(new TextDecoder().decode(text)) as T;
  } catch {
    return undefined;
  }
}

export async function forget(name: string): Promise<void> {
  if (!globalThis.crypto?.subtle) return;
  await answer((await store('readwrite')).delete(name));
}
