/** A wire between client and server that can be cut, muted, or refuse WebSockets. */
import { connect, createServer, type AddressInfo, type Server as TcpServer, type Socket } from 'node:net';

export class Wire {
  /** What the server says is lost, while the connection stays. */
  isMute = false;
  /** New connections are closed at once. */
  isDown = false;
  /** A proxy that knows nothing of WebSockets. */
  refusesUpgrades = false;
  /** A proxy that hands an answer on when it is whole. */
  holdsStreams = false;
  /** Connections so far. */
  connections = 0;
  readonly #pairs = new Set<[Socket, Socket]>();

  private constructor(private readonly server: TcpServer) {}

  static to(port: number): Promise<Wire> {
    return new Promise((resolve) => {
      const server = createServer((socket) => wire.#carry(socket, port));
      const wire = new Wire(server);
      server.listen(0, '127.0.0.1', () => resolve(wire));
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Ends every connection without a word. */
  cut(): void {
    for (const [near, far] of this.#pairs) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
  }

  close(): void {
    this.server.close();
    this.cut();
  }

  #carry(near: Socket, port: number): void {
    if (this.isDown) return void near.destroy();
    this.connections++;
    const far = connect(port, '127.0.0.1');
    const pair: [Socket, Socket] = [near, far];
    this.#pairs.add(pair);
    let isStream = false;
    near.on('data', (bytes) => {
      const head = bytes.toString('latin1').toLowerCase();
      if (this.refusesUpgrades && head.includes('upgrade: websocket')) {
        near.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
        return;
      }
      isStream ||= head.includes('accept: text/event-stream');
      far.write(bytes);
    });
    far.on('data', (bytes) => {
      if (this.isMute || (this.holdsStreams && isStream)) return;
      near.write(bytes);
    });
    const end = () => {
      this.#pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    for (const socket of pair) {
      socket.on('error', end);
      socket.on('close', end);
    }
  }
}
