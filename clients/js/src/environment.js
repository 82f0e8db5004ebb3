/**
 * The browser's network and visibility state. On other platforms, the network is always online and the page visible.
 *
 * A hidden page keeps its stream as long as no visible page needs its connection slot, because a tab in the background must
 * still notice new messages.
 */
export class Environment {
  #callbacks;

  /** @param {{onOffline: () => void, onWake: () => void}} callbacks `onWake`: the network is back, or the page became visible */
  constructor(callbacks) {
    this.#callbacks = callbacks;
    this.#each('addEventListener');
  }

  /** False only if the platform is certain that there is no network. */
  get isOnline() {
    return globalThis.navigator?.onLine !== false;
  }

  get isHidden() {
    return globalThis.document?.visibilityState === 'hidden';
  }

  close() {
    this.#each('removeEventListener');
  }

  #each(method) {
    const { window, document } = globalThis;
    window?.[method]('offline', this.#callbacks.onOffline);
    window?.[method]('online', this.#callbacks.onWake);
    document?.[method]('visibilitychange', this.#onVisibility);
  }

  #onVisibility = () => {
    if (globalThis.document.visibilityState === 'visible') this.#callbacks.onWake();
  };
}
