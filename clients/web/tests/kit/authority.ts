/** A certificate authority that exists for the length of a run. */
import { createHash, createPublicKey, generateKeyPairSync } from 'node:crypto';
import forge from 'node-forge';

const { pki } = forge;
const DAYS = 2;

export class Authority {
  readonly #key = keys();
  readonly #certificate: forge.pki.Certificate;

  constructor(readonly name = 'Stormwire test authority') {
    const subject = [{ name: 'commonName', value: name }];
    this.#certificate = certificate(this.#key.publicKey, subject, subject, [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ]);
    this.#certificate.sign(this.#key.privateKey, forge.md.sha256.create());
  }

  /** By what a browser is told to trust it: the hash of its public key. */
  get fingerprint(): string {
    const key = createPublicKey(pki.publicKeyToPem(this.#key.publicKey));
    return createHash('sha256')
      .update(key.export({ type: 'spki', format: 'der' }))
      .digest('base64');
  }

  /** A server's key and chain for this machine, as `tls.createServer` takes it. */
  issue(): { key: string; cert: string } {
    const own = keys();
    const subject = [{ name: 'commonName', value: '127.0.0.1' }];
    const issued = certificate(own.publicKey, subject, this.#certificate.subject.attributes, [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      { name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] },
    ]);
    issued.sign(this.#key.privateKey, forge.md.sha256.create());
    return {
      key: pki.privateKeyToPem(own.privateKey),
      cert: pki.certificateToPem(issued) + pki.certificateToPem(this.#certificate),
    };
  }
}

function keys(): forge.pki.rsa.KeyPair {
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const own = pki.privateKeyFromPem(privateKey);
  return { privateKey: own, publicKey: pki.setRsaPublicKey(own.n, own.e) };
}

function certificate(
  key: forge.pki.rsa.PublicKey,
  subject: forge.pki.CertificateField[],
  issuer: forge.pki.CertificateField[],
  extensions: object[],
): forge.pki.Certificate {
  const made = pki.createCertificate();
  made.publicKey = key;
  made.serialNumber = `01${forge.util.bytesToHex(forge.random.getBytesSync(8))}`;
  const from = Date.now() - 3_600_000;
  made.validity.notBefore = new Date(from);
  made.validity.notAfter = new Date(from + DAYS * 86_400_000);
  made.setSubject(subject);
  made.setIssuer(issuer);
  made.setExtensions(extensions);
  return made;
}
