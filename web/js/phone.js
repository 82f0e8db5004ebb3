import { Cancel } from './cancel.js';
import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { Controls } from './controls.js';
import { h, nameOf, say } from './dom.js';
import { icon } from './icons.js';
import { RideMap } from './map.js';
import { MessageMenu } from './menu.js';
import { Reading } from './reading.js';
import { Steps } from './steps.js';

const TITLES = { rider: 'Rider', driver: 'Driver', support: 'Support' };
const STATES = { connecting: 'Connecting', live: 'Live', polling: 'Polling', offline: 'Offline', closed: 'Closed' };

/** One person's phone, or support's desk: what it shows of its line. */
export class Phone {
  line;
  title;
  #reading;
  #isLocked = false;
  #isShown = true;
  #shownRide;
  #parts;
  #onUnread;
  /** Takes a complaint away again. */
  #calm;

  /** @param {import('./line.js').Line} line @param {{town: object, rides?: object, onUnread: () => void}} options */
  constructor(line, { town, rides, onUnread }) {
    this.line = line;
    this.title = TITLES[line.role];
    this.#onUnread = onUnread;
    this.#reading = new Reading(line);
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
      label: `Message as ${nameOf(line.userId)}`,
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
      who: h('p', { class: 'bar__who' }, 'No ride yet'),
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
    const { avatar, cancel, chat, composer, controls, map, steps, state, who, there } = this.#parts;
    if (!line.conversation) return;
    controls.update();
    const shown = line.isOffline ? 'offline' : line.conversation.state;
    say(state, STATES[shown]);
    state.dataset.state = shown;
    if (line.conversation.error) this.#complain(line.conversation.error);
    if (!line.isReady) return;
    if (line.rideId !== this.#shownRide) this.#turnTo(line.rideId);
    const { ride, participants, location } = line.conversation;
    const isLooking = this.#isShown && !this.#isLocked && !document.hidden && chat.isAtEnd;
    this.#reading.update(isLooking);
    this.#count();
    chat.update(line.conversation, this.unread);
    if (!ride) return;
    composer.isOpen = ride.chat === 'open';
    steps.update(ride.status);
    cancel.update(ride.status);
    map?.update(ride.status, location);
    const others = participants.filter(({ userId }) => userId !== line.userId);
    say(who, others.map(({ userId }) => nameOf(userId)).join(', ') || (ride.driverId ? '' : 'Looking for a driver'));
    say(avatar, (others[0] ? nameOf(others[0].userId) : '?').charAt(0));
    say(there, others.map(({ userId, online }) => (others.length > 1 ? `${nameOf(userId)} ` : '') + (online ? 'online' : 'away')).join(' · '));
    there.classList.toggle('is-online', others.some(({ online }) => online));
  }

  #turnTo(rideId) {
    this.#shownRide = rideId;
    this.#parts.chat.clear();
    this.#parts.trouble.hidden = true;
  }

  #count() {
    const { away, badge } = this.#parts;
    badge.hidden = this.unread === 0;
    say(badge, this.unread > 0 ? `${this.unread} unread` : '');
    say(away, this.unread > 0 ? `${this.unread} unread` : 'Put away: what comes is delivered, and not read');
    this.#onUnread();
  }

  #complain({ code, detail, status }) {
    const { trouble } = this.#parts;
    const hint = status === 0 && this.line.server ? ' Does it allow this site (RIDEWIRE_CORS_ORIGINS)?' : '';
    say(trouble, (detail ?? code) + hint);
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
    const screen = h('div', { class: 'screen' }, steps.element, map?.element, chat.element, composer.element, trouble, cancel.sheet);
    return h('section', { class: `phone phone--${line.role}`, id: `panel-${line.role}`, 'aria-labelledby': `title-${line.role}` },
      h('div', { class: 'phone__head' },
        h('h2', { class: 'phone__title', id: `title-${line.role}` }, title, h('span', { class: 'phone__user' }, nameOf(line.userId))),
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
