// The reference beside Hearth: a server and an emitter of the published implementation.
//
//     bun reference.mjs REDIS_PORT
//
// It takes commands from standard input, one JSON object a line, {"do":…,"with":…}, and answers each on standard output
// with a line that begins with "@". Everything else there is its log.
import * as helpers from '@venizia/ignis-helpers';
import Redis from 'ioredis';
import { createInterface } from 'node:readline';

const redis = new helpers.DefaultRedisHelper({
  scope: 'interop',
  identifier: 'interop',
  client: new Redis({ host: '127.0.0.1', port: Number(process.argv[2]), maxRetriesPerRequest: null }),
});
const sockets = new helpers.WebSocketServerHelper({
  identifier: 'interop',
  server: null, // set below: Bun.serve wants the handler, and the handler wants the server
  redisConnection: redis,
  authenticateFn: async ({ name }) => ({ userId: name }),
  validateRoomFn: ({ rooms }) => rooms,
  // What a client asks for when it wants to know that its join is done.
  messageHandler: ({ clientId, message }) => sockets.sendToClient({ clientId, event: message.event, data: message.data }),
});
const emitter = new helpers.WebSocketEmitter({ identifier: 'interop-emitter', redisConnection: redis });
await sockets.configure();
await emitter.configure();
sockets.server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch(request, server) {
    if (server.upgrade(request, { data: { clientId: crypto.randomUUID() } })) return;
    return new Response('not a WebSocket', { status: 400 });
  },
  websocket: sockets.getBunWebSocketHandler(),
});

const commands = {
  send: opts => sockets.send(opts),
  toClient: opts => emitter.toClient(opts),
  toUser: opts => emitter.toUser(opts),
  toRoom: opts => emitter.toRoom(opts),
  broadcast: opts => emitter.broadcast(opts),
  clients: () => sockets.getClients().size,
};

const answer = value => process.stdout.write('\n@' + JSON.stringify(value) + '\n');
answer({ port: sockets.server.port });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  answer({ done: (await commands[command.do](command.with)) ?? null });
}
await emitter.shutdown();
await sockets.shutdown();
process.exit(0);
