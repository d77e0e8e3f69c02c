/**
 * The protobuf of the protocol (proto/stormwire.v1.proto), for less to parse and binary data as it is:
 *
 * ```ts
 * import { protobuf } from '@stormwire/client/protobuf';
 * const client = connect({ url, token, codec: protobuf });
 * ```
 *
 * @module
 */
import type { ErrorCode } from './error.js';
import type { Codec, InEvent, OutEvent, Request, ServerMessage } from './protocol.js';
import type { Member, Position } from './types.js';

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Writes fields one behind the other; numbers are safe integers. */
class Writer {
  #bytes = new Uint8Array(256);
  #length = 0;

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }

  number(field: number, value: number | undefined): this {
    if (value === undefined) return this;
    this.#varint(field * 8 + VARINT);
    this.#varint(value);
    return this;
  }

  flag(field: number, value: boolean | undefined): this {
    return value ? this.number(field, 1) : this;
  }

  text(field: number, value: string | undefined): this {
    return value === undefined ? this : this.raw(field, encoder.encode(value));
  }

  raw(field: number, value: Uint8Array): this {
    this.#varint(field * 8 + BYTES);
    this.#varint(value.length);
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  message(field: number, write: (writer: Writer) => void): this {
    const inner = new Writer();
    write(inner);
    return this.raw(field, inner.bytes);
  }

  #varint(value: number): void {
    this.#reserve(10);
    if (value < 0) {
      // Two's complement of 64 bits.
      let rest = BigInt.asUintN(64, BigInt(value));
      for (; rest > 127n; rest >>= 7n) this.#bytes[this.#length++] = Number(rest & 127n) | 128;
      this.#bytes[this.#length++] = Number(rest);
      return;
    }
    for (; value > 127; value = Math.floor(value / 128)) {
      this.#bytes[this.#length++] = (value % 128) | 128;
    }
    this.#bytes[this.#length++] = value;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + more));
    larger.set(this.bytes);
    this.#bytes = larger;
  }
}

/** Reads the fields of one message. */
class Reader {
  #at: number;

  constructor(
    private readonly bytes: Uint8Array,
    start = 0,
    private readonly end = bytes.length,
  ) {
    this.#at = start;
  }

  /** Calls `read` for each field; what it does not take is skipped. */
  fields(read: (field: number) => boolean): void {
    while (this.#at < this.end) {
      const tag = this.number();
      const before = this.#at;
      if (!read(Math.floor(tag / 8))) {
        this.#at = before;
        this.#skip(tag % 8);
      }
    }
  }

  number(): number {
    let value = 0;
    let scale = 1;
    const start = this.#at;
    // Seven bytes are 49 bits, exact in a double; longer ones are rare.
    for (let i = 0; i < 7; i++) {
      const byte = this.#byte();
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
    this.#at = start;
    let long = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte();
      long |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, long));
    }
    throw new RangeError('a number is too long');
  }

  #byte(): number {
    const byte = this.#at < this.end ? this.bytes[this.#at++] : undefined;
    if (byte === undefined) throw new RangeError('a number is cut off');
    return byte;
  }

  flag(): boolean {
    return this.number() !== 0;
  }

  raw(): Uint8Array {
    const length = this.number();
    const start = this.#at;
    this.#at += length;
    if (this.#at > this.end) throw new RangeError('a field is cut off');
    return this.bytes.subarray(start, this.#at);
  }

  text(): string {
    return decoder.decode(this.raw());
  }

  message(): Reader {
    const inner = this.raw();
    return new Reader(inner);
  }

  #skip(kind: number): void {
    if (kind === VARINT) this.number();
    else if (kind === BYTES) this.raw();
    else if (kind === FIXED64) this.#at += 8;
    else if (kind === FIXED32) this.#at += 4;
    else throw new RangeError(`there is no wire type ${kind}`);
  }
}

const writePosition =
  ({ epoch, offset }: Position) =>
  (writer: Writer) =>
    void writer.number(1, epoch).number(2, offset);

function writeData(writer: Writer, field: number, data: unknown): void {
  const isBinary = data instanceof Uint8Array;
  writer.raw(field, isBinary ? data : encoder.encode(JSON.stringify(data)));
  writer.flag(field + 1, isBinary);
}

const writeEvent =
  ({ type, key, id, data }: OutEvent) =>
  (writer: Writer) =>
    writeData(writer.text(1, type).text(2, key).text(3, id), 4, data);

function writeSince(writer: Writer, since: Extract<Request, { op: 'subscribe' }>['since']): void {
  if (!since) return;
  writer.message(3, (inner) => {
    if ('offset' in since) inner.message(1, writePosition(since));
    else if ('time' in since) inner.number(2, since.time);
    else if ('last' in since) inner.number(3, since.last);
    else inner.text(4, since.cursor);
  });
}

function writeRequest(request: Request, writer: Writer): void {
  writer.number(1, request.id);
  switch (request.op) {
    case 'connect':
      return void writer.message(3, (op) => op.text(1, request.token).text(2, request.producer));
    case 'subscribe':
      return void writer.message(4, (op) => {
        op.text(1, request.channel).text(2, request.pattern);
        writeSince(op, request.since);
        op.number(4, request.mode && 1).flag(5, request.presence);
      });
    case 'publish':
      return void writer.message(5, (op) => {
        op.text(1, request.channel).number(2, request.seq).number(3, request.again);
        op.number(4, request.receipt && 1);
        for (const event of request.events) op.message(5, writeEvent(event));
      });
    case 'signal':
      return void writer.message(6, (op) => writeData(op.text(1, request.channel), 2, request.data));
    case 'history':
      return void writer.message(7, (op) => {
        op.text(1, request.channel);
        if (request.before) op.message(2, writePosition(request.before));
        if (request.after) op.message(3, writePosition(request.after));
        op.text(5, request.key).text(6, request.keys_after);
        op.number(4, request.limit);
      });
    case 'presence':
      return void writer.message(8, (op) =>
        op.text(1, request.channel).text(2, request.after).number(3, request.limit),
      );
    case 'unsubscribe':
      return void writer.message(9, (op) => op.text(1, request.channel).text(2, request.pattern));
    case 'refresh':
      return void writer.message(10, (op) => op.text(1, request.token));
    case 'ping':
      return void writer.message(11, () => {});
  }
}

/** A field of a message: its name, how it is read, and what stands where it is left out. */
type Shape = Record<number, [name: string, read: (reader: Reader) => unknown, list?: true]>;

const number = (reader: Reader) => reader.number();
const flag = (reader: Reader) => reader.flag();
const text = (reader: Reader) => reader.text();

function read(reader: Reader, shape: Shape, into: Record<string, unknown>): never {
  reader.fields((field) => {
    const known = shape[field];
    if (!known) return false;
    const [name, take, isList] = known;
    const value = take(reader);
    if (isList) (into[name] as unknown[]).push(value);
    else into[name] = value;
    return true;
  });
  return into as never;
}

const position = (reader: Reader): Position =>
  read(reader.message(), { 1: ['epoch', number], 2: ['offset', number] }, { epoch: 0, offset: 0 });

function withData<T>(shape: Shape, field: number, into: Record<string, unknown>) {
  const fields: Shape = {
    ...shape,
    [field]: ['data', (reader) => reader.raw()],
    [field + 1]: ['binary', flag],
  };
  return (reader: Reader): T => {
    const { binary, data, ...rest } = read(reader.message(), fields, { ...into }) as {
      binary?: boolean;
      data?: Uint8Array;
    };
    const bytes = data ?? new Uint8Array();
    return { ...rest, data: binary ? bytes.slice() : JSON.parse(decoder.decode(bytes)) } as T;
  };
}

const event = withData<InEvent>(
  {
    1: ['offset', number],
    2: ['ts', number],
    3: ['id', text],
    4: ['type', text],
    5: ['key', text],
    6: ['from', text],
  },
  7,
  { offset: 0, ts: 0, id: '', from: '' },
);

const member = (reader: Reader): Member =>
  read(reader.message(), { 1: ['user', text], 2: ['session', text] }, { user: '', session: '' });

const stretch = (reader: Reader): { from: Position; to: Position } =>
  read(reader.message(), { 1: ['from', position], 2: ['to', position] }, {});

const change: Shape = {
  1: ['channel', text],
  2: ['since', number],
  3: ['version', number],
  4: ['users', number],
  5: ['sessions', number],
  6: ['members', member, true],
  7: ['more', flag],
};

/** Each operation of a server: its field, its name, its shape, its defaults. */
const OPERATIONS: Record<number, [op: string, shape: Shape, defaults: () => Record<string, unknown>]> = {
  3: [
    'connected',
    {
      1: ['session', text],
      2: ['user', text],
      3: ['heartbeat_ms', number],
      4: ['limits', (reader) => read(reader.message(), { 1: ['unacked', number] }, { unacked: 0 })],
      5: ['server_time', number],
    },
    () => ({ session: '', user: '', heartbeat_ms: 30_000, limits: { unacked: 0 }, server_time: 0 }),
  ],
  4: [
    'subscribed',
    {
      1: ['channel', text],
      2: ['epoch', number],
      3: ['offset', number],
      4: ['recovered', flag],
      5: ['pattern', text],
      6: ['cursor', text],
    },
    () => ({ recovered: false }),
  ],
  5: [
    'published',
    {
      1: ['epoch', number],
      2: ['first', number],
      3: ['last', number],
      4: ['server_time', number],
      5: ['duplicate', flag],
      6: ['dead_letters', number],
    },
    () => ({ epoch: 0, first: 0, last: 0, server_time: 0 }),
  ],
  6: [
    'events',
    {
      1: ['channel', text],
      2: ['epoch', number],
      3: ['events', event, true],
      4: ['cursor', text],
      5: ['pattern', text],
    },
    () => ({ channel: '', epoch: 0, events: [] }),
  ],
  7: [
    'gap',
    {
      1: ['channel', text],
      2: ['from', position],
      3: ['to', position],
      4: ['pattern', text],
      5: ['cursor', text],
      6: ['partition', number],
    },
    () => ({}),
  ],
  8: [
    'history',
    {
      1: ['channel', text],
      2: ['epoch', number],
      3: ['events', event, true],
      4: ['more', flag],
      5: ['gaps', stretch, true],
    },
    () => ({ channel: '', epoch: 0, events: [], more: false, gaps: [] }),
  ],
  9: [
    'presence',
    {
      1: ['channel', text],
      2: ['members', member, true],
      3: ['version', number],
      4: ['users', number],
      5: ['sessions', number],
      6: ['next', text],
      7: ['partial', flag],
      8: ['resync', flag],
    },
    () => ({ channel: '', members: [], version: 0, users: 0, sessions: 0 }),
  ],
  10: ['joined', change, () => ({ channel: '', since: 0, version: 0, users: 0, sessions: 0, members: [] })],
  11: ['left', change, () => ({ channel: '', since: 0, version: 0, users: 0, sessions: 0, members: [] })],
  13: ['unsubscribed', { 1: ['channel', text] }, () => ({ channel: '' })],
  14: ['refreshed', { 1: ['expires_in_ms', number] }, () => ({ expires_in_ms: 0 })],
  15: ['pong', { 1: ['server_time', number] }, () => ({ server_time: 0 })],
  16: ['moving', { 1: ['reconnect_after_ms', number] }, () => ({ reconnect_after_ms: 0 })],
  17: [
    'error',
    {
      1: ['code', text],
      2: ['message', text],
      3: ['temporary', flag],
      4: ['retry_after_ms', number],
      5: ['expected', number],
    },
    () => ({ code: 'internal' satisfies ErrorCode, message: '', temporary: false }),
  ],
};

const signalled = withData<Record<string, unknown>>({ 1: ['channel', text], 2: ['from', text] }, 3, {
  channel: '',
  from: '',
});

function readMessage(reader: Reader): ServerMessage | undefined {
  let id: number | undefined;
  let message: Record<string, unknown> | undefined;
  reader.fields((field) => {
    if (field === 1) id = reader.number();
    else if (field === 12) message = { op: 'signal', ...signalled(reader) };
    else {
      const operation = OPERATIONS[field];
      if (!operation) return false;
      const [op, shape, defaults] = operation;
      message = read(reader.message(), shape, { op, ...defaults() });
    }
    return true;
  });
  if (message && id !== undefined) message['id'] = id;
  return message as ServerMessage | undefined;
}

/** The codec of the subprotocol `stormwire.v1.proto`. */
export const protobuf: Codec = {
  subprotocol: 'stormwire.v1.proto',
  encode(requests) {
    const writer = new Writer();
    for (const request of requests) writer.message(1, (inner) => writeRequest(request, inner));
    return writer.bytes;
  },
  decode(data) {
    const messages: ServerMessage[] = [];
    const reader = new Reader(new Uint8Array(data as ArrayBuffer));
    reader.fields((field) => {
      if (field !== 1) return false;
      const message = readMessage(reader.message());
      if (message) messages.push(message);
      return true;
    });
    return messages;
  },
};
