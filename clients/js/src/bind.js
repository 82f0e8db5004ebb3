/**
 * Binds an object's methods, including those of its class's ancestors, so that each method also works on its own:
 * `useSyncExternalStore(conversation.subscribe, …)`, `const { send } = client`. To be called by constructors.
 *
 * @param {object} object
 */
export function bindMethods(object) {
  let prototype = Object.getPrototypeOf(object);
  for (; prototype !== Object.prototype; prototype = Object.getPrototypeOf(prototype)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      // The method of a subclass is bound already.
      if (typeof value !== 'function' || name === 'constructor' || Object.hasOwn(object, name)) continue;
      Object.defineProperty(object, name, { value: value.bind(object), writable: true, configurable: true });
    }
  }
}
