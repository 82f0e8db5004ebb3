/**
 * What a browser knows of its network and of who is looking. Elsewhere, all is always well.
 *
 * A hidden page keeps its stream, as long as no other wants its place: a tab in the background is where a new message wants
 * to be noticed.
 */
export class Environment {
  #callbacks;

  /** @param {{onOffline: () => void, onWake: () => void}} callbacks `onWake`: a good moment to look again */
  constructor(callbacks) {
    this.#callbacks = callbacks;
    this.#each('addEventListener');
  }

  /** False only where it is certain that there is no network. */
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
