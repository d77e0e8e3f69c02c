/**
 * Everybody in a channel, by the rules of the protocol: pages, and the changes since the first page's
 * version, add up exactly. What is missing between them is seen, and the pages are read again.
 */
import type { MemberChange, MembersMessage } from './protocol.js';
import type { Member, Members } from './types.js';

/** Changes that are kept while pages are read; beyond it the pages are read again. */
const KEPT_MAX = 1000;

const keyOf = (member: Member) => `${member.user}\n${member.session}`;

export class MemberTable {
  #members = new Map<string, Member>();
  #version = 0;
  #users = 0;
  #sessions = 0;
  #partial = false;
  /** While pages are read: the changes to apply afterwards. */
  #kept: MemberChange[] | undefined;
  #stale = true;

  /** Whether the pages must be read (again). */
  get isStale(): boolean {
    return this.#stale && !this.#kept;
  }

  /** Who is there. */
  get snapshot(): Members {
    return {
      version: this.#version,
      users: this.#users,
      sessions: this.#sessions,
      members: [...this.#members.values()],
      partial: this.#partial,
    };
  }

  /** The pages are being read: changes wait. */
  reading(): void {
    this.#kept = [];
    this.#stale = false;
  }

  /** The pages are there, or could not be had. */
  read(pages: Members | undefined): void {
    const kept = this.#kept ?? [];
    this.#kept = undefined;
    if (!pages) {
      this.#stale = true;
      return;
    }
    this.#members = new Map(pages.members.map((member) => [keyOf(member), member]));
    this.#version = pages.version;
    this.#users = pages.users;
    this.#sessions = pages.sessions;
    this.#partial = pages.partial;
    kept.forEach((change) => this.#apply(change));
  }

  /** Somebody came or went; whether that changed anything. */
  change(change: MemberChange): boolean {
    if (!this.#kept) return this.#apply(change);
    if (this.#kept.length < KEPT_MAX) this.#kept.push(change);
    else this.#stale = true;
    return false;
  }

  /** The server says where the members stand. */
  resync(message: MembersMessage): void {
    if (message.version > this.#version || this.#version === 0) this.#stale = true;
  }

  /** The connection is gone: what is known is shown on, and read anew on the next one. */
  disconnected(): void {
    this.#kept = undefined;
    this.#stale = true;
  }

  #apply(change: MemberChange): boolean {
    if (change.version <= this.#version) return false;
    if (change.since > this.#version) {
      this.#stale = true;
      return false;
    }
    for (const member of change.members) {
      if (change.op === 'joined') this.#members.set(keyOf(member), member);
      else this.#members.delete(keyOf(member));
    }
    this.#users = change.users;
    this.#sessions = change.sessions;
    if (!change.more) this.#version = change.version;
    return true;
  }
}
