/** The JSON of the protocol: bytes travel as `data_base64`. */
import type { Codec, Request, ServerMessage } from './protocol.js';

interface Carrier {
  data?: unknown;
  data_base64?: string;
}

/** `data`, or `data_base64` where it is bytes. */
export function dataOut<T extends { data: unknown }>(carrier: T): Carrier {
  if (!(carrier.data instanceof Uint8Array)) return carrier;
  const { data, ...rest } = carrier as { data: Uint8Array };
  let text = '';
  for (const byte of data) text += String.fromCharCode(byte);
  return { ...rest, data_base64: btoa(text) };
}

/** Puts the bytes of `data_base64` in the place of `data`. */
export function dataIn<T extends object>(carrier: T): T & { data: unknown } {
  const mixed = carrier as T & Carrier;
  if (mixed.data_base64 !== undefined) {
    mixed.data = Uint8Array.from(atob(mixed.data_base64), (character) => character.charCodeAt(0));
    delete mixed.data_base64;
  }
  return mixed as T & { data: unknown };
}

function out(request: Request): object {
  if (request.op === 'publish') return { ...request, events: request.events.map(dataOut) };
  return request.op === 'signal' ? dataOut(request) : request;
}

/** The default codec. */
export const json: Codec = {
  subprotocol: 'stormwire.v1.json',
  encode(requests) {
    return JSON.stringify(requests.length === 1 ? out(requests[0]!) : requests.map(out));
  },
  decode(data) {
    const parsed = JSON.parse(data as string) as ServerMessage | ServerMessage[];
    const messages = Array.isArray(parsed) ? parsed : [parsed];
    for (const message of messages) {
      if (message.op === 'events' || message.op === 'history') message.events.forEach(dataIn);
      else if (message.op === 'signal') dataIn(message);
    }
    return messages;
  },
};
