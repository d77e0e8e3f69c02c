import { connect } from '@stormwire/client';

const [url, token] = process.argv.slice(2);
const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket;
const client = connect({ url, token, WebSocket });
const room = client.channel('room:lobby');

// Settles when the event is durable.
const published = await room.publish({ type: 'message', data: { text: 'from JavaScript' } });

const feed = room.subscribe({ since: { last: 10 } });
feed.on('gap', ({ from, to }) => console.warn('not kept any more', from, to));
await new Promise((resolve) => {
  feed.on('event', (event) => {
    console.log(event.from, event.data);
    if (event.offset === published.last) resolve();
  });
});
client.close();
