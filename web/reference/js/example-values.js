/** Real values that replace the document's examples: an existing ride, its participants, the last sent message. */
export class ExampleValues extends EventTarget {
  #values = new Map();

  /** In a demo, creates a ride for this tab, so that each request can use a ride whose chat is open. */
  async createRide(caller) {
    if (!caller.isDemo) return;
    const [riderId, driverId] = ['rider', 'driver'].map((role) => caller.user(role));
    const ride = sessionStorage.getItem('ride') ?? `ride_${Date.now().toString(36)}`;
    const headers = { authorization: `Bearer ${await caller.token('service')}` };
    const created = await fetch(`/api/v1/rides/${ride}`, { method: 'PUT', headers, body: JSON.stringify({ riderId, driverId }) });
    if (!created.ok) return;
    sessionStorage.setItem('ride', ride);
    for (const [example, value] of [['ride_123', ride], ['rider_1', riderId], ['driver_1', driverId]]) this.#values.set(example, value);
  }

  /** Takes values for the next requests from a response. */
  update({ operation, status, text }) {
    if (status >= 300) return;
    const response = parse(text);
    if (operation === 'sendMessage' && response?.id) this.#values.set('messageId', response.id);
    if (operation === 'putRide' && response?.rideId) this.#values.set('ride_123', response.rideId);
    this.dispatchEvent(new Event('change'));
  }

  /** Returns the initial value of a parameter. */
  parameter(name, example) {
    if (name === 'messageId') return this.#values.get('messageId') ?? example;
    // Operations that erase or revoke a user keep the example, so that the user must be entered.
    return name === 'userId' ? example : (this.#values.get(example) ?? example);
  }

  /** Returns a body with real values in place of the examples. */
  body(value) {
    const replace = (part) => (typeof part === 'string' ? (this.#values.get(part) ?? part) : part);
    return JSON.stringify(value, (_, part) => replace(part), 2);
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
