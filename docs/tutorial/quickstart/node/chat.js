// Follows a ride with the JavaScript client, prints its messages, marks them as read, and sends each line of its input.
//
//   SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… node chat.js
//
// Exits with 0 when the ride is closed or the user was removed, and with 1 when the server rejects the token or the ride.
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { connect } from '../../../../clients/js/src/index.js'; // `ridewire`, if it is installed

const { SERVER = 'http://127.0.0.1:8080', RIDE, TOKEN } = process.env;

// Returns your login's token. The client calls it when it has no valid token. The same token twice is rejected twice.
const client = connect({ baseUrl: SERVER, token: () => TOKEN });

// The subscription resumes, reconnects and falls back to polls by itself; 0 is the beginning of the ride.
const ride = client.ride(RIDE, { after: 0, types: ['message:*'] });
ride.on('message:new', ({ data: { id, seq, senderId, content } }) => {
  console.log(`${seq} ${senderId}: ${content}`);
  mark(id);
});
ride.on('gap', ({ from, to }) => console.error(`no longer kept: ${from} to ${to}`));
ride.on('error', ({ status }) => console.error(status === 401 ? 'sign in again' : 'not a ride of yours'));
ride.on('closed', ({ reason }) => {
  if (reason !== 'error') console.error(`the end: ${reason}`);
  process.exit(reason === 'error' ? 1 : 0);
});

// Marking a message as read includes all earlier ones, so only the newest is sent.
let unmarked;
let isMarking = false;
async function mark(id) {
  unmarked = id;
  if (isMarking) return;
  isMarking = true;
  while (unmarked !== undefined) {
    const newest = unmarked;
    try {
      await client.read(newest);
      if (unmarked === newest) unmarked = undefined;
    } catch (error) {
      if (!error.isTransient) break;
      await sleep(1_000 + Math.random() * 500);
    }
  }
  isMarking = false;
}

// `send` retries with one `clientMessageId` until there is a response. All attempts create one message.
for await (const line of createInterface({ input: process.stdin })) {
  await client.send(RIDE, line, { timeout: Infinity }).catch((error) => console.error(`not accepted: ${error.message}`));
}
