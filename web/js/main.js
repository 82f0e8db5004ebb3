import { h, say } from './dom.js';
import { Line } from './line.js';
import { loadTown } from './map.js';
import { Outage } from './outage.js';
import { Phone } from './phone.js';
import { Platform } from './platform.js';
import { notifyButton } from './push.js';
import { demo, openSession } from './session.js';
import { statusName } from './steps.js';
import { Rides } from './support.js';
import { Tabs, sayUnread } from './tabs.js';
import { WireView } from './wire-view.js';
import { Wire } from './wire.js';

/** How often it is asked whether the next ride is being driven, once one is over. */
const NEXT_RIDE = 3_000;

const stage = document.getElementById('stage');
let lines = [];
let platform;
const outage = new Outage(document.getElementById('outage'), () => lines.some((line) => line.isInTrouble) || Boolean(platform?.isInTrouble));
const town = await outage.persist(loadTown);
const session = await outage.persist(() => openSession(stage));
const wire = new Wire();
lines = session.roles.map((role) => new Line(role, session, wire));
const support = lines.find(({ role }) => role === 'support');
const [rider, driver] = ['rider', 'driver'].map((role) => lines.find((line) => line.role === role));
const rides = support && new Rides((rideId) => support.open(rideId));
let tabs;
const phones = lines.map((line) => new Phone(line, { town, rides: line === support ? rides : undefined, onUnread: count }));
const view = new WireView(wire, session.roles);
platform = session.hasPlatform ? new Platform(session, () => outage.suspect()) : undefined;

const panels = phones.map(({ line, title, element }) => ({ name: line.role, title, element }));
if (platform) panels.push({ name: 'platform', title: 'Platform', element: platform.element });
panels.push({ name: 'wire', title: 'Wire', element: view.element });
stage.dataset.columns = panels.length - 1;
stage.replaceChildren(...panels.map(({ element }) => element));
tabs = new Tabs(document.getElementById('tabs'), panels, (name) => {
  for (const phone of phones) phone.isShown = name === undefined || name === phone.line.role;
  if (name) hold(phones.find(({ line }) => line.role === name));
});

/** The phone in hand is the one that screen readers hear. */
function hold(phone) {
  for (const each of phones) each.isInHand = each === phone;
}
hold(phones[0]);
for (const phone of phones) phone.element.addEventListener('focusin', () => hold(phone));
for (const line of lines) line.subscribe(() => line.isInTrouble && outage.suspect());

function count() {
  for (const { line, unread } of phones) tabs?.count(line.role, unread);
  sayUnread(phones.reduce((sum, { unread }) => sum + unread, 0));
}

/** Whether the page goes from one driven ride to the next. */
let follows = session.isDemo && !new URLSearchParams(location.search).has('ride');
document.getElementById('actions').append(...notifyButton([rider, driver].filter(Boolean)));
const driven = h('button', { class: 'button', onclick: () => once(driven, followDriven) }, 'Driven ride');
const fresh = h('button', { class: 'button', onclick: () => once(fresh, newRide) }, 'New ride');
if (session.isDemo) document.getElementById('actions').append(driven, fresh);

/** Does what a button is for, until it is done, and not twice at a time. */
async function once(button, act) {
  button.disabled = true;
  try {
    await outage.persist(act);
  } finally {
    button.disabled = false;
  }
}

function openAll(rideId, isChosen) {
  follows = !isChosen;
  history.replaceState(null, '', isChosen ? `?ride=${encodeURIComponent(rideId)}` : location.pathname);
  driven.hidden = !isChosen;
  // Until a ride is accepted, it is not there for its driver, who leaves the one before.
  for (const line of lines) if (line !== driver || !rider) line.open(rideId);
  if (rider && driver && driver.rideId !== rideId) driver.leave();
}

async function followDriven() {
  openAll((await demo()).ride, false);
}

/** A ride of the same two people that nobody else moves. */
async function newRide() {
  const { tokens } = await demo();
  const rideId = `ride_${Date.now().toString(36)}`;
  const [riderId, driverId] = ['rider', 'driver'].map(session.user);
  const headers = { authorization: `Bearer ${tokens.service}` };
  await fetch(`/api/v1/rides/${rideId}`, { method: 'PUT', headers, body: JSON.stringify({ riderId, driverId }) });
  openAll(rideId, true);
}

let shown = '';
lines[0].subscribe(() => {
  const { conversation, rideId } = lines[0];
  const status = conversation?.ride?.status;
  const text = `${rideId} · ${status ? statusName(status) : conversation?.error ? 'Not found' : 'Opening'}`;
  if (text === shown) return;
  shown = text;
  say(document.getElementById('ride'), text);
  if (status) listRides();
  if (driver && driver !== lines[0] && driver.rideId !== rideId && conversation?.ride?.driverId === driver.userId) driver.open(rideId);
  if (['completed', 'cancelled'].includes(status) && follows) awaitNext(rideId);
});
support?.subscribe(() => support.rideId !== listed && listRides());

let listed;
function listRides() {
  if (!support) return;
  listed = support.rideId;
  rides.update(support.client, listed);
}

async function awaitNext(over) {
  while (follows && lines[0].rideId === over) {
    await new Promise((resolve) => setTimeout(resolve, NEXT_RIDE));
    const next = await demo().catch(() => undefined);
    if (next && next.ride !== over && follows) openAll(next.ride, false);
  }
}

const chosen = new URLSearchParams(location.search).get('ride');
openAll(chosen ?? session.ride, Boolean(chosen) || !session.isDemo);
