// What a team would write in an afternoon, well: messages of rides on Express, Postgres and better-sse. It has the
// benchmark's part of Ridewire's interface: sending, idempotent by clientMessageId, and a ride's stream, which a
// client resumes by its Last-Event-ID. Every replica would hear every message by LISTEN.
import { createChannel, createSession } from "better-sse";
import express from "express";
import jwt from "jsonwebtoken";
import { after, isOnRide, listen, send, sentBefore } from "./database.js";

const secret = process.env.RIDEWIRE_JWT_SECRET;

// A message is encoded once, in Postgres; a session writes it as it is.
const SESSION = { serializer: (message) => message, keepAlive: 15_000 };

/** A better-sse channel for each ride that somebody follows. */
const channels = new Map();

function channelOf(ride) {
  let channel = channels.get(ride);
  if (!channel) {
    channel = createChannel();
    channel.on("session-deregistered", () => channel.sessionCount === 0 && channels.delete(ride));
    channels.set(ride, channel);
  }
  return channel;
}

await listen((ride, seq, message) => {
  const filter = ({ state }) => {
    // Who is still being told what was missed gets it after that.
    state.pending?.push({ seq, message });
    return !state.pending;
  };
  channels.get(ride)?.broadcast(message, "message:new", { eventId: seq, filter });
});

function authenticate(req, res, next) {
  try {
    const token = req.headers.authorization?.replace(/^Bearer /, "");
    const { sub, role } = jwt.verify(token, secret, { algorithms: ["HS256"] });
    req.user = sub;
    req.role = role;
  } catch {
    return res.status(401).json({ code: "unauthorized" });
  }
  next();
}

const app = express();
app.disable("x-powered-by");
app.set("etag", false);
app.use(authenticate);

app.post("/api/v1/messages", express.json({ limit: "64kb" }), async (req, res) => {
  const { rideId, content, clientMessageId } = req.body;
  if (typeof rideId !== "string" || typeof content !== "string" || content.trim() === "" || content.length > 4_000) {
    return res.status(400).json({ code: "invalid" });
  }
  const message = await send(rideId, req.user, req.role, req.body);
  if (message) return res.status(201).type("json").send(message);
  const before = await sentBefore(rideId, req.user, clientMessageId);
  if (before) return res.status(200).type("json").send(before);
  res.status(404).json({ code: "ride_not_found" });
});

app.get("/api/v1/messages/rides/:ride/events", async (req, res) => {
  const { ride } = req.params;
  if (!(await isOnRide(ride, req.user))) return res.status(404).json({ code: "ride_not_found" });
  const session = await createSession(req, res, SESSION);
  // Registered before the log is read, so nothing falls between the two.
  const resumes = /^\d{1,18}$/.test(session.lastId);
  session.state.pending = resumes ? [] : null;
  channelOf(ride).register(session);
  if (!resumes) return;
  let seq = BigInt(session.lastId);
  const missed = await after(ride, session.lastId);
  for (const one of [...missed, ...session.state.pending]) {
    if (session.isConnected && BigInt(one.seq) > seq) {
      session.push(one.message, "message:new", one.seq);
      seq = BigInt(one.seq);
    }
  }
  session.state.pending = null;
});

const server = app.listen({ host: "127.0.0.1", port: 0, backlog: 4_096 }, () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
// Clients keep their connections as long as the run lasts.
server.keepAliveTimeout = 600_000;
process.on("SIGTERM", () => process.exit(0));
