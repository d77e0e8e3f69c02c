import { describe, expect, it } from 'vitest';
import { MemberTable } from '../src/members.js';
import type { MemberChange } from '../src/protocol.js';

const member = (user: string) => ({ user, session: `${user}-1` });

function change(op: 'joined' | 'left', since: number, version: number, ...users: string[]): MemberChange {
  const members = users.map(member);
  return { op, channel: 'a:b', since, version, users: 0, sessions: 0, members };
}

const pages = (version: number, ...users: string[]) => ({
  version,
  users: users.length,
  sessions: users.length,
  members: users.map(member),
  partial: false,
});

const names = (table: MemberTable) => table.snapshot.members.map(({ user }) => user).sort();

describe('the table of members', () => {
  it('applies changes that came while pages were read, once and in order', () => {
    const table = new MemberTable();
    expect(table.isStale).toBe(true);
    table.reading();
    expect(table.change(change('joined', 5, 8, 'old'))).toBe(false);
    table.change(change('joined', 8, 12, 'carol'));
    table.change(change('left', 12, 15, 'bob'));
    table.read(pages(10, 'alice', 'bob'));
    expect(names(table)).toEqual(['alice', 'carol']);
    expect(table.isStale).toBe(false);
    expect(table.change(change('left', 10, 15, 'alice'))).toBe(false);
    expect(names(table)).toEqual(['alice', 'carol']);
  });

  it('sees that something is missing, and reads again', () => {
    const table = new MemberTable();
    table.reading();
    table.read(pages(10, 'alice'));
    expect(table.change(change('joined', 11, 12, 'bob'))).toBe(false);
    expect(table.isStale).toBe(true);
    table.reading();
    table.read(undefined);
    expect(table.isStale).toBe(true);
    table.reading();
    table.read(pages(12, 'alice', 'bob'));
    expect(names(table)).toEqual(['alice', 'bob']);
  });

  it('stays at its version while more of the same change follows', () => {
    const table = new MemberTable();
    table.reading();
    table.read(pages(10));
    table.change({ ...change('joined', 10, 12, 'alice'), more: true });
    table.change(change('joined', 10, 12, 'bob'));
    expect(names(table)).toEqual(['alice', 'bob']);
    expect(table.snapshot.version).toBe(12);
  });

  it('goes by what the server says of where the members stand', () => {
    const table = new MemberTable();
    table.reading();
    table.read(pages(10, 'alice'));
    const stand = { op: 'presence' as const, channel: 'a:b', users: 1, sessions: 1, members: [] };
    table.resync({ ...stand, version: 10 });
    expect(table.isStale).toBe(false);
    table.resync({ ...stand, version: 11 });
    expect(table.isStale).toBe(true);
  });
});
