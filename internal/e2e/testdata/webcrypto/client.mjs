// A client as it would be in a browser, with nothing but WebCrypto. Each line that it reads is a message that its socket
// got, each line that it writes is one to send. It authenticates, says `hello` encrypted, and then answers each `ask` by `answer`.

import { createInterface } from 'node:readline';
import { derive, generate, open, seal } from '../../../../seal/testdata/client.mjs';

delete globalThis.Buffer; // browsers have none

const send = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

const { privateKey, publicKey } = await generate();
send({ event: 'authenticate', data: { as: 'browser', publicKey } });
let key; // once `connected` has come
const sendSealed = async (message) => send({ event: 'encrypted', data: await seal(key, JSON.stringify(message)) });

for await (const line of createInterface({ input: process.stdin })) {
  const { event, data } = JSON.parse(line);
  if (event === 'connected') {
    key = await derive(privateKey, data.serverPublicKey, data.salt);
    await sendSealed({ event: 'hello', data: data.id });
    continue;
  }
  if (event !== 'encrypted') throw new Error(`unencrypted ${event}`);
  const inner = JSON.parse(await open(key, data));
  if (inner.event === 'ask') await sendSealed({ event: 'answer', data: inner.data });
}
