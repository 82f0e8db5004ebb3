import { createElement, setText } from './dom.js';
import { Connection } from './connection.js';
import { loadTown } from './map.js';
import { Outage } from './outage.js';
import { Phone } from './phone.js';
import { Platform } from './platform.js';
import { notifyButton } from './push.js';
import { demo, openSession } from './session.js';
import { statusName } from './steps.js';
import { RideList } from './ride-list.js';
import { Tabs, showUnread } from './tabs.js';
import { WireView } from './wire-view.js';
import { Wire } from './wire.js';

/** How often the page asks for the demo's next ride after a ride has ended. */
const NEXT_RIDE_INTERVAL = 3_000;

const stage = document.getElementById('stage');
let connections = [];
let platform;
const outage = new Outage(document.getElementById('outage'), () => connections.some((connection) => connection.isDisconnected) || Boolean(platform?.isDisconnected));
const town = await outage.retry(loadTown);
const session = await outage.retry(() => openSession(stage));
const wire = new Wire();
connections = session.roles.map((role) => new Connection(role, session, wire));
const support = connections.find(({ role }) => role === 'support');
const [rider, driver] = ['rider', 'driver'].map((role) => connections.find((connection) => connection.role === role));
const rides = support && new RideList((rideId) => support.open(rideId));
let tabs;
const phones = connections.map((connection) => new Phone(connection, { town, rides: connection === support ? rides : undefined, onUnread: count }));
const view = new WireView(wire, session.roles);
platform = session.hasPlatform ? new Platform(session, () => outage.check()) : undefined;

const panels = phones.map(({ connection, title, element }) => ({ name: connection.role, title, element }));
if (platform) panels.push({ name: 'platform', title: 'Platform', element: platform.element });
panels.push({ name: 'wire', title: 'Wire', element: view.element });
stage.dataset.columns = panels.length - 1;
stage.replaceChildren(...panels.map(({ element }) => element));
tabs = new Tabs(document.getElementById('tabs'), panels, (name) => {
  for (const phone of phones) phone.isShown = name === undefined || name === phone.connection.role;
  if (name) activate(phones.find(({ connection }) => connection.role === name));
});

/** Makes a phone the active one. Screen readers announce only its messages. */
function activate(phone) {
  for (const each of phones) each.isActive = each === phone;
}
activate(phones[0]);
for (const phone of phones) phone.element.addEventListener('focusin', () => activate(phone));
for (const connection of connections) connection.subscribe(() => connection.isDisconnected && outage.check());

function count() {
  for (const { connection, unread } of phones) tabs?.count(connection.role, unread);
  showUnread(phones.reduce((sum, { unread }) => sum + unread, 0));
}

/** Whether the page opens the demo's next ride when a ride has ended. */
let followsDemo = session.isDemo && !new URLSearchParams(location.search).has('ride');
document.getElementById('actions').append(...notifyButton([rider, driver].filter(Boolean)));
const demoButton = createElement('button', { class: 'button', onclick: () => once(demoButton, openDemoRide) }, 'Demo ride');
const newButton = createElement('button', { class: 'button', onclick: () => once(newButton, newRide) }, 'New ride');
if (session.isDemo) document.getElementById('actions').append(demoButton, newButton);

/** Carries out the action of a button, and disables the button until it has succeeded. */
async function once(button, act) {
  button.disabled = true;
  try {
    await outage.retry(act);
  } finally {
    button.disabled = false;
  }
}

function openAll(rideId, isChosen) {
  followsDemo = !isChosen;
  history.replaceState(null, '', isChosen ? `?ride=${encodeURIComponent(rideId)}` : location.pathname);
  demoButton.hidden = !isChosen;
  // A driver cannot see a ride before it is accepted, so the driver's phone only leaves the previous ride.
  for (const connection of connections) if (connection !== driver || !rider) connection.open(rideId);
  if (rider && driver && driver.rideId !== rideId) driver.leave();
}

async function openDemoRide() {
  openAll((await demo()).ride, false);
}

/** Creates a ride of the same users, which the demo does not drive. */
async function newRide() {
  const { tokens } = await demo();
  const rideId = `ride_${Date.now().toString(36)}`;
  const [riderId, driverId] = ['rider', 'driver'].map(session.user);
  const headers = { authorization: `Bearer ${tokens.service}` };
  await fetch(`/api/v1/rides/${rideId}`, { method: 'PUT', headers, body: JSON.stringify({ riderId, driverId }) });
  openAll(rideId, true);
}

let shown = '';
connections[0].subscribe(() => {
  const { conversation, rideId } = connections[0];
  const status = conversation?.ride?.status;
  const text = `${rideId} · ${status ? statusName(status) : conversation?.error ? 'Not found' : 'Opening'}`;
  if (text === shown) return;
  shown = text;
  setText(document.getElementById('ride'), text);
  if (status) listRides();
  if (driver && driver !== connections[0] && driver.rideId !== rideId && conversation?.ride?.driverId === driver.userId) driver.open(rideId);
  if (['completed', 'cancelled'].includes(status) && followsDemo) awaitNextRide(rideId);
});
support?.subscribe(() => support.rideId !== listed && listRides());

let listed;
function listRides() {
  if (!support) return;
  listed = support.rideId;
  rides.update(support.client, listed);
}

async function awaitNextRide(endedId) {
  while (followsDemo && connections[0].rideId === endedId) {
    await new Promise((resolve) => setTimeout(resolve, NEXT_RIDE_INTERVAL));
    const next = await demo().catch(() => undefined);
    if (next && next.ride !== endedId && followsDemo) openAll(next.ride, false);
  }
}

const chosen = new URLSearchParams(location.search).get('ride');
openAll(chosen ?? session.ride, Boolean(chosen) || !session.isDemo);
