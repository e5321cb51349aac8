// The reference implementation behind the messages of the benchmark (docs/benchmarks.md):
//
//     bun server.mjs REDIS_PORT [sealed]
//
// It listens on a free port of 127.0.0.1 and prints "READY 127.0.0.1:port". Logging is off, which
// favours it. With sealed, clients that send a public key are encrypted, as its documentation shows
// it.
import * as helpers from '@venizia/ignis-helpers';
import Redis from 'ioredis';

const ROOM = 'ws-default';
const CONGESTED = 256 * 1024; // bytes waiting for a client at which the publisher pauses
const AS_YOU_LIKE = 64; // messages per turn of the event loop if the order does not say
// Messages of one fan-out that are encrypted at the same time. With the default, 10, each costs
// half as much again.
const SEALED_AT_ONCE = 1000;

if (helpers.applicationLogger) helpers.applicationLogger.silent = true;

const redis = new helpers.DefaultRedisHelper({
  scope: 'bench',
  identifier: 'bench',
  client: new Redis({ host: '127.0.0.1', port: Number(process.argv[2]), maxRetriesPerRequest: null }),
});

let sealed = 0; // messages that were encrypted, one for each client

const sockets = new helpers.WebSocketServerHelper({
  identifier: 'bench',
  server: null, // set below: Bun.serve needs the handler, and the handler needs the server
  redisConnection: redis,
  authenticateFn: async () => ({}),
  validateRoomFn: ({ rooms }) => rooms,
  messageHandler: ({ clientId, message }) => {
    if (message.event === 'e') sockets.sendToClient({ clientId, event: 'e', data: message.data });
    else if (message.event === 'say') sockets.sendToRoom({ room: ROOM, event: 'm', data: message.data });
    else if (message.event === 'room') sendToRoom(clientId, message.data);
    else if (message.event === 'pub') publish(message.data);
  },
  ...(process.argv[3] === 'sealed' ? await encryption() : {}),
});

// Encryption as documented, with two exceptions. `connected` is not encrypted: it has the salt that
// clients need for decryption. And a client without a key is not closed: the transformer does not
// change its messages.
async function encryption() {
  const ecdh = helpers.ECDH.withAlgorithm();
  const serverKeyPair = await ecdh.generateKeyPair();
  const clientKeys = new Map();
  return {
    requireEncryption: true,
    encryptedBatchLimit: SEALED_AT_ONCE,
    handshakeFn: async ({ clientId, data }) => {
      if (!data.publicKey) return {};
      const peerPublicKey = await ecdh.importPublicKey({ rawKeyB64: data.publicKey });
      const saltB64 = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64');
      const { key } = await ecdh.deriveAESKey({
        privateKey: serverKeyPair.keyPair.privateKey,
        peerPublicKey,
        salt: saltB64,
      });
      clientKeys.set(clientId, key);
      return { serverPublicKey: serverKeyPair.publicKeyB64, salt: saltB64 };
    },
    outboundTransformer: async ({ client, event, data }) => {
      if (!client.encrypted || event === 'connected') return null;
      const key = clientKeys.get(client.id);
      if (!key) return null;
      const encrypted = await ecdh.encrypt({ message: JSON.stringify({ event, data }), secret: key });
      sealed++;
      return { event: 'encrypted', data: encrypted };
    },
  };
}

// Sends data to the room that it names, and tells the client.
function sendToRoom(clientId, data) {
  sockets.sendToRoom({ room: data.room, event: 'm', data });
  sockets.sendToClient({ clientId, event: 'sent', data });
}

// Publishes n messages of size bytes to the room: rate of them a second, or, when rate is 0, batch
// in each turn of the event loop for as long as clients keep up.
function publish({ n, size, rate, batch, numbered }) {
  let number = 0;
  const filling = 'x'.repeat(size);
  const next = () => ({ p: numbered ? String(number++).padStart(size, '0') : filling });
  const sendOne = () => sockets.sendToRoom({ room: ROOM, event: 'm', data: next() });
  return rate > 0 ? publishPaced(n, rate, sendOne) : publishSaturated(n, batch || AS_YOU_LIKE, sendOne);
}

function publishPaced(n, rate, sendOne) {
  const start = performance.now();
  let sent = 0;
  const tick = () => {
    const due = Math.min(n, Math.floor(((performance.now() - start) * rate) / 1000) + 1);
    for (; sent < due; sent++) sendOne();
    if (sent < n) setTimeout(tick, Math.max(0, start + (sent * 1000) / rate - performance.now()));
  };
  tick();
}

function publishSaturated(n, batch, sendOne) {
  const all = [...sockets.getClients().values()];
  const encrypted = process.argv[3] === 'sealed' ? all.filter(client => client.encrypted).length : 0;
  const already = sealed;
  let sent = 0;
  let next = 0;
  // Asking every socket each time would cost more than the publishing: 16 of them, in turn, are
  // enough. Messages that wait for encryption are in no socket yet: one batch of them may wait.
  const congested = () => {
    if (encrypted && sent * encrypted - (sealed - already) >= batch * encrypted) return true;
    for (let i = 0; i < Math.min(16, all.length); i++) {
      next = (next + 1) % all.length;
      if (all[next].socket.getBufferedAmount() > CONGESTED) return true;
    }
    return false;
  };
  const step = () => {
    if (congested()) return setTimeout(step, 1);
    for (let i = 0; i < batch && sent < n; i++, sent++) sendOne();
    if (sent < n) setImmediate(step);
  };
  step();
}

await sockets.configure();
sockets.server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch(request, server) {
    if (new URL(request.url).pathname === '/ws' && server.upgrade(request, { data: { clientId: crypto.randomUUID() } })) return;
    return new Response('not a WebSocket', { status: 400 });
  },
  websocket: sockets.getBunWebSocketHandler(),
});

// The idle measure requests this: release memory.
process.on('SIGUSR2', () => Bun.gc(true));

console.log(`READY 127.0.0.1:${sockets.server.port}`);
