import { CancelDialog } from './cancel-dialog.js';
import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { ConnectionControls } from './controls.js';
import { createElement, setText } from './dom.js';
import { icon } from './icons.js';
import { RideMap } from './map.js';
import { MessageMenu } from './menu.js';
import { ReceiptTracker } from './receipt-tracker.js';
import { Steps } from './steps.js';

const TITLES = { rider: 'Rider', driver: 'Driver', support: 'Support' };
const STATES = { connecting: 'Connecting', live: 'Live', polling: 'Polling', offline: 'Offline', closed: 'Closed' };
const NO_RIDE = 'No ride yet';

/** The view of a connection: the phone of a rider or driver, or the desk of support. */
export class Phone {
  connection;
  title;
  #receipts;
  #isLocked = false;
  #isShown = true;
  /** The ride that is shown; undefined without a ride; null before the first update. */
  #shownRide = null;
  #parts;
  #onUnread;
  /** The timer that hides the error. */
  #errorTimer;

  /** @param {import('./connection.js').Connection} connection @param {{town: object, rides?: object, onUnread: () => void}} options */
  constructor(connection, { town, rides, onUnread }) {
    this.connection = connection;
    this.title = TITLES[connection.role];
    this.#onUnread = onUnread;
    this.#receipts = new ReceiptTracker(connection, () => this.update());
    const isDesk = connection.role === 'support';
    const api = (call) => () => call(connection.client).catch((error) => this.#showError(error));
    const actions = {
      menu: (message, opener) => menu.open(message, opener),
      react: (id, emoji, on) => api((client) => (on ? client.react(id, emoji) : client.unreact(id, emoji)))(),
      edit: (message) => composer.edit(message),
      remove: (id) => api((client) => client.delete(id))(),
      retry: (id) => connection.conversation.retry(id),
      discard: (id) => connection.conversation.discard(id),
    };
    const menu = new MessageMenu({ me: connection.userId, actions, canDelete: isDesk });
    const chat = new Chat({ me: connection.userId, actions, onEarlier: () => connection.conversation.loadMore(), onScroll: () => this.update() });
    const composer = new Composer({
      label: `Message as ${connection.userId}`,
      onSend: (text) => connection.conversation.send(text),
      onEdit: ({ id }, content) => api((client) => client.edit(id, { content }))(),
      onTyping: (typing) => connection.client.typing(connection.rideId, typing).catch(() => {}),
    });
    const takeStep = (status) => api((client) => client.status(connection.rideId, status))();
    const cancel = new CancelDialog(connection.role, (reason) => api((client) => client.cancel(connection.rideId, reason))());
    this.#parts = {
      cancel,
      chat,
      composer,
      controls: new ConnectionControls(connection),
      map: isDesk ? undefined : new RideMap(town),
      steps: new Steps(connection.role === 'driver' ? takeStep : undefined, cancel.button),
      state: createElement('span', { class: 'state' }),
      names: createElement('p', { class: 'bar__participants' }, NO_RIDE),
      presence: createElement('p', { class: 'bar__presence' }),
      avatar: createElement('span', { class: 'avatar', 'aria-hidden': 'true' }),
      badge: createElement('span', { class: 'badge', hidden: true, dir: 'auto' }),
      locked: createElement('p', { class: 'locked', hidden: true, role: 'status', dir: 'auto' }),
      error: createElement('p', { class: 'phone__error', role: 'alert', hidden: true }),
    };
    this.element = this.#build(isDesk, rides, menu);
    connection.subscribe(() => this.update());
    document.addEventListener('visibilitychange', () => this.update());
  }

  get unread() {
    return this.#receipts.unread;
  }

  /** Whether the panel is shown. On a narrow screen, only one panel is. */
  set isShown(isShown) {
    this.#isShown = isShown;
    this.update();
  }

  /** Whether this is the phone in use, whose new messages screen readers announce. */
  set isActive(isActive) {
    this.#parts.chat.isLive = isActive;
  }

  update() {
    const { connection } = this;
    const { cancel, chat, composer, controls, map, steps, state } = this.#parts;
    controls.update();
    const shown = connection.isOffline ? 'offline' : connection.conversation?.state;
    setText(state, STATES[shown] ?? '');
    state.dataset.state = shown ?? '';
    // The previous ride is removed at once, not when the next ride is loaded, because loading may fail.
    if (connection.rideId !== this.#shownRide) this.#showRide(connection.rideId);
    if (!connection.isReady) return;
    const { ride, participants, location, error } = connection.conversation;
    if (!ride) return this.#fail(error);
    if (error) this.#showError(error);
    const isVisible = this.#isShown && !this.#isLocked && !document.hidden && chat.isAtEnd;
    this.#receipts.update(isVisible);
    this.#count();
    chat.update(connection.conversation, this.unread);
    composer.chat = ride.chat;
    steps.update(ride.status);
    cancel.update(ride.status);
    map?.update(ride.status, location);
    const others = participants.filter(({ userId }) => userId !== connection.userId);
    this.#name(others, others.map(({ userId }) => userId).join(', ') || (ride.driverId ? '' : 'Looking for a driver'));
  }

  /** Shows the other participants. Ids are shown unchanged. */
  #name(others, text) {
    const { avatar, names, presence } = this.#parts;
    setText(names, text);
    setText(avatar, others[0]?.userId.charAt(0) ?? '?');
    setText(presence, others.map(({ userId, online }) => (others.length > 1 ? `${userId} ` : '') + (online ? 'online' : 'offline')).join(' · '));
    presence.classList.toggle('is-online', others.some(({ online }) => online));
  }

  /** Removes everything of the previous ride. */
  #showRide(rideId) {
    const { cancel, chat, composer, map, steps, error } = this.#parts;
    this.#shownRide = rideId;
    this.#receipts.reset(rideId);
    this.#count();
    chat.clear(rideId ? 'Opening…' : NO_RIDE);
    composer.clear();
    steps.update(undefined);
    cancel.update(undefined);
    map?.update(undefined, null);
    this.#name([], rideId ?? NO_RIDE);
    this.element.querySelector('.menu').hidePopover();
    error.hidden = true;
  }

  /** Shows why the ride cannot be loaded. */
  #fail({ code, detail, status }) {
    const reason = status === 404 ? `Ride ${this.connection.rideId} does not exist, or ${this.connection.userId} has no access to it.` : (detail ?? code);
    this.#parts.chat.clear(reason);
  }

  #count() {
    const { locked, badge } = this.#parts;
    const unread = `${this.unread.toLocaleString('en')} unread`;
    badge.hidden = this.unread === 0;
    setText(badge, this.unread > 0 ? unread : '');
    setText(locked, this.unread > 0 ? unread : 'Locked: new messages are delivered, but not read');
    this.#onUnread();
  }

  #showError({ code, detail, status }) {
    const { error } = this.#parts;
    const hint = status === 0 && this.connection.server ? ' Does it allow this site (RIDEWIRE_CORS_ORIGINS)?' : '';
    setText(error, status === 0 && code === 'network' && !hint ? 'The server does not respond' : (detail ?? code) + hint);
    error.hidden = false;
    clearTimeout(this.#errorTimer);
    this.#errorTimer = setTimeout(() => {
      error.hidden = true;
    }, 6_000);
  }

  #build(isDesk, rides, menu) {
    const { connection, title } = this;
    const { avatar, cancel, chat, composer, controls, map, steps, state, names, presence, locked, badge, error } = this.#parts;
    const lock = createElement('button', { class: 'lock', 'aria-pressed': 'false', 'aria-label': 'Lock the phone', title: 'Lock the phone: new messages are delivered, but not read', onclick: () => this.#toggleLock(lock) }, icon('lock'));
    // The ride's actions are placed over its map, where there is a map.
    const ride = map ? createElement('div', { class: 'screen__map' }, map.element, steps.actions) : steps.actions;
    const screen = createElement('div', { class: 'screen' }, steps.element, ride, chat.element, composer.element, error, cancel.sheet);
    return createElement('section', { class: `phone phone--${connection.role}`, id: `panel-${connection.role}`, 'aria-labelledby': `title-${connection.role}` },
      createElement('div', { class: 'phone__head' },
        createElement('h2', { class: 'phone__title', id: `title-${connection.role}` }, title, createElement('span', { class: 'phone__user' }, connection.userId)),
        badge),
      controls.element,
      createElement('div', { class: isDesk ? 'device device--desk' : 'device' },
        rides?.element,
        createElement('div', { class: 'bar' }, avatar, createElement('div', { class: 'bar__names' }, names, presence), state, lock),
        screen, locked, menu.element));
  }

  #toggleLock(lock) {
    this.#isLocked = !this.#isLocked;
    lock.setAttribute('aria-pressed', String(this.#isLocked));
    this.element.querySelector('.screen').hidden = this.#isLocked;
    this.#parts.locked.hidden = !this.#isLocked;
    this.update();
  }
}
