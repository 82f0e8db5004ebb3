/**
 * Shows notifications of messages while the console is closed (Web Push). Each phone has its own registration, whose scope contains
 * the phone's role. So each phone's user has a separate subscription.
 */
const [phone] = registration.scope.split('/').slice(-2);
const title = phone.charAt(0).toUpperCase() + phone.slice(1);

addEventListener('push', (event) => event.waitUntil(notify(event.data)));
addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data.rideId));
});

/** Shows a notification for every push, even an unreadable one. Otherwise the browser revokes the permission. */
async function notify(data) {
  const { rideId, unreadCount } = read(data);
  const body = unreadCount > 1 ? `${unreadCount} unread messages` : 'A new message';
  // A later push about the same ride replaces this one.
  await registration.showNotification(title, { body, tag: rideId, renotify: Boolean(rideId), icon: '/console/icon.svg', data: { rideId } });
}

function read(data) {
  try {
    return data.json();
  } catch {
    return {};
  }
}

/** Focuses an open page, or opens a new page with the ride. */
async function open(rideId) {
  const windows = await clients.matchAll({ type: 'window', includeUncontrolled: true });
  const page = windows.find(({ url }) => new URL(url).pathname === '/');
  if (page) await page.focus();
  else await clients.openWindow(rideId ? `/?ride=${encodeURIComponent(rideId)}` : '/');
}
