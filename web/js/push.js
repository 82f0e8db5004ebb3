import { createElement, screenReaderText, setText } from './dom.js';
import { icon } from './icons.js';

const WORKER = '/console/service-worker.js';
const scope = ({ role }) => `/console/${role}/`;

/** Returns whether the browser supports Web Push here: only on https and on localhost. */
const hasPush = () => 'serviceWorker' in navigator && 'PushManager' in globalThis && 'Notification' in globalThis;

/**
 * Creates the button that turns on notifications of messages while the page is closed, and the element for its errors. Returns an
 * empty list where the browser has no Web Push.
 * @param {import('./connection.js').Connection[]} connections the connections of riders and drivers
 * @returns {HTMLElement[]}
 */
export function notifyButton(connections) {
  if (!hasPush()) return [];
  const problem = createElement('p', { role: 'alert', hidden: true });
  const button = createElement('button', {
    class: 'button button--icon',
    'aria-pressed': 'false',
    title: 'Notify me when this page is closed',
    onclick: () => toggle(),
  }, icon('bell'), createElement('span', { class: 'button__text' }, 'Notify me', screenReaderText(' when this page is closed')));
  const show = (isOn) => button.setAttribute('aria-pressed', String(isOn));
  const isOn = () => button.getAttribute('aria-pressed') === 'true';

  async function toggle() {
    button.disabled = problem.hidden = true;
    try {
      if (isOn()) for (const connection of connections) await unsubscribe(connection);
      else await subscribeAll(connections);
      show(!isOn());
    } catch (error) {
      problem.hidden = false;
      setText(problem, error.detail ?? error.message);
    } finally {
      button.disabled = false;
    }
  }

  for (const connection of connections) whenOpen(connection, () => resume(connection).then((isSubscribed) => isSubscribed && show(true), () => {}));
  return [button, problem];
}

async function subscribeAll(connections) {
  if ((await Notification.requestPermission()) !== 'granted') throw new Error('The browser blocks notifications of this site');
  for (const connection of connections) await subscribe(connection);
}

async function subscribe(connection) {
  const registration = await navigator.serviceWorker.register(WORKER, { scope: scope(connection) });
  await active(registration);
  const options = { userVisibleOnly: true, applicationServerKey: await connection.client.pushKey() };
  // A subscription with another server's key cannot be used, so it is replaced.
  const subscription = await registration.pushManager.subscribe(options).catch(async (error) => {
    if (error.name !== 'InvalidStateError') throw error;
    await (await registration.pushManager.getSubscription())?.unsubscribe();
    return registration.pushManager.subscribe(options);
  });
  await connection.client.subscribePush(subscription);
}

async function unsubscribe(connection) {
  const subscription = await existing(connection);
  if (!subscription) return;
  await connection.client.unsubscribePush(subscription.endpoint);
  await subscription.unsubscribe();
}

/** Registers a subscription of an earlier visit again, and closes its notifications, because the page shows the messages now. */
async function resume(connection) {
  const subscription = Notification.permission === 'granted' && (await existing(connection));
  if (!subscription) return false;
  await connection.client.subscribePush(subscription);
  const registration = await navigator.serviceWorker.getRegistration(scope(connection));
  for (const notification of await registration.getNotifications()) notification.close();
  return true;
}

/** Returns the existing subscription, if any. */
async function existing(connection) {
  const registration = await navigator.serviceWorker.getRegistration(scope(connection));
  return registration?.pushManager.getSubscription();
}

/** Waits until the service worker of a registration is active. The page is outside of its scope, so `ready` cannot be used. */
async function active(registration) {
  const worker = registration.installing ?? registration.waiting;
  if (registration.active || !worker) return;
  await new Promise((resolve) => {
    worker.addEventListener('statechange', () => ['activated', 'redundant'].includes(worker.state) && resolve());
  });
}

/** Calls a function once, when a connection has a client. */
function whenOpen(connection, call) {
  let isCalled = false;
  connection.subscribe(() => {
    if (isCalled || !connection.client) return;
    isCalled = true;
    call();
  });
}
