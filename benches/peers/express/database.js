// Postgres access: a pool for requests, and one connection for LISTEN.
import pg from "pg";

const connectionString = process.env.DATABASE_URL;

const pool = new pg.Pool({ connectionString, max: 16 });

const MESSAGE = `json_build_object(
    'id', id, 'rideId', ride_id, 'seq', seq, 'senderId', sender_id, 'senderRole', sender_role,
    'content', content, 'metadata', metadata, 'clientMessageId', client_message_id, 'createdAt', created_at,
    'editedAt', edited_at, 'deletedAt', deleted_at)::text as message`;

// One round trip, one transaction. The update of the counter locks the ride's row, so seqs are in commit order. Duplicates are
// checked first, so that they take no seq; concurrent ones conflict in the unique index. A notification holds less than
// 8,000 bytes: a listener loads a longer message from the table.
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
  ), notified as (
    select ride_id, seq, ${MESSAGE} from new
  )
  select message, pg_notify('messages', ride_id || ' ' || seq || ' ' ||
    case when octet_length(message) < 7000 then message else '' end)
  from notified`;

const VIEW = `select seq, ${MESSAGE} from express.messages where ride_id = $1`;

// With a name, each connection prepares the statement once.
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

/** Calls `onMessage(ride, seq, message)` for each committed message of any replica. */
export async function listen(onMessage) {
  const client = new pg.Client({ connectionString });
  client.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  // In order, also if a long message has to be loaded.
  let last = Promise.resolve();
  client.on("notification", ({ payload }) => {
    const [ride, seq] = payload.split(" ", 2);
    const message = payload.slice(ride.length + seq.length + 2);
    last = last.then(async () => onMessage(ride, seq, message || (await one(ride, seq))));
  });
  await client.connect();
  await client.query("listen messages");
}
