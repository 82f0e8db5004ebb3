import { Deliveries } from './deliveries.js';
import { clock, counted, duration, h, say } from './dom.js';
import { Feed } from './feed.js';
import { Rows } from './rows.js';
import { brief } from './wire.js';

/** How many rows of each list are kept. */
const KEPT = 100;

const STATES = { connecting: 'Connecting', live: 'Live', polling: 'Polling', offline: 'Offline', closed: 'Closed' };

/** The platform's desk: the feed of all events, and the webhooks that were delivered to the demo's own receiver. */
export class Platform {
  #feed;
  #deliveries = new Deliveries((deliveries) => this.#received(deliveries));
  #token;
  #state = h('span', { class: 'state' });
  #events = new Log('Feed', 'Events from now on appear here.');
  #webhooks = new Log('Webhook deliveries', 'Deliveries appear here.');
  #test = h('button', { class: 'button button--small', hidden: true, onclick: () => this.#sendTest() }, 'Send a test');
  #tested = h('span', { class: 'log__note', role: 'status' });

  /** @param {import('./session.js').Session} session @param {() => void} onTrouble the feed has lost its connection */
  constructor(session, onTrouble) {
    this.#token = () => session.token('service');
    this.#feed = new Feed({
      token: this.#token,
      onEvent: (event) => this.#happened(event),
      onChange: () => this.#update(onTrouble),
    });
    this.#webhooks.head.append(this.#tested, this.#test);
    this.element = h('section', { class: 'phone phone--platform', id: 'panel-platform', 'aria-labelledby': 'title-platform' },
      h('div', { class: 'phone__head' },
        h('h2', { class: 'phone__title', id: 'title-platform' }, 'Platform', h('span', { class: 'phone__user' }, session.user('service'))),
        this.#state),
      h('div', { class: 'device device--desk' }, this.#events.element, this.#webhooks.element));
    if (!session.isDemo) this.#webhooks.explain('A demo has a receiver of its own: ridewire serve --demo');
    this.#update(() => {});
    this.#feed.run();
    if (session.isDemo) this.#run();
  }

  /** Whether the feed's connection is not there. */
  get isInTrouble() {
    return ['connecting', 'offline'].includes(this.#feed.state);
  }

  async #run() {
    await this.#deliveries.run();
    this.#webhooks.explain('This demo has no receiver: its console is not on a loopback address without TLS, or the feed is off.');
  }

  #update(onTrouble) {
    const { state, problem } = this.#feed;
    say(this.#state, STATES[state]);
    this.#state.dataset.state = state;
    if (problem) this.#events.explain(problem);
    if (this.isInTrouble) onTrouble();
  }

  #happened({ id, type, data: { topic, seq, data, ...rest } }) {
    if (type === 'gap') {
      this.#events.add({ what: 'gap', where: '', text: 'The feed no longer has some events.', json: rest });
      return;
    }
    this.#events.add({ at: rest.at, what: type, where: `${topic} · ${seq}`, text: brief(type, data), json: { id, type, data: { topic, seq, ...rest, data } } });
    this.#deliveries.expect();
  }

  #received(deliveries) {
    const { total, rejected, webhook } = this.#deliveries.receiver;
    this.#test.hidden = !webhook;
    for (const { id, receivedAt, isRepeated, body } of deliveries) {
      const { topic, seq, at } = body.data;
      const took = at ? ` · ${duration(Math.max(0, Date.parse(receivedAt) - Date.parse(at)))}` : '';
      const text = `signature verified${took}${isRepeated ? ' · again' : ''}`;
      const where = topic ? `${topic} · ${seq}` : '';
      this.#webhooks.add({ at: receivedAt, what: body.type, where, text, isGood: true, json: { 'webhook-id': id, body } });
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
      say(this.#tested, error ?? detail ?? `${status} in ${duration(durationMs)}`);
      this.#deliveries.expect();
    } catch {
      say(this.#tested, 'The server does not answer');
    } finally {
      this.#test.disabled = false;
    }
  }
}

/** A list of what happened, newest first. Each row expands to its JSON. */
class Log {
  #count = h('span', { class: 'log__count' });
  #empty;
  #list = h('ol', { class: 'log__list' });
  #stops = new Rows(this.#list, 'summary');
  #total = 0;

  constructor(title, empty) {
    this.#empty = h('p', { class: 'log__empty' }, empty);
    this.head = h('div', { class: 'log__head' }, h('h3', { class: 'log__title' }, title), this.#count);
    const region = h('div', { class: 'log__scroll', role: 'region', 'aria-label': title, tabindex: '0' }, this.#empty, this.#list);
    this.element = h('div', { class: 'log' }, this.head, region);
  }

  /** Says why there is nothing, where there is nothing. */
  explain(why) {
    say(this.#empty, why);
  }

  /** How many there were in all; the list has the last ones. */
  count(total, more = '') {
    this.#total = total;
    this.#say(more);
  }

  #say(more = '') {
    const shown = this.#list.children.length;
    const kept = shown < this.#total ? `last ${shown} of ` : '';
    say(this.#count, this.#total > 0 ? `${kept}${this.#total.toLocaleString('en')}${more}` : '');
    this.#count.title = counted(this.#total, 'event');
  }

  add({ at, what, where, text, json, isGood }) {
    this.#total += 1;
    this.#empty.hidden = true;
    const pre = h('pre', { class: 'json', role: 'group', tabindex: '0', dir: 'ltr', 'aria-label': `JSON of ${what}` });
    const summary = h('summary', { class: 'log__row', tabindex: '-1' },
      h('span', { class: 'log__what' }, what),
      h('time', { class: 'log__at', datetime: at }, at ? clock(at) : ''),
      h('span', { class: isGood ? 'log__text is-good' : 'log__text', dir: 'auto' }, text),
      h('span', { class: 'log__where', dir: 'ltr' }, where));
    const details = h('details', {}, summary, pre);
    // Written when it is looked at.
    details.addEventListener('toggle', () => say(pre, JSON.stringify(json, null, 2)), { once: true });
    this.#list.prepend(h('li', {}, details));
    while (this.#list.children.length > KEPT) this.#list.lastChild.remove();
    this.#stops.settle(summary);
    this.#say();
  }
}
