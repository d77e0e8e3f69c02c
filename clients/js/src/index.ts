/**
 * Stormwire for browsers and Node.
 *
 * ```ts
 * import { connect } from '@stormwire/client';
 *
 * const client = connect({ url: 'https://storm.example', token: () => fetchToken() });
 * const room = client.channel<{ message: { text: string } }>('room:lobby');
 * const feed = room.subscribe({ since: { last: 50 } });
 * feed.on('event', (event) => console.log(event.from, event.data.text));
 * await room.publish({ type: 'message', data: { text: 'hello' } });
 * ```
 *
 * @module
 */
export { Channel, type HistoryOptions, type PublishOptions } from './channel.js';
export { Client, connect } from './client.js';
export { StormError, type ErrorCode } from './error.js';
export { json } from './json.js';
export type { ClientEvents, ClientOptions, SettledPublish } from './options.js';
export type { Outbox, OutboxEntry, OutboxState } from './outbox-port.js';
export type { Codec } from './protocol.js';
export { Subscription, type SubscribeOptions, type SubscriptionEvents } from './subscription.js';
export type { TokenProvider, TokenRequest } from './token.js';
export type * from './types.js';
export type { WebSocketConstructor, WebSocketLike } from './websocket.js';
