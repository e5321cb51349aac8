// The client's side of the encryption, with nothing but WebCrypto: what browsers do.

import { webcrypto } from 'node:crypto'; // in browsers it is just there: globalThis.crypto

const { subtle } = webcrypto;
const curve = { name: 'ECDH', namedCurve: 'P-256' };
const info = new TextEncoder().encode('ignis-ecdh-p256-aes-256-gcm-v1');

export const toBase64 = (bytes) => Buffer.from(bytes).toString('base64');
export const fromBase64 = (text) => new Uint8Array(Buffer.from(text, 'base64'));

export const importPublic = (text) => subtle.importKey('raw', fromBase64(text), curve, true, []);

export async function generate() {
  const pair = await subtle.generateKey(curve, false, ['deriveBits']);
  return { privateKey: pair.privateKey, publicKey: toBase64(await subtle.exportKey('raw', pair.publicKey)) };
}

// agree gives the shared secret: the X coordinate.
export async function agree(privateKey, peer) {
  return new Uint8Array(await subtle.deriveBits({ name: 'ECDH', public: await importPublic(peer) }, privateKey, 256));
}

export async function derive(privateKey, peer, salt, extractable = false) {
  const secret = await subtle.importKey('raw', await agree(privateKey, peer), 'HKDF', false, ['deriveKey']);
  const hkdf = { name: 'HKDF', hash: 'SHA-256', salt: fromBase64(salt), info };
  return subtle.deriveKey(hkdf, secret, { name: 'AES-GCM', length: 256 }, extractable, ['encrypt', 'decrypt']);
}

export async function seal(key, text, iv = webcrypto.getRandomValues(new Uint8Array(12))) {
  const ct = await subtle.encrypt({ name: 'AES-GCM', iv, tagLength: 128 }, key, new TextEncoder().encode(text));
  return { iv: toBase64(iv), ct: toBase64(ct) };
}

export async function open(key, { iv, ct }) {
  const sealed = { name: 'AES-GCM', iv: fromBase64(iv), tagLength: 128 };
  return new TextDecoder('utf-8', { fatal: true }).decode(await subtle.decrypt(sealed, key, fromBase64(ct)));
}
