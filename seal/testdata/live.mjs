// A client for one exchange with the test. It sends {publicKey} and receives {publicKey, salt, opened,
// sealed}. It opens the messages in opened, seals those in sealed, and answers with both.

import { createInterface } from 'node:readline';
import { derive, generate, open, seal } from './client.mjs';

const { privateKey, publicKey } = await generate();
process.stdout.write(`${JSON.stringify({ publicKey })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const key = await derive(privateKey, request.publicKey, request.salt);
  const opened = [];
  for (const { event, data } of request.opened) {
    if (event !== 'encrypted') throw new Error(`event ${event}`);
    opened.push(await open(key, data));
  }
  const sealed = [];
  for (const text of request.sealed) sealed.push(await seal(key, text));
  process.stdout.write(`${JSON.stringify({ opened, sealed })}\n`);
}
