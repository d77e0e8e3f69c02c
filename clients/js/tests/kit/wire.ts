/**
 * A wire between clients and servers that can be cut, muted, or refuse WebSockets. Before several servers it
 * is their load balancer: whoever does not answer is passed over. With a certificate it speaks TLS.
 */
import { connect, createServer, type AddressInfo, type Server as TcpServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';

export class Wire {
  /** What the server says is lost, while the connection stays. */
  isMute = false;
  /** New connections are closed at once. */
  isDown = false;
  /** A proxy that knows nothing of WebSockets. */
  refusesUpgrades = false;
  /** A proxy that hands an answer on when it is whole. */
  holdsStreams = false;
  /** Messages of the server that were lost while it was mute. */
  lost = 0;
  /** Connections so far. */
  connections = 0;
  /** WebSockets among them. */
  webSockets = 0;
  /** Behind which port the newest WebSocket is. */
  webSocketTo: number | undefined;
  readonly #pairs = new Set<[Socket, Socket]>();

  private constructor(
    private readonly server: TcpServer,
    /** The servers behind it, in the order in which they are asked. */
    public ports: readonly number[],
    private readonly scheme: string,
  ) {}

  static to(port: number | readonly number[], tls?: TlsOptions): Promise<Wire> {
    return new Promise((resolve) => {
      const carry = (socket: Socket) => wire.#carry(socket);
      const server = tls ? createTlsServer(tls, carry) : createServer(carry);
      // Whoever does not trust the certificate goes away without a word.
      server.on('tlsClientError', () => {});
      const wire = new Wire(server, [port].flat() as number[], tls ? 'https' : 'http');
      server.listen(0, '127.0.0.1', () => resolve(wire));
    });
  }

  get url(): string {
    return `${this.scheme}://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Ends every connection without a word. */
  cut(): void {
    for (const [near, far] of this.#pairs) {
      near.destroy();
      far.resetAndDestroy();
    }
  }

  close(): void {
    this.server.close();
    this.cut();
  }

  #carry(near: Socket): void {
    // Taken as soon as it is read: what breaks before there is another end breaks alone.
    near.on('error', () => near.destroy());
    if (this.isDown) return void near.destroy();
    this.connections++;
    near.pause();
    this.#reach([...this.ports], (far, port) => {
      if (!far || near.destroyed) {
        far?.destroy();
        near.destroy();
      } else this.#join(near, far, port);
    });
  }

  /** Connects to the first port that answers; in the order given. */
  #reach([port, ...others]: number[], reached: (far?: Socket, port?: number) => void): void {
    if (port === undefined) return reached();
    const far = connect(port, '127.0.0.1');
    const failed = () => this.#reach(others, reached);
    far.once('error', failed);
    far.once('connect', () => {
      far.off('error', failed);
      reached(far, port);
    });
  }

  #join(near: Socket, far: Socket, port: number | undefined): void {
    const pair: [Socket, Socket] = [near, far];
    this.#pairs.add(pair);
    let isStream = false;
    near.on('data', (bytes) => {
      const head = bytes.toString('latin1').toLowerCase();
      if (head.includes('upgrade: websocket')) {
        if (this.refusesUpgrades) {
          near.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
          return;
        }
        this.webSockets++;
        this.webSocketTo = port;
      }
      isStream ||= head.includes('accept: text/event-stream');
      far.write(bytes);
    });
    far.on('data', (bytes) => {
      if (this.isMute) this.lost++;
      else if (!(this.holdsStreams && isStream)) near.write(bytes);
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
    near.resume();
  }
}
