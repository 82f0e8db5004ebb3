/** What stands for the examples of the document: a ride that is there, its people, the message that was sent last. */
export class Known extends EventTarget {
  #values = new Map();

  /** In a demo: a ride of its own for this tab, of the demo's people, so that every call finds one whose chat is open. */
  async begin(who) {
    if (!who.isDemo) return;
    const [riderId, driverId] = ['rider', 'driver'].map((role) => who.name(role));
    const ride = sessionStorage.getItem('ride') ?? `ride_${Date.now().toString(36)}`;
    const headers = { authorization: `Bearer ${await who.token('service')}` };
    const made = await fetch(`/api/v1/rides/${ride}`, { method: 'PUT', headers, body: JSON.stringify({ riderId, driverId }) });
    if (!made.ok) return;
    sessionStorage.setItem('ride', ride);
    for (const [example, value] of [['ride_123', ride], ['rider_1', riderId], ['driver_1', driverId]]) this.#values.set(example, value);
  }

  /** Learns from an answer what the next request may be about. */
  learn({ operation, status, text }) {
    if (status >= 300) return;
    const said = parse(text);
    if (operation === 'sendMessage' && said?.id) this.#values.set('messageId', said.id);
    if (operation === 'putRide' && said?.rideId) this.#values.set('ride_123', said.rideId);
    this.dispatchEvent(new Event('change'));
  }

  /** What a parameter begins with. */
  parameter(name, example) {
    if (name === 'messageId') return this.#values.get('messageId') ?? example;
    // Whose data is erased or logins ended is for a person to say.
    return name === 'userId' ? example : (this.#values.get(example) ?? example);
  }

  /** A body with what is known in the place of examples. */
  body(value) {
    const known = (part) => (typeof part === 'string' ? (this.#values.get(part) ?? part) : part);
    return JSON.stringify(value, (_, part) => known(part), 2);
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
