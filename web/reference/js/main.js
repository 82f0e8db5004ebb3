import { createElement } from '/console/js/dom.js';
import { ExampleValues } from './example-values.js';
import { Nav } from './nav.js';
import { operation } from './operation.js';
import { prose } from './prose.js';
import { Spec } from './spec.js';
import { TryPanel } from './try-panel.js';
import { CallerSelect } from './caller.js';

const TITLES = { messages: 'Messages', live: 'Live', rides: 'Rides', drivers: 'Drivers', operations: 'Operations' };

const content = document.getElementById('content');
const [spec, caller] = await Promise.all([Spec.load(), CallerSelect.open(document.getElementById('caller'))]);
const examples = new ExampleValues();
// If the ride cannot be created, the page uses the document's examples.
await examples.createRide(caller).catch(() => {});

const articles = new Map();
const groups = spec.groups.map(({ name, description, operations }) => {
  const rows = operations.map((described) => {
    const article = operation(spec, described, new TryPanel(spec, described, { caller, examples }).element);
    articles.set(described.id, article);
    return article;
  });
  const title = `group-${name}`;
  return createElement('section', { class: 'group', 'aria-labelledby': title },
    createElement('div', { class: 'group__head' }, createElement('h2', { id: title }, TITLES[name] ?? name), prose(description)), rows);
});

content.replaceChildren(
  createElement('div', { class: 'intro' },
    createElement('h1', {}, `${spec.info.title} ${spec.info.version}`),
    prose(spec.info.description),
    createElement('p', { class: 'prose' }, 'OpenAPI document: ', createElement('a', { href: '/openapi.yaml' }, 'openapi.yaml'), ', ', createElement('a', { href: '/openapi.json' }, 'openapi.json'), '.')),
  ...groups,
  createElement('p', { class: 'nothing', id: 'nothing', hidden: true }, 'No operation matches.'));

const nav = new Nav(document.getElementById('nav'), document.getElementById('menu'), spec, (fitting) => {
  for (const [id, article] of articles) article.hidden = !fitting.has(id);
  for (const group of groups) group.hidden = [...group.querySelectorAll('.operation')].every(({ hidden }) => hidden);
  document.getElementById('nothing').hidden = fitting.size > 0;
});

/** Scrolls to the operation in the URL's fragment, which did not exist yet when the browser loaded the page. */
function follow() {
  const article = articles.get(decodeURIComponent(location.hash.slice(1)));
  if (!article) return;
  if (article.hidden) nav.clear();
  article.scrollIntoView();
}

addEventListener('hashchange', follow);
follow();

/** Marks the operation in the upper third of the window as the current one. */
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) nav.current = target.id;
}, { rootMargin: '-25% 0px -70% 0px' });
for (const article of articles.values()) seen.observe(article);
