/**
 * The publish window: which publishes have no answer yet, and what goes on the wire next.
 *
 * A pure state machine; time is handed in and nothing is sent from here. It keeps three promises towards
 * a server that drops repeats by `(producer, seq)` and stops at the first refusal:
 *
 * - Every publish ends with one answer.
 * - Order: after a temporary refusal nothing new is sent until everything in flight has its answer; then
 *   all that is unanswered goes again in the order of its numbers. A client does not know which channels
 *   share a partition, so it may not let one overtake another.
 * - `again` is never too small: it is counted by server times, from a moment before the first send.
 */
import { Backoff } from './backoff.js';

const UNACKED_DEFAULT = 256;
/** A server gives one connection a share of about 1 MiB in a partition's queue. */
const IN_FLIGHT_BYTES_MAX = 768 * 1024;
const REFUSED_BASE_MS = 50;
const REFUSED_CAP_MS = 5000;

/** What is answered before an older one leaves when it is the oldest. */
type State = 'waiting' | 'in flight' | 'answered';

interface Entry<P> {
  seq: number;
  bytes: number;
  state: State;
  payload: P;
  /** The last server time heard before the first send. */
  firstSent: number | undefined;
  giveUpAt: number;
}

/** One publish for the wire. */
export interface Outgoing<P> {
  seq: number;
  /** For how many milliseconds it may have been sent, if it was. */
  again: number | undefined;
  payload: P;
}

/** A publish that is given up. */
export interface GivenUp<P> {
  seq: number;
  payload: P;
  /** Whether it was ever on the wire, so that its outcome is unknown. */
  sent: boolean;
}

export class PublishWindow<P> {
  #entries: Entry<P>[] = [];
  #nextSeq = 1;
  /** Index of the first entry that may be waiting to be sent. */
  #cursor = 0;
  #inFlight = 0;
  #inFlightBytes = 0;
  #limit = UNACKED_DEFAULT;
  #connected = false;
  /** Set by a temporary refusal: what is refused goes again at this time, when nothing is in flight. */
  #holdUntil: number | undefined;
  #serverTime = 0;
  #heardAt = 0;
  readonly #backoff: Backoff;

  constructor(random?: () => number) {
    this.#backoff = new Backoff(REFUSED_BASE_MS, REFUSED_CAP_MS, random);
  }

  get nextSeq(): number {
    return this.#nextSeq;
  }

  /** Publishes without an answer. */
  get length(): number {
    return this.#entries.length;
  }

  /** Goes on for a process that ended: the next publish gets `seq`. */
  resume(seq: number): void {
    this.#nextSeq = Math.max(this.#nextSeq, seq);
  }

  /** Numbers a publish of `events` events, and takes it with {@link push} later. */
  number(events: number): number {
    const seq = this.#nextSeq;
    this.#nextSeq += Math.max(1, events);
    return seq;
  }

  /** Takes a publish; they come in the order of their numbers. */
  push(seq: number, payload: P, bytes: number, giveUpAt: number, firstSent?: number): void {
    this.#entries.push({ seq, bytes, state: 'waiting', payload, firstSent, giveUpAt });
  }

  /** A server has accepted the connection: everything without an answer goes (again). */
  connected(unacked: number | undefined, serverTime: number, now: number): void {
    this.#limit = Math.max(1, unacked ?? UNACKED_DEFAULT);
    this.#connected = true;
    this.heard(serverTime, now);
  }

  /** The connection is gone, and with it the server's memory of what it refused on it. */
  disconnected(): void {
    this.#connected = false;
    this.#holdUntil = undefined;
    this.#cursor = this.#inFlight = this.#inFlightBytes = 0;
    for (const entry of this.#entries) {
      if (entry.state === 'in flight') entry.state = 'waiting';
    }
  }

  /** A server time came in. */
  heard(serverTime: number, now: number): void {
    this.#serverTime = serverTime;
    this.#heardAt = now;
  }

  /** What the server's clock shows about now. */
  serverNow(now: number): number {
    return this.#serverTime + Math.max(0, now - this.#heardAt);
  }

  /** The next publish that may go on the wire, which is then in flight. */
  take(now: number): Outgoing<P> | undefined {
    if (!this.#connected) return undefined;
    if (this.#holdUntil !== undefined) {
      if (this.#inFlight > 0 || now < this.#holdUntil) return undefined;
      this.#holdUntil = undefined;
      this.#cursor = 0;
    }
    while (this.#entries[this.#cursor] && this.#entries[this.#cursor]!.state !== 'waiting') {
      this.#cursor++;
    }
    const entry = this.#entries[this.#cursor];
    if (!entry || this.#cursor >= this.#limit) return undefined;
    if (this.#inFlight > 0 && this.#inFlightBytes + entry.bytes > IN_FLIGHT_BYTES_MAX) {
      return undefined;
    }
    const again =
      entry.firstSent === undefined
        ? undefined
        : Math.max(0, Math.ceil(this.serverNow(now) - entry.firstSent));
    entry.firstSent ??= this.#serverTime;
    entry.state = 'in flight';
    this.#inFlight++;
    this.#inFlightBytes += entry.bytes;
    this.#cursor++;
    return { seq: entry.seq, again, payload: entry.payload };
  }

  /** The publish at `seq` is stored, or refused for good: it leaves. Nothing if it is not in flight. */
  settled(seq: number): P | undefined {
    const entry = this.#inFlightAt(seq);
    if (!entry) return undefined;
    entry.state = 'answered';
    this.#inFlight--;
    this.#inFlightBytes -= entry.bytes;
    this.#backoff.reset();
    this.#dropAnswered();
    return entry.payload;
  }

  /**
   * The publish at `seq` was refused for now: it goes again after `retryAfterMs` at the earliest, with
   * all that is unanswered then. A refusal that only follows from an earlier one (`out_of_order`) is no
   * reason to wait longer.
   */
  refused(seq: number, follows: boolean, retryAfterMs: number | undefined, now: number): void {
    const entry = this.#inFlightAt(seq);
    if (!entry) return;
    entry.state = 'waiting';
    this.#inFlight--;
    this.#inFlightBytes -= entry.bytes;
    const pause = retryAfterMs ?? (follows ? 0 : this.#backoff.next());
    this.#holdUntil = Math.max(this.#holdUntil ?? 0, now + pause);
  }

  /**
   * Takes out what has waited past its own deadline. If any of it was on the wire, the caller must end
   * the connection: the server may be waiting there for exactly this sequence number.
   */
  giveUp(now: number): GivenUp<P>[] {
    const givenUp: GivenUp<P>[] = [];
    while (this.#entries[0] && this.#entries[0].giveUpAt <= now) {
      const entry = this.#entries.shift()!;
      this.#cursor = Math.max(0, this.#cursor - 1);
      if (entry.state === 'in flight') {
        this.#inFlight--;
        this.#inFlightBytes -= entry.bytes;
      }
      if (entry.state !== 'answered') {
        const { seq, payload, firstSent } = entry;
        givenUp.push({ seq, payload, sent: firstSent !== undefined });
      }
    }
    this.#dropAnswered();
    return givenUp;
  }

  /** Takes everything out, because there will be no further connection. */
  drain(): GivenUp<P>[] {
    this.disconnected();
    const entries = this.#entries;
    this.#entries = [];
    return entries
      .filter((entry) => entry.state !== 'answered')
      .map(({ seq, payload, firstSent }) => ({ seq, payload, sent: firstSent !== undefined }));
  }

  /** When {@link take} or {@link giveUp} should be called though nothing has happened. */
  nextTimer(): number {
    const hold = this.#connected && this.#inFlight === 0 ? this.#holdUntil : undefined;
    return Math.min(hold ?? Infinity, this.#entries[0]?.giveUpAt ?? Infinity);
  }

  #inFlightAt(seq: number): Entry<P> | undefined {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#entries[middle]!.seq < seq) low = middle + 1;
      else high = middle;
    }
    const entry = this.#entries[low];
    return entry?.seq === seq && entry.state === 'in flight' ? entry : undefined;
  }

  #dropAnswered(): void {
    let answered = 0;
    while (this.#entries[answered]?.state === 'answered') answered++;
    if (answered > 0) {
      this.#entries.splice(0, answered);
      this.#cursor = Math.max(0, this.#cursor - answered);
    }
  }
}
