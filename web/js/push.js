import { h, say, spoken } from './dom.js';
import { icon } from './icons.js';

const WORKER = '/console/service-worker.js';
const scope = ({ role }) => `/console/${role}/`;

/** Whether this browser has Web Push: it has on https, and on this machine. */
const hasPush = () => 'serviceWorker' in navigator && 'PushManager' in globalThis && 'Notification' in globalThis;

/**
 * A button by which the browser notifies of messages that come while the page is closed, and what hinders it; nothing where it cannot.
 * @param {import('./line.js').Line[]} lines those of people who are on rides
 * @returns {HTMLElement[]}
 */
export function notifyButton(lines) {
  if (!hasPush()) return [];
  const problem = h('p', { role: 'alert', hidden: true });
  const button = h('button', {
    class: 'button button--icon',
    'aria-pressed': 'false',
    title: 'Notify me when this page is closed',
    onclick: () => toggle(),
  }, icon('bell'), h('span', { class: 'button__text' }, 'Notify me', spoken(' when this page is closed')));
  const show = (isOn) => button.setAttribute('aria-pressed', String(isOn));
  const isOn = () => button.getAttribute('aria-pressed') === 'true';

  async function toggle() {
    button.disabled = problem.hidden = true;
    try {
      if (isOn()) for (const line of lines) await unsubscribe(line);
      else await subscribeAll(lines);
      show(!isOn());
    } catch (error) {
      problem.hidden = false;
      say(problem, error.detail ?? error.message);
    } finally {
      button.disabled = false;
    }
  }

  for (const line of lines) whenOpen(line, () => resume(line).then((isSubscribed) => isSubscribed && show(true), () => {}));
  return [button, problem];
}

async function subscribeAll(lines) {
  if ((await Notification.requestPermission()) !== 'granted') throw new Error('The browser blocks notifications of this site');
  for (const line of lines) await subscribe(line);
}

async function subscribe(line) {
  const registration = await navigator.serviceWorker.register(WORKER, { scope: scope(line) });
  await active(registration);
  const options = { userVisibleOnly: true, applicationServerKey: await line.client.pushKey() };
  // One that was made with another server's key cannot be used.
  const subscription = await registration.pushManager.subscribe(options).catch(async (error) => {
    if (error.name !== 'InvalidStateError') throw error;
    await (await registration.pushManager.getSubscription())?.unsubscribe();
    return registration.pushManager.subscribe(options);
  });
  await line.client.subscribePush(subscription);
}

async function unsubscribe(line) {
  const subscription = await known(line);
  if (!subscription) return;
  await line.client.unsubscribePush(subscription.endpoint);
  await subscription.unsubscribe();
}

/** Registers a subscription of an earlier visit again, and clears what was notified: the page shows it now. */
async function resume(line) {
  const subscription = Notification.permission === 'granted' && (await known(line));
  if (!subscription) return false;
  await line.client.subscribePush(subscription);
  const registration = await navigator.serviceWorker.getRegistration(scope(line));
  for (const notification of await registration.getNotifications()) notification.close();
  return true;
}

/** The subscription that there is. */
async function known(line) {
  const registration = await navigator.serviceWorker.getRegistration(scope(line));
  return registration?.pushManager.getSubscription();
}

/** Waits until the worker of a registration can be sent pushes. The page is in no worker's scope, so there is no `ready`. */
async function active(registration) {
  const worker = registration.installing ?? registration.waiting;
  if (registration.active || !worker) return;
  await new Promise((resolve) => {
    worker.addEventListener('statechange', () => ['activated', 'redundant'].includes(worker.state) && resolve());
  });
}

/** Calls once when a line has its client. */
function whenOpen(line, call) {
  let isCalled = false;
  line.subscribe(() => {
    if (isCalled || !line.client) return;
    isCalled = true;
    call();
  });
}
