import { HearthError } from "./errors.js";
import type { Cipher, Encryption, Handshake } from "./types.js";

const info = "ignis-ecdh-p256-aes-256-gcm-v1";
const curve = { name: "ECDH", namedCurve: "P-256" };

function toBase64(bytes: Uint8Array): string {
  let text = "";
  // In parts, because a call has a limited number of arguments.
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

const fromBase64 = (text: string) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/**
 * Encrypts the messages of a client in both directions, with WebCrypto: ECDH on P-256, HKDF with
 * SHA-256, AES-256-GCM, and a new key for each connection. docs/security.md says what this
 * protects. Browsers have WebCrypto only on pages of https and localhost; elsewhere the client
 * gives up.
 *
 * ```ts
 * new Client({ url, encryption: encryption() })
 * ```
 */
export function encryption(): Encryption {
  return { begin };
}

async function begin(): Promise<Handshake> {
  if (!globalThis.crypto?.subtle) throw new HearthError("stop", "there is no WebCrypto: it needs a page of https or localhost");
  const keys = (await crypto.subtle.generateKey(curve, false, ["deriveBits"])) as CryptoKeyPair;
  return {
    publicKey: toBase64(new Uint8Array(await crypto.subtle.exportKey("raw", keys.publicKey))),
    async agree(serverPublicKey, salt) {
      const theirs = await crypto.subtle.importKey("raw", fromBase64(serverPublicKey), curve, false, []);
      const secret = await crypto.subtle.deriveBits({ name: "ECDH", public: theirs }, keys.privateKey, 256);
      const material = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveKey"]);
      const hkdf = { name: "HKDF", hash: "SHA-256", salt: fromBase64(salt), info: new TextEncoder().encode(info) };
      return cipher(await crypto.subtle.deriveKey(hkdf, material, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]));
    },
  };
}

function cipher(key: CryptoKey): Cipher {
  return {
    async seal(text) {
      const iv = crypto.getRandomValues(new Uint8Array(12));
      const ct = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, new TextEncoder().encode(text));
      return { iv: toBase64(iv), ct: toBase64(new Uint8Array(ct)) };
    },
    async open(data) {
      const { iv, ct } = data as { iv: string; ct: string };
      const text = await crypto.subtle.decrypt({ name: "AES-GCM", iv: fromBase64(iv) }, key, fromBase64(ct));
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text);
    },
  };
}
