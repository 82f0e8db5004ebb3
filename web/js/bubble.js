import { createElement, formatTime, screenReaderText, truncate } from './dom.js';
import { icon } from './icons.js';

const TICKS = { sending: 'Sending', sent: 'Sent', delivered: 'Delivered', read: 'Read', failed: 'Not sent' };

/** Returns the delivery state of an own message. */
function deliveryState({ status, isRead, isDelivered }) {
  return status ?? (isRead ? 'read' : isDelivered ? 'delivered' : 'sent');
}

/**
 * Creates the list item of a message.
 * @param {object} message a message of a conversation
 * @param {{me: string, actions: object}} options
 */
export function bubble(message, { me, actions }) {
  const isMine = message.status !== undefined || message.senderId === me;
  const isDeleted = Boolean(message.deletedAt);
  const text = isDeleted ? 'This message was deleted' : message.content;
  return createElement('li', { class: `message ${isMine ? 'is-mine' : 'is-theirs'} ${isDeleted ? 'is-deleted' : ''}` },
    !isMine && createElement('span', { class: 'message__sender' }, message.senderId, role(message)),
    isMine && screenReaderText('You: '),
    createElement('div', { class: 'message__line' },
      createElement('p', { class: 'message__text', dir: 'auto' }, text),
      !isDeleted && !message.status && moreButton(message, actions)),
    reactions(message, me, actions),
    createElement('div', { class: 'message__meta' },
      message.editedAt && !isDeleted && createElement('span', {}, 'edited'),
      createElement('time', { datetime: message.createdAt }, formatTime(message.createdAt)),
      isMine && !isDeleted && ticks(deliveryState(message)),
      message.status === 'failed' && retryButtons(message, actions)));
}

const role = ({ senderRole }) => senderRole === 'support' && createElement('span', { class: 'message__role' }, 'Support');

function ticks(state) {
  return createElement('span', { class: `ticks ticks--${state}` }, icon(state), screenReaderText(TICKS[state]));
}

function retryButtons({ clientMessageId }, { retry, discard }) {
  return [
    createElement('button', { class: 'link', onclick: () => retry(clientMessageId) }, 'Send again'),
    createElement('button', { class: 'link', onclick: () => discard(clientMessageId) }, 'Discard'),
  ];
}

function moreButton(message, { menu }) {
  const label = `Actions for: ${truncate(message.content, 40)}`;
  const onclick = (event) => menu(message, event.currentTarget);
  return createElement('button', { class: 'message__more', 'aria-label': label, 'aria-haspopup': 'menu', onclick, 'data-focus': 'more' },
    icon('more'));
}

function reactions({ id, reactions: all = [] }, me, { react }) {
  if (all.length === 0) return null;
  const button = ({ emoji, userIds }) => {
    const isMine = userIds.includes(me);
    const label = `${emoji} from ${userIds.map((user) => (user === me ? 'you' : user)).join(' and ')}`;
    const props = { class: 'reaction', 'aria-pressed': String(isMine), 'aria-label': label, 'data-focus': emoji };
    return createElement('button', { ...props, onclick: () => react(id, emoji, !isMine) }, emoji, userIds.length > 1 && ` ${userIds.length}`);
  };
  return createElement('div', { class: 'message__reactions' }, all.map(button));
}
