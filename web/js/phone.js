import { Cancel } from './cancel.js';
import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { Controls } from './controls.js';
import { h, say } from './dom.js';
import { icon } from './icons.js';
import { RideMap } from './map.js';
import { MessageMenu } from './menu.js';
import { Reading } from './reading.js';
import { Steps } from './steps.js';

const TITLES = { rider: 'Rider', driver: 'Driver', support: 'Support' };
const STATES = { connecting: 'Connecting', live: 'Live', polling: 'Polling', offline: 'Offline', closed: 'Closed' };
const NO_RIDE = 'No ride yet';

/** One person's phone, or support's desk: what it shows of its line. */
export class Phone {
  line;
  title;
  #reading;
  #isLocked = false;
  #isShown = true;
  /** The ride that is shown, or undefined; null before anything was. */
  #shownRide = null;
  #parts;
  #onUnread;
  /** Takes a complaint away again. */
  #calm;

  /** @param {import('./line.js').Line} line @param {{town: object, rides?: object, onUnread: () => void}} options */
  constructor(line, { town, rides, onUnread }) {
    this.line = line;
    this.title = TITLES[line.role];
    this.#onUnread = onUnread;
    this.#reading = new Reading(line, () => this.update());
    const isDesk = line.role === 'support';
    const api = (call) => () => call(line.client).catch((error) => this.#complain(error));
    const actions = {
      menu: (message, opener) => menu.open(message, opener),
      react: (id, emoji, on) => api((client) => (on ? client.react(id, emoji) : client.unreact(id, emoji)))(),
      edit: (message) => composer.edit(message),
      remove: (id) => api((client) => client.delete(id))(),
      retry: (id) => line.conversation.retry(id),
      discard: (id) => line.conversation.discard(id),
    };
    const menu = new MessageMenu({ me: line.userId, actions, canDelete: isDesk });
    const chat = new Chat({ me: line.userId, actions, onEarlier: () => line.conversation.loadMore(), onScroll: () => this.update() });
    const composer = new Composer({
      label: `Message as ${line.userId}`,
      onSend: (text) => line.conversation.send(text),
      onEdit: ({ id }, content) => api((client) => client.edit(id, { content }))(),
      onTyping: (typing) => line.client.typing(line.rideId, typing).catch(() => {}),
    });
    const takeStep = (status) => api((client) => client.status(line.rideId, status))();
    const cancel = new Cancel(line.role, (reason) => api((client) => client.cancel(line.rideId, reason))());
    this.#parts = {
      cancel,
      chat,
      composer,
      controls: new Controls(line),
      map: isDesk ? undefined : new RideMap(town),
      steps: new Steps(line.role === 'driver' ? takeStep : undefined, cancel.button),
      state: h('span', { class: 'state' }),
      who: h('p', { class: 'bar__who' }, NO_RIDE),
      there: h('p', { class: 'bar__there' }),
      avatar: h('span', { class: 'avatar', 'aria-hidden': 'true' }),
      badge: h('span', { class: 'badge', hidden: true, dir: 'auto' }),
      away: h('p', { class: 'away', hidden: true, role: 'status', dir: 'auto' }),
      trouble: h('p', { class: 'trouble', role: 'alert', hidden: true }),
    };
    this.element = this.#build(isDesk, rides, menu);
    line.subscribe(() => this.update());
    document.addEventListener('visibilitychange', () => this.update());
  }

  get unread() {
    return this.#reading.unread;
  }

  /** Whether the panel is the one that is shown, where there is room for one. */
  set isShown(isShown) {
    this.#isShown = isShown;
    this.update();
  }

  /** Whether it is the one that screen readers hear. */
  set isInHand(isInHand) {
    this.#parts.chat.isSpeaking = isInHand;
  }

  update() {
    const { line } = this;
    const { cancel, chat, composer, controls, map, steps, state } = this.#parts;
    controls.update();
    const shown = line.isOffline ? 'offline' : line.conversation?.state;
    say(state, STATES[shown] ?? '');
    state.dataset.state = shown ?? '';
    // What is shown of a ride goes when the phone turns to another, not when that is there: it may never be.
    if (line.rideId !== this.#shownRide) this.#turnTo(line.rideId);
    if (!line.isReady) return;
    const { ride, participants, location, error } = line.conversation;
    if (!ride) return this.#fail(error);
    if (error) this.#complain(error);
    const isLooking = this.#isShown && !this.#isLocked && !document.hidden && chat.isAtEnd;
    this.#reading.update(isLooking);
    this.#count();
    chat.update(line.conversation, this.unread);
    composer.chat = ride.chat;
    steps.update(ride.status);
    cancel.update(ride.status);
    map?.update(ride.status, location);
    const others = participants.filter(({ userId }) => userId !== line.userId);
    this.#name(others, others.map(({ userId }) => userId).join(', ') || (ride.driverId ? '' : 'Looking for a driver'));
  }

  /** The people on the other side. Ids are shown as they are. */
  #name(others, text) {
    const { avatar, who, there } = this.#parts;
    say(who, text);
    say(avatar, others[0]?.userId.charAt(0) ?? '?');
    say(there, others.map(({ userId, online }) => (others.length > 1 ? `${userId} ` : '') + (online ? 'online' : 'away')).join(' · '));
    there.classList.toggle('is-online', others.some(({ online }) => online));
  }

  /** Takes away all that is shown of the ride before. */
  #turnTo(rideId) {
    const { cancel, chat, composer, map, steps, trouble } = this.#parts;
    this.#shownRide = rideId;
    this.#reading.begin(rideId);
    this.#count();
    chat.clear(rideId ? 'Opening…' : NO_RIDE);
    composer.clear();
    steps.update(undefined);
    cancel.update(undefined);
    map?.update(undefined, null);
    this.#name([], rideId ?? NO_RIDE);
    this.element.querySelector('.menu').hidePopover();
    trouble.hidden = true;
  }

  /** There is nothing to show of the ride. */
  #fail({ code, detail, status }) {
    const why = status === 404 ? `There is no ride ${this.line.rideId}, or it is not ${this.line.userId}’s.` : (detail ?? code);
    this.#parts.chat.clear(why);
  }

  #count() {
    const { away, badge } = this.#parts;
    const unread = `${this.unread.toLocaleString('en')} unread`;
    badge.hidden = this.unread === 0;
    say(badge, this.unread > 0 ? unread : '');
    say(away, this.unread > 0 ? unread : 'Put away: what comes is delivered, and not read');
    this.#onUnread();
  }

  #complain({ code, detail, status }) {
    const { trouble } = this.#parts;
    const hint = status === 0 && this.line.server ? ' Does it allow this site (RIDEWIRE_CORS_ORIGINS)?' : '';
    say(trouble, status === 0 && code === 'network' && !hint ? 'The server does not answer' : (detail ?? code) + hint);
    trouble.hidden = false;
    clearTimeout(this.#calm);
    this.#calm = setTimeout(() => {
      trouble.hidden = true;
    }, 6_000);
  }

  #build(isDesk, rides, menu) {
    const { line, title } = this;
    const { avatar, cancel, chat, composer, controls, map, steps, state, who, there, away, badge, trouble } = this.#parts;
    const lock = h('button', { class: 'lock', 'aria-pressed': 'false', 'aria-label': 'Put the phone away', title: 'Put the phone away: what comes is delivered, and not read', onclick: () => this.#toggleLock(lock) }, icon('lock'));
    // What can be done with the ride lies over its map, where there is one.
    const ride = map ? h('div', { class: 'screen__map' }, map.element, steps.actions) : steps.actions;
    const screen = h('div', { class: 'screen' }, steps.element, ride, chat.element, composer.element, trouble, cancel.sheet);
    return h('section', { class: `phone phone--${line.role}`, id: `panel-${line.role}`, 'aria-labelledby': `title-${line.role}` },
      h('div', { class: 'phone__head' },
        h('h2', { class: 'phone__title', id: `title-${line.role}` }, title, h('span', { class: 'phone__user' }, line.userId)),
        badge),
      controls.element,
      h('div', { class: isDesk ? 'device device--desk' : 'device' },
        rides?.element,
        h('div', { class: 'bar' }, avatar, h('div', { class: 'bar__names' }, who, there), state, lock),
        screen, away, menu.element));
  }

  #toggleLock(lock) {
    this.#isLocked = !this.#isLocked;
    lock.setAttribute('aria-pressed', String(this.#isLocked));
    this.element.querySelector('.screen').hidden = this.#isLocked;
    this.#parts.away.hidden = !this.#isLocked;
    this.update();
  }
}
