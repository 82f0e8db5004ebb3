import { h } from '/console/js/dom.js';
import { Known } from './known.js';
import { Nav } from './nav.js';
import { operation } from './operation.js';
import { prose } from './prose.js';
import { Spec } from './spec.js';
import { Try } from './try.js';
import { Who } from './who.js';

const TITLES = { messages: 'Messages', live: 'Live', rides: 'Rides', drivers: 'Drivers', operations: 'Operations' };

const content = document.getElementById('content');
const [spec, who] = await Promise.all([Spec.load(), Who.open(document.getElementById('who'))]);
const known = new Known();
// Where the ride cannot be made, the examples stay as the document has them.
await known.begin(who).catch(() => {});

const articles = new Map();
const groups = spec.groups.map(({ name, description, operations }) => {
  const rows = operations.map((said) => {
    const article = operation(spec, said, new Try(spec, said, { who, known }).element);
    articles.set(said.id, article);
    return article;
  });
  const title = `group-${name}`;
  return h('section', { class: 'group', 'aria-labelledby': title },
    h('div', { class: 'group__head' }, h('h2', { id: title }, TITLES[name] ?? name), prose(description)), rows);
});

content.replaceChildren(
  h('div', { class: 'intro' },
    h('h1', {}, `${spec.info.title} ${spec.info.version}`),
    prose(spec.info.description),
    h('p', { class: 'prose' }, 'The same for programs: ', h('a', { href: '/openapi.yaml' }, 'openapi.yaml'), ', ', h('a', { href: '/openapi.json' }, 'openapi.json'), '.')),
  ...groups,
  h('p', { class: 'nothing', id: 'nothing', hidden: true }, 'No operation has these words.'));

const nav = new Nav(document.getElementById('nav'), document.getElementById('menu'), spec, (fitting) => {
  for (const [id, article] of articles) article.hidden = !fitting.has(id);
  for (const group of groups) group.hidden = [...group.querySelectorAll('.operation')].every(({ hidden }) => hidden);
  document.getElementById('nothing').hidden = fitting.size > 0;
});

/** Goes to the operation that the address names: it was not there yet when the browser looked. */
function follow() {
  const article = articles.get(decodeURIComponent(location.hash.slice(1)));
  if (!article) return;
  if (article.hidden) nav.clear();
  article.scrollIntoView();
}

addEventListener('hashchange', follow);
follow();

/** What is being read is the operation at the upper third of the window. */
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) nav.current = target.id;
}, { rootMargin: '-25% 0px -70% 0px' });
for (const article of articles.values()) seen.observe(article);
