import { h, shortened, spoken, time } from './dom.js';
import { icon } from './icons.js';

const TICKS = { sending: 'Sending', sent: 'Sent', delivered: 'Delivered', read: 'Read', failed: 'Not sent' };

/** How far a message of one's own has got. */
function tick({ status, isRead, isDelivered }) {
  return status ?? (isRead ? 'read' : isDelivered ? 'delivered' : 'sent');
}

/**
 * One message in the list.
 * @param {object} message as a conversation has it
 * @param {{me: string, actions: object}} options
 */
export function bubble(message, { me, actions }) {
  const isMine = message.status !== undefined || message.senderId === me;
  const isDeleted = Boolean(message.deletedAt);
  const text = isDeleted ? 'This message was deleted' : message.content;
  return h('li', { class: `message ${isMine ? 'is-mine' : 'is-theirs'} ${isDeleted ? 'is-deleted' : ''}` },
    !isMine && h('span', { class: 'message__who' }, message.senderId, role(message)),
    isMine && spoken('You: '),
    h('div', { class: 'message__line' },
      h('p', { class: 'message__text', dir: 'auto' }, text),
      !isDeleted && !message.status && moreButton(message, actions)),
    reactions(message, me, actions),
    h('div', { class: 'message__meta' },
      message.editedAt && !isDeleted && h('span', {}, 'edited'),
      h('time', { datetime: message.createdAt }, time(message.createdAt)),
      isMine && !isDeleted && ticks(tick(message)),
      message.status === 'failed' && again(message, actions)));
}

const role = ({ senderRole }) => senderRole === 'support' && h('span', { class: 'message__role' }, 'Support');

function ticks(how) {
  return h('span', { class: `ticks ticks--${how}` }, icon(how), spoken(TICKS[how]));
}

function again({ clientMessageId }, { retry, discard }) {
  return [
    h('button', { class: 'link', onclick: () => retry(clientMessageId) }, 'Send again'),
    h('button', { class: 'link', onclick: () => discard(clientMessageId) }, 'Discard'),
  ];
}

function moreButton(message, { menu }) {
  const label = `Actions for: ${shortened(message.content, 40)}`;
  const onclick = (event) => menu(message, event.currentTarget);
  return h('button', { class: 'message__more', 'aria-label': label, 'aria-haspopup': 'menu', onclick, 'data-focus': 'more' },
    icon('more'));
}

function reactions({ id, reactions: all = [] }, me, { react }) {
  if (all.length === 0) return null;
  const one = ({ emoji, userIds }) => {
    const isMine = userIds.includes(me);
    const label = `${emoji} from ${userIds.map((user) => (user === me ? 'you' : user)).join(' and ')}`;
    const props = { class: 'reaction', 'aria-pressed': String(isMine), 'aria-label': label, 'data-focus': emoji };
    return h('button', { ...props, onclick: () => react(id, emoji, !isMine) }, emoji, userIds.length > 1 && ` ${userIds.length}`);
  };
  return h('div', { class: 'message__reactions' }, all.map(one));
}
