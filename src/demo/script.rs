//! What is said on the driven ride, and when.

/// Who says it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    Rider,
    Driver,
}

/// Something that is said so many seconds after a part of the ride has begun.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) second: u32,
    pub(super) who: Who,
    pub(super) text: &'static str,
}

const fn line(second: u32, who: Who, text: &'static str) -> Line {
    Line { second, who, text }
}

/// The driver is on their way.
pub(super) const APPROACH: &[Line] = &[
    line(4, Who::Driver, "Hi Lena, Amir here. Grey estate, HB 204."),
    line(11, Who::Rider, "Hi! I am at Mill Gate, by the flower stand."),
    line(18, Who::Driver, "I know it. There is a tram ahead of me, two minutes."),
    line(30, Who::Rider, "No hurry, I have two suitcases with me."),
];

/// The driver is there.
pub(super) const PICKUP: &[Line] =
    &[line(3, Who::Driver, "I am here, on the side of the bakery."), line(8, Who::Rider, "I can see you 👋")];

/// On the way.
pub(super) const TRIP: &[Line] = &[
    line(12, Who::Rider, "Could we avoid the market? It is closed to cars today."),
    line(20, Who::Driver, "Yes, I take the street behind it."),
    line(44, Who::Rider, "Which entrance of Harbour House is open so late?"),
    line(53, Who::Driver, "The one on the water. I will let you out there."),
    line(72, Who::Driver, "One more corner."),
];

/// After it.
pub(super) const AFTERWARDS: &[Line] = &[
    line(3, Who::Rider, "Thank you, that was quick!"),
    line(8, Who::Driver, "Thanks for riding. Mind the kerb with the suitcases."),
];
