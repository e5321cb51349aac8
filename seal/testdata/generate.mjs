// Writes vectors.json, deterministically: node generate.mjs > vectors.json

import assert from 'node:assert/strict';
import { createECDH, createHash, webcrypto } from 'node:crypto';
import { agree, derive, fromBase64, importPublic, open, seal, toBase64 } from './client.mjs';

const { subtle } = webcrypto;
const hash = (text) => createHash('sha256').update(text).digest();

// pair returns the key pair for a name.
async function pair(name) {
  const ecdh = createECDH('prime256v1');
  const d = hash(`hearth seal test key: ${name}`);
  ecdh.setPrivateKey(d);
  const point = ecdh.getPublicKey();
  const url = (bytes) => bytes.toString('base64url');
  const jwk = { kty: 'EC', crv: 'P-256', d: url(d), x: url(point.subarray(1, 33)), y: url(point.subarray(33)) };
  const key = await subtle.importKey('jwk', jwk, { name: 'ECDH', namedCurve: 'P-256' }, false, ['deriveBits']);
  return { key, private: toBase64(d), public: toBase64(point), x: point.subarray(1, 33) };
}

// Returns the first of many names for which a rare condition holds.
async function first(stem, condition) {
  for (let i = 0; ; i++) {
    const p = await pair(`${stem} ${i}`);
    if (await condition(p)) return p;
  }
}

const texts = [
  { name: 'empty', text: '' },
  { name: 'an object', text: '{"event":"chat","data":{"text":"hello"}}' },
  { name: 'no data', text: '{"event":"heartbeat"}' },
  { name: 'unicode', text: JSON.stringify({ event: 'chat', data: 'Grüße, 世界, 🦊, e\u0301, \u2028, "\\\n' }) },
  { name: 'numbers', text: '{"event":"n","data":[0,-0,1.0,1e400,12345678901234567890,0.1000]}' },
  { name: 'one byte', text: '1' },
  ...[15, 16, 17, 31, 32, 33, 100, 1024].map((times) => ({ name: `${times} bytes`, text: 'x', times })),
  { name: '64 KiB', text: '0123456789abcdef', times: 4096 },
];

async function exchange(name, client, server) {
  const salt = toBase64(hash(`salt of ${name}`));
  const ofClient = await derive(client.key, server.public, salt, true);
  const ofServer = await derive(server.key, client.public, salt, true);
  const key = toBase64(await subtle.exportKey('raw', ofClient));
  assert.equal(key, toBase64(await subtle.exportKey('raw', ofServer)));
  const messages = [];
  for (const from of ['client', 'server']) {
    for (const { name: what, text, times = 1 } of name === 'plain' ? texts : texts.slice(0, 3)) {
      const iv = new Uint8Array(hash(`iv of ${what} from ${from} in ${name}`).subarray(0, 12));
      const data = await seal(from === 'client' ? ofClient : ofServer, text.repeat(times), iv);
      assert.equal(await open(from === 'client' ? ofServer : ofClient, data), text.repeat(times));
      messages.push({ name: `${what}, from the ${from}`, text, times, data: JSON.stringify(data) });
    }
  }
  const keys = (p) => ({ private: p.private, public: p.public });
  return { name, client: keys(client), server: keys(server), salt, key, messages };
}

// A strict implementation rejects the keys of badPublicKeys. WebCrypto may accept some of them,
// because it may decode them in its own way.
async function badPublicKeys(good) {
  const point = fromBase64(good.public);
  const changed = (change) => {
    const p = Uint8Array.from(point);
    change(p);
    return toBase64(p);
  };
  const p256 = Buffer.from('ffffffff00000001000000000000000000000000ffffffffffffffffffffffff', 'hex');
  const rejected = {
    'not on the curve': changed((p) => (p[64] ^= 1)),
    'the origin': changed((p) => p.fill(0, 1)),
    'a coordinate that is the prime': changed((p) => p.set(p256, 1)),
    'coordinates past the prime': changed((p) => p.fill(0xff, 1)),
    'the point at infinity': 'AA==',
    'the point at infinity, filled up': toBase64(new Uint8Array(65)),
    'one byte less': toBase64(point.subarray(0, 64)),
    'one byte more': toBase64(Uint8Array.of(...point, 0)),
    'without the 4 in front': toBase64(point.subarray(1)),
    'X25519': toBase64(point.subarray(1, 33)),
    'empty': '',
  };
  for (const [name, text] of Object.entries(rejected)) {
    await assert.rejects(importPublic(text), undefined, name);
  }
  const text = good.public;
  const odd = {
    'compressed': toBase64(Uint8Array.of(2 + (point[64] & 1), ...point.subarray(1, 33))),
    'hybrid': changed((p) => (p[0] = 6 + (p[64] & 1))),
    'without padding': text.replaceAll('=', ''),
    'for URLs': text.replaceAll('+', '-').replaceAll('/', '_'),
    'bits left over': text.replace(/.=$/, (end) => String.fromCharCode(end.charCodeAt(0) + 1) + '='),
    'a line end': `${text}\n`,
    'a line end instead of padding': text.replace('=', '\n'),
    'a space in front': ` ${text}`,
    'hexadecimal': Buffer.from(point).toString('hex'),
    'not ASCII': `é${text.slice(2)}`,
    'very long': 'A'.repeat(4096),
  };
  assert.notEqual(odd['for URLs'], text);
  return Object.entries({ ...rejected, ...odd }).map(([name, key]) => ({ name, key }));
}

// badData does not open with the key of the first exchange.
async function badData({ key: raw }) {
  const key = await subtle.importKey('raw', fromBase64(raw), 'AES-GCM', false, ['encrypt', 'decrypt']);
  const good = await seal(key, '{"event":"chats"}!', new Uint8Array(hash('iv of a good one').subarray(0, 12)));
  assert.match(good.ct, /=$/);
  const with_ = (change) => JSON.stringify({ ...good, ...change });
  const flip = (text, i) => {
    const bytes = fromBase64(text);
    bytes[i < 0 ? bytes.length + i : i] ^= 1;
    return toBase64(bytes);
  };
  const forged = {
    'another IV': with_({ iv: flip(good.iv, 0) }),
    'ciphertext changed': with_({ ct: flip(good.ct, 0) }),
    'tag changed': with_({ ct: flip(good.ct, -1) }),
    'cut off': with_({ ct: toBase64(fromBase64(good.ct).subarray(0, -1)) }),
    'a byte more': with_({ ct: toBase64(Uint8Array.of(...fromBase64(good.ct), 0)) }),
    'tag only': with_({ ct: toBase64(fromBase64(good.ct).subarray(-16)) }),
    'zeros': with_({ ct: toBase64(new Uint8Array(34)) }),
  };
  for (const [name, data] of Object.entries(forged)) await assert.rejects(open(key, JSON.parse(data)), undefined, name);
  const bits = good.ct.replace(/(.)(=+)$/, (_, c, pad) => String.fromCharCode(c.charCodeAt(0) + 1) + pad);
  assert.deepEqual(fromBase64(bits), fromBase64(good.ct));
  const malformed = {
    'empty': '',
    'null': 'null',
    'a string': '"x"',
    'an array': '[]',
    'no members': '{}',
    'no iv': JSON.stringify({ ct: good.ct }),
    'no ct': JSON.stringify({ iv: good.iv }),
    'members that are null': '{"iv":null,"ct":null}',
    'members that are numbers': '{"iv":1,"ct":2}',
    'cut off': with_({}).slice(0, -1),
    'something after it': `${with_({})}x`,
    'IV too short': with_({ iv: toBase64(fromBase64(good.iv).subarray(1)) }),
    'IV too long': with_({ iv: toBase64(Uint8Array.of(...fromBase64(good.iv), 0)) }),
    'IV not base64': with_({ iv: '!'.repeat(16) }),
    'IV with a quote': `{"iv":"${good.iv.slice(1)}"","ct":"${good.ct}"}`,
    'IV with a backslash': `{"iv":"${good.iv.slice(1)}\\","ct":"${good.ct}"}`,
    'ct empty': with_({ ct: '' }),
    'shorter than a tag': with_({ ct: toBase64(fromBase64(good.ct).subarray(0, 15)) }),
    'ct not base64': with_({ ct: `*${good.ct.slice(1)}` }),
    'ct without padding': with_({ ct: good.ct.replaceAll('=', '') }),
    'ct with bits left over': with_({ ct: bits }),
    'ct with line ends': with_({ ct: good.ct.replace(/^..../, '$&\r\n\r\n') }),
    'ct with raw line ends': with_({}).replace(good.ct, `${good.ct.slice(0, 4)}\n\n\n\n${good.ct.slice(4)}`),
  };
  return [
    ...Object.entries(malformed).map(([name, data]) => ({ name, data, error: 'malformed' })),
    ...Object.entries(forged).map(([name, data]) => ({ name, data, error: 'forged' })),
  ];
}

const [client, server] = [await pair('client'), await pair('server')];
const zero = (bytes) => bytes[0] === 0;
const exchanges = [
  await exchange('plain', client, server),
  await exchange('the secret begins with a zero byte', client,
    await first('zero secret', async (p) => zero(await agree(client.key, p.public)))),
  await exchange('the client\'s X begins with a zero byte', await first('zero x', (p) => zero(p.x)), server),
];

const vectors = { exchanges, badPublicKeys: await badPublicKeys(client), badData: await badData(exchanges[0]) };
process.stdout.write(`${JSON.stringify(vectors, null, 1)}\n`);
