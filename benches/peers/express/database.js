// Postgres: a pool for requests, and one connection that listens.
import pg from "pg";

const connectionString = process.env.DATABASE_URL;

const pool = new pg.Pool({ connectionString, max: 16 });

const MESSAGE = `json_build_object(
    'id', id, 'rideId', ride_id, 'seq', seq, 'senderId', sender_id, 'senderRole', sender_role,
    'content', content, 'metadata', metadata, 'clientMessageId', client_message_id, 'createdAt', created_at,
    'editedAt', edited_at, 'deletedAt', deleted_at)::text as message`;

// One round trip, one transaction: the ride's row is locked by its counter, so numbers are in commit order. A repeat
// is looked for first, so that it takes no number; two at the same moment meet in the unique key. A notification has
// room for less than 8,000 bytes: a longer message is read by those who hear of it.
const SEND = `
  with ride as (
    update express.rides set last_seq = last_seq + 1
    where id = $1 and $2 in (rider_id, driver_id)
      and not exists (select from express.messages where ride_id = $1 and sender_id = $2 and client_message_id = $6)
    returning last_seq
  ), new as (
    insert into express.messages (ride_id, seq, sender_id, sender_role, content, metadata, client_message_id)
    select $1, last_seq, $2, $3, $4, $5, $6 from ride
    on conflict (ride_id, sender_id, client_message_id) do nothing
    returning *
  ), told as (
    select ride_id, seq, ${MESSAGE} from new
  )
  select message, pg_notify('messages', ride_id || ' ' || seq || ' ' ||
    case when octet_length(message) < 7000 then message else '' end)
  from told`;

const VIEW = `select seq, ${MESSAGE} from express.messages where ride_id = $1`;

// The names have each connection prepare a statement once.
export async function send(ride, user, role, { content, metadata, clientMessageId }) {
  const values = [ride, user, role, content, metadata ?? null, clientMessageId ?? null];
  const { rows } = await pool.query({ name: "send", text: SEND, values });
  return rows[0]?.message;
}

export async function sentBefore(ride, user, clientMessageId) {
  const text = `${VIEW} and sender_id = $2 and client_message_id = $3`;
  const { rows } = await pool.query({ name: "sent-before", text, values: [ride, user, clientMessageId ?? null] });
  return rows[0]?.message;
}

export async function isOnRide(ride, user) {
  const text = "select from express.rides where id = $1 and $2 in (rider_id, driver_id)";
  const { rowCount } = await pool.query({ name: "is-on-ride", text, values: [ride, user] });
  return rowCount > 0;
}

export async function after(ride, seq) {
  const { rows } = await pool.query({ name: "after", text: `${VIEW} and seq > $2 order by seq`, values: [ride, seq] });
  return rows;
}

async function one(ride, seq) {
  const { rows } = await pool.query({ name: "one", text: `${VIEW} and seq = $2`, values: [ride, seq] });
  return rows[0].message;
}

/** Calls `tell(ride, seq, message)` for each message that is committed, wherever it was sent. */
export async function listen(tell) {
  const client = new pg.Client({ connectionString });
  client.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  // One after the other, also where a long message has to be read.
  let last = Promise.resolve();
  client.on("notification", ({ payload }) => {
    const [ride, seq] = payload.split(" ", 2);
    const message = payload.slice(ride.length + seq.length + 2);
    last = last.then(async () => tell(ride, seq, message || (await one(ride, seq))));
  });
  await client.connect();
  await client.query("listen messages");
}
