import { defineStore } from 'pinia';
import { useAccount } from './account';
import { useChannels } from './channels';
import { useNames } from './names';
import { useStorm } from './storm';
import { Feed } from '../lib/feed';

/** Channels that are followed at once; the one not looked at for the longest is left. */
const FOLLOWED_MAX = 8;

/** The feeds of this tab. */
export const useFeeds = defineStore('feeds', () => {
  const account = useAccount();
  const storm = useStorm();
  const names = useNames();
  const channels = useChannels();
  const open = new Map<string, Feed>();
  const recovering = new Set<string>();
  let shown = '';

  function show(name: string): Feed {
    shown = name;
    channels.visit(name);
    const known = open.get(name);
    if (known) {
      open.delete(name);
      open.set(name, known);
      return known;
    }
    const feed = new Feed(name, storm.open(), {
      learn: names.learn,
      counted: storm.count,
      arrived: (count) => {
        if (shown !== name) channels.notice(name, count);
      },
      recovering: (isSo) => {
        if (isSo) recovering.add(name);
        else recovering.delete(name);
        storm.recovering = recovering.size;
      },
    });
    feed.myName = account.name;
    feed.restore(storm.unsent(name));
    open.set(name, feed);
    for (const other of [...open.keys()].slice(0, -FOLLOWED_MAX)) leave(other);
    return feed;
  }

  function leave(name: string): void {
    open.get(name)?.close();
    open.delete(name);
    recovering.delete(name);
  }

  function hide(name: string): void {
    if (shown === name) shown = '';
  }

  function closeAll(): void {
    for (const name of [...open.keys()]) leave(name);
  }

  return { show, hide, leave, closeAll };
});
