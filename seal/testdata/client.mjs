// The client's side of the encryption, with nothing but what browsers have; node, 20 or later, has the same.

const { subtle } = crypto; // undefined on pages that are neither from https nor from localhost
const curve = { name: 'ECDH', namedCurve: 'P-256' };
const info = new TextEncoder().encode('ignis-ecdh-p256-aes-256-gcm-v1');

// btoa and atob know characters only: one for each byte.
export const toBase64 = (bytes) => btoa(Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join(''));
export const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

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

export async function seal(key, text, iv = crypto.getRandomValues(new Uint8Array(12))) {
  const ct = await subtle.encrypt({ name: 'AES-GCM', iv, tagLength: 128 }, key, new TextEncoder().encode(text));
  return { iv: toBase64(iv), ct: toBase64(ct) };
}

export async function open(key, { iv, ct }) {
  const sealed = { name: 'AES-GCM', iv: fromBase64(iv), tagLength: 128 };
  return new TextDecoder('utf-8', { fatal: true }).decode(await subtle.decrypt(sealed, key, fromBase64(ct)));
}
