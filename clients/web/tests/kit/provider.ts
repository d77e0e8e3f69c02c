/** A provider of OpenID Connect, over HTTP: it asks the person on a page of its own, and vouches for whom they say. */
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

const CLIENT = 'stormwire';
const SECRET = 'hush';
const base64 = (text: string | Buffer) => Buffer.from(text).toString('base64url');

/** What the browser brought, and who signed in with it. */
interface Granted {
  asked: URLSearchParams;
  name: string;
}

export class Provider {
  readonly #keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  readonly #granted = new Map<string, Granted>();
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  /** The browser is not sent back: whoever has the address below can go there in its place. */
  holdsAnswers = false;
  /** Where the last browser was sent, or is to go. */
  answer = '';
  /** Codes that were exchanged for tokens. */
  exchanged = 0;
  /** Exchanges that were refused, by reason. */
  readonly refused: string[] = [];

  private constructor() {}

  static start(): Promise<Provider> {
    const provider = new Provider();
    return new Promise((resolve) => provider.#server.listen(0, '127.0.0.1', () => resolve(provider)));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** What the server is told of it: `[providers.NAME]`, with its secret in a file. */
  section(name: string, secretFile: string): string {
    const fields = {
      issuer: this.url,
      client_id: CLIENT,
      client_secret_file: secretFile,
      registration: 'open',
    };
    return [
      `[providers.${name}]`,
      ...Object.entries(fields).map(([key, value]) => `${key} = "${value}"`),
    ].join('\n');
  }

  /** The file's content. */
  readonly secret = SECRET;

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const json = (status: number, body: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    };
    switch (url.pathname) {
      case '/.well-known/openid-configuration':
        return json(200, this.#metadata());
      case '/jwks': {
        const key = this.#keys.publicKey.export({ format: 'jwk' });
        return json(200, { keys: [{ ...key, kid: '1', use: 'sig', alg: 'ES256' }] });
      }
      case '/authorize':
        response.writeHead(200, { 'content-type': 'text/html' }).end(page(url.searchParams));
        return;
      case '/said':
        this.answer = this.#said(new URLSearchParams(await body(request)));
        if (this.holdsAnswers) response.writeHead(200).end('Held');
        else response.writeHead(303, { location: this.answer }).end();
        return;
      case '/token': {
        const [status, answer] = this.#exchange(request, new URLSearchParams(await body(request)));
        return json(status, answer);
      }
      default:
        return json(404, {});
    }
  }

  #metadata(): object {
    return {
      issuer: this.url,
      authorization_endpoint: `${this.url}/authorize`,
      token_endpoint: `${this.url}/token`,
      jwks_uri: `${this.url}/jwks`,
      response_types_supported: ['code'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['ES256'],
    };
  }

  /** Where the browser goes after the person has said yes or no. */
  #said(form: URLSearchParams): string {
    const asked = new URLSearchParams(form.get('asked') ?? '');
    const to = new URL(asked.get('redirect_uri') ?? '');
    to.searchParams.set('state', asked.get('state') ?? '');
    if (form.get('answer') === 'yes') {
      const code = base64(`code ${this.#granted.size + this.exchanged}`);
      this.#granted.set(code, { asked, name: form.get('name') ?? '' });
      to.searchParams.set('code', code);
    } else {
      to.searchParams.set('error', 'access_denied');
    }
    return to.href;
  }

  /** A code is good once, for the client that it was for, with the verifier of its challenge. */
  #exchange(request: IncomingMessage, form: URLSearchParams): [number, object] {
    const code = form.get('code') ?? '';
    const granted = this.#granted.get(code);
    this.#granted.delete(code);
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url');
    const client = `Basic ${Buffer.from(`${CLIENT}:${SECRET}`).toString('base64')}`;
    const wrong =
      (!granted && 'code') ||
      (request.headers.authorization !== client && 'client') ||
      (granted?.asked.get('code_challenge') !== challenge && 'verifier') ||
      (granted?.asked.get('redirect_uri') !== form.get('redirect_uri') && 'redirect');
    if (!granted || wrong) {
      this.refused.push(String(wrong));
      return [400, { error: 'invalid_grant' }];
    }
    this.exchanged++;
    const idToken = this.#idToken(granted);
    return [200, { access_token: 'opaque', token_type: 'Bearer', id_token: idToken }];
  }

  #idToken({ asked, name }: Granted): string {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: this.url,
      aud: CLIENT,
      sub: `subject of ${name}`,
      nonce: asked.get('nonce'),
      iat: now,
      exp: now + 300,
      preferred_username: name,
    };
    const text = `${base64('{"alg":"ES256","kid":"1"}')}.${base64(JSON.stringify(claims))}`;
    const key = { key: this.#keys.privateKey, dsaEncoding: 'ieee-p1363' as const };
    return `${text}.${base64(sign('sha256', Buffer.from(text), key))}`;
  }
}

function page(asked: URLSearchParams): string {
  const hidden = asked.toString().replace(/&/g, '&amp;').replace(/"/g, '&quot;');
  return `<!doctype html><html lang="en"><title>Acme</title><h1>Acme: who are you?</h1>
<form method="post" action="/said"><input type="hidden" name="asked" value="${hidden}">
<label>Name <input name="name"></label>
<button name="answer" value="yes">Allow</button><button name="answer" value="no">Deny</button></form></html>`;
}

async function body(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of request) text += String(part);
  return text;
}
