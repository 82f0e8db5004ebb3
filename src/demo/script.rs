//! The messages of the simulated ride, and their times.

/// The sender of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sender {
    Rider,
    Driver,
}

/// A message, sent `second` seconds after the start of a phase of the ride.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) second: u32,
    pub(super) sender: Sender,
    pub(super) text: &'static str,
}

const fn line(second: u32, sender: Sender, text: &'static str) -> Line {
    Line { second, sender, text }
}

/// While the driver drives to the pickup.
pub(super) const APPROACH: &[Line] = &[
    line(4, Sender::Driver, "Hi Lena, Amir here. Grey estate, HB 204."),
    line(11, Sender::Rider, "Hi! I am at Mill Gate, by the flower stand."),
    line(18, Sender::Driver, "I know it. There is a tram ahead of me, two minutes."),
    line(30, Sender::Rider, "No hurry, I have two suitcases with me."),
];

/// While the driver waits at the pickup.
pub(super) const PICKUP: &[Line] =
    &[line(3, Sender::Driver, "I am here, on the side of the bakery."), line(8, Sender::Rider, "I can see you 👋")];

/// During the trip.
pub(super) const TRIP: &[Line] = &[
    line(12, Sender::Rider, "Could we avoid the market? It is closed to cars today."),
    line(20, Sender::Driver, "Yes, I take the street behind it."),
    line(44, Sender::Rider, "Which entrance of Harbour House is open so late?"),
    line(53, Sender::Driver, "The one on the water. I will let you out there."),
    line(72, Sender::Driver, "One more corner."),
];

/// After the trip.
pub(super) const AFTERWARDS: &[Line] = &[
    line(3, Sender::Rider, "Thank you, that was quick!"),
    line(8, Sender::Driver, "Thanks for riding. Mind the kerb with the suitcases."),
];
