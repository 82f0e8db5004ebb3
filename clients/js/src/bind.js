/**
 * Binds an object's methods to it, those of its subclass too, so that each works where it is passed on by itself:
 * `useSyncExternalStore(conversation.subscribe, …)`, `const { send } = client`. For constructors.
 *
 * @param {object} object
 */
export function bindMethods(object) {
  let prototype = Object.getPrototypeOf(object);
  for (; prototype !== Object.prototype; prototype = Object.getPrototypeOf(prototype)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      // What a subclass has overridden is there already.
      if (typeof value !== 'function' || name === 'constructor' || Object.hasOwn(object, name)) continue;
      Object.defineProperty(object, name, { value: value.bind(object), writable: true, configurable: true });
    }
  }
}
