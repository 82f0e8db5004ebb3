import { Deliveries } from './deliveries.js';
import { createElement, formatCount, formatDuration, formatTimestamp, setText } from './dom.js';
import { Feed } from './feed.js';
import { RovingTabindex } from './roving-tabindex.js';
import { summarize } from './wire.js';

/** The maximum number of rows in each list. */
const MAX_ROWS = 100;

const STATES = { connecting: 'Connecting', live: 'Live', polling: 'Polling', offline: 'Offline', closed: 'Closed' };

/** The platform's panel: the feed of all events, and the webhook deliveries that the demo's receiver received. */
export class Platform {
  #feed;
  #deliveries = new Deliveries((deliveries) => this.#received(deliveries));
  #token;
  #state = createElement('span', { class: 'state' });
  #events = new Log('Feed', 'Events from now on appear here.');
  #webhooks = new Log('Webhook deliveries', 'Deliveries appear here.');
  #test = createElement('button', { class: 'button button--small', hidden: true, onclick: () => this.#sendTest() }, 'Send a test');
  #tested = createElement('span', { class: 'log__note', role: 'status' });

  /** @param {import('./session.js').Session} session @param {() => void} onDisconnect called when the feed loses its connection */
  constructor(session, onDisconnect) {
    this.#token = () => session.token('service');
    this.#feed = new Feed({
      token: this.#token,
      onEvent: (event) => this.#happened(event),
      onChange: () => this.#update(onDisconnect),
    });
    this.#webhooks.head.append(this.#tested, this.#test);
    this.element = createElement('section', { class: 'phone phone--platform', id: 'panel-platform', 'aria-labelledby': 'title-platform' },
      createElement('div', { class: 'phone__head' },
        createElement('h2', { class: 'phone__title', id: 'title-platform' }, 'Platform', createElement('span', { class: 'phone__user' }, session.user('service'))),
        this.#state),
      createElement('div', { class: 'device device--desk' }, this.#events.element, this.#webhooks.element));
    if (!session.isDemo) this.#webhooks.explain('A demo has its own receiver: ridewire serve --demo');
    this.#update(() => {});
    this.#feed.run();
    if (session.isDemo) this.#run();
  }

  /** Whether the feed's connection is lost. */
  get isDisconnected() {
    return ['connecting', 'offline'].includes(this.#feed.state);
  }

  async #run() {
    await this.#deliveries.run();
    this.#webhooks.explain('This demo has no receiver, because its console is not on a loopback address without TLS, or the feed is off.');
  }

  #update(onDisconnect) {
    const { state, problem } = this.#feed;
    setText(this.#state, STATES[state]);
    this.#state.dataset.state = state;
    if (problem) this.#events.explain(problem);
    if (this.isDisconnected) onDisconnect();
  }

  #happened({ id, type, data: { topic, seq, data, ...rest } }) {
    if (type === 'gap') {
      this.#events.add({ type: 'gap', topic: '', text: 'The feed no longer has some events.', json: rest });
      return;
    }
    this.#events.add({ at: rest.at, type, topic: `${topic} · ${seq}`, text: summarize(type, data), json: { id, type, data: { topic, seq, ...rest, data } } });
    this.#deliveries.expect();
  }

  #received(deliveries) {
    const { total, rejected, webhook } = this.#deliveries.receiver;
    this.#test.hidden = !webhook;
    for (const { id, receivedAt, isRepeated, body } of deliveries) {
      const { topic, seq, at } = body.data;
      const took = at ? ` · ${formatDuration(Math.max(0, Date.parse(receivedAt) - Date.parse(at)))}` : '';
      const text = `signature verified${took}${isRepeated ? ' · repeated' : ''}`;
      const json = { 'webhook-id': id, body };
      this.#webhooks.add({ at: receivedAt, type: body.type, topic: topic ? `${topic} · ${seq}` : '', text, isGood: true, json });
    }
    this.#webhooks.count(total, rejected > 0 ? `, ${rejected.toLocaleString('en')} rejected` : '');
  }

  async #sendTest() {
    const { webhook } = this.#deliveries.receiver;
    this.#test.disabled = true;
    try {
      const headers = { authorization: `Bearer ${await this.#token()}` };
      const response = await fetch(`/api/v1/webhooks/${webhook}/test`, { method: 'POST', headers });
      const { status, durationMs, error, detail } = await response.json();
      setText(this.#tested, error ?? detail ?? `${status} in ${formatDuration(durationMs)}`);
      this.#deliveries.expect();
    } catch {
      setText(this.#tested, 'The server does not respond');
    } finally {
      this.#test.disabled = false;
    }
  }
}

/** A list of events, newest first. Each row expands to its JSON. */
class Log {
  #count = createElement('span', { class: 'log__count' });
  #empty;
  #list = createElement('ol', { class: 'log__list' });
  #focus = new RovingTabindex(this.#list, 'summary');
  #total = 0;

  constructor(title, empty) {
    this.#empty = createElement('p', { class: 'log__empty' }, empty);
    this.head = createElement('div', { class: 'log__head' }, createElement('h3', { class: 'log__title' }, title), this.#count);
    const region = createElement('div', { class: 'log__scroll', role: 'region', 'aria-label': title, tabindex: '0' }, this.#empty, this.#list);
    this.element = createElement('div', { class: 'log' }, this.head, region);
  }

  /** Sets the text of an empty list. */
  explain(reason) {
    setText(this.#empty, reason);
  }

  /** Sets the total number of events, of which the list has the latest. */
  count(total, more = '') {
    this.#total = total;
    this.#showCount(more);
  }

  #showCount(more = '') {
    const shown = this.#list.children.length;
    const kept = shown < this.#total ? `last ${shown} of ` : '';
    setText(this.#count, this.#total > 0 ? `${kept}${this.#total.toLocaleString('en')}${more}` : '');
    this.#count.title = formatCount(this.#total, 'event');
  }

  add({ at, type, topic, text, json, isGood }) {
    this.#total += 1;
    this.#empty.hidden = true;
    const pre = createElement('pre', { class: 'json', role: 'group', tabindex: '0', dir: 'ltr', 'aria-label': `JSON of ${type}` });
    const summary = createElement('summary', { class: 'log__row', tabindex: '-1' },
      createElement('span', { class: 'log__type' }, type),
      createElement('time', { class: 'log__at', datetime: at }, at ? formatTimestamp(at) : ''),
      createElement('span', { class: isGood ? 'log__text is-good' : 'log__text', dir: 'auto' }, text),
      createElement('span', { class: 'log__topic', dir: 'ltr' }, topic));
    const details = createElement('details', {}, summary, pre);
    // The JSON is formatted when the row is first expanded.
    details.addEventListener('toggle', () => setText(pre, JSON.stringify(json, null, 2)), { once: true });
    this.#list.prepend(createElement('li', {}, details));
    while (this.#list.children.length > MAX_ROWS) this.#list.lastChild.remove();
    this.#focus.update(summary);
    this.#showCount();
  }
}
