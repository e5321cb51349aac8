// The reference implementation behind the messages of the benchmark (docs/benchmarks.md):
//
//     bun server.mjs REDIS_SOCKET
//
// It listens on a free port of 127.0.0.1 and says "READY 127.0.0.1:port". Logging is off, which favours it.
import * as helpers from '@venizia/ignis-helpers';
import Redis from 'ioredis';

const ROOM = 'ws-default';
const CONGESTED = 256 * 1024; // bytes waiting for a client at which the publisher holds back
const AS_YOU_LIKE = 64; // messages in each turn of the event loop where the order leaves it open

if (helpers.applicationLogger) helpers.applicationLogger.silent = true;

const redis = new helpers.DefaultRedisHelper({
  scope: 'bench',
  identifier: 'bench',
  client: new Redis({ path: process.argv[2], maxRetriesPerRequest: null }),
});

const sockets = new helpers.WebSocketServerHelper({
  identifier: 'bench',
  server: null, // set below: Bun.serve wants the handler, and the handler wants the server
  redisConnection: redis,
  authenticateFn: async () => ({}),
  messageHandler: ({ clientId, message }) => {
    if (message.event === 'e') sockets.sendToClient({ clientId, event: 'e', data: message.data });
    else if (message.event === 'pub') publish(message.data);
  },
});

// Publishes n messages of size bytes to the room: rate of them a second, or, when rate is 0, batch in each turn of the
// event loop for as long as clients keep up.
function publish({ n, size, rate, batch }) {
  const data = { p: 'x'.repeat(size) };
  const sendOne = () => sockets.sendToRoom({ room: ROOM, event: 'm', data });
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
  const all = [...sockets.getClients().values()].map(client => client.socket);
  let sent = 0;
  let next = 0;
  // Asking every socket each time would cost more than the publishing: 16 of them, in turn, are enough.
  const congested = () => {
    for (let i = 0; i < Math.min(16, all.length); i++) {
      next = (next + 1) % all.length;
      if (all[next].getBufferedAmount() > CONGESTED) return true;
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

// Asked for by the idle measure: give back what memory can be given back.
process.on('SIGUSR2', () => Bun.gc(true));

console.log(`READY 127.0.0.1:${sockets.server.port}`);
