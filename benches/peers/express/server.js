// A typical messaging server on Express, Postgres and better-sse. It implements the part of Ridewire's API that the benchmark
// uses: idempotent sends by clientMessageId, and a ride's stream, which a client resumes with Last-Event-ID. Every replica would
// receive every message over LISTEN.
import { createChannel, createSession } from "better-sse";
import express from "express";
import jwt from "jsonwebtoken";
import { after, isOnRide, listen, send, sentBefore } from "./database.js";

const secret = process.env.RIDEWIRE_JWT_SECRET;

// Postgres encodes a message once. A session writes it unchanged.
const SESSION = { serializer: (message) => message, keepAlive: 15_000 };

/** A better-sse channel for each ride with open streams. */
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
    // A session that is still replaying gets this message afterwards.
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
  const duplicate = await sentBefore(rideId, req.user, clientMessageId);
  if (duplicate) return res.status(200).type("json").send(duplicate);
  res.status(404).json({ code: "ride_not_found" });
});

app.get("/api/v1/messages/rides/:ride/events", async (req, res) => {
  const { ride } = req.params;
  if (!(await isOnRide(ride, req.user))) return res.status(404).json({ code: "ride_not_found" });
  const session = await createSession(req, res, SESSION);
  // Register before reading the log, so that no message is missed in between.
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
// Clients keep their connections open during the whole run.
server.keepAliveTimeout = 600_000;
process.on("SIGTERM", () => process.exit(0));
