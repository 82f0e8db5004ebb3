//! Makes a schedule that fails smaller, as long as it fails in the same way.

use std::collections::BTreeSet;

use tokio::time::{Duration, Instant};

use crate::check::{Fault, Problem};
use crate::lane::Lane;
use crate::step::{Schedule, Step};

/// The most runs, and about the most time, that this takes.
const MOST_RUNS: usize = 150;
const MOST_TIME: Duration = Duration::from_secs(180);

/// A schedule without what it does not need, and what is wrong with it. `run` runs one.
pub(crate) async fn shrink(
    lane: &mut Lane,
    schedule: Schedule,
    problems: Vec<Problem>,
    run: impl AsyncFn(&mut Lane, &Schedule) -> Vec<Problem>,
) -> (Schedule, Vec<Problem>) {
    let faults = |problems: &[Problem]| problems.iter().map(|problem| problem.fault).collect::<BTreeSet<Fault>>();
    let (mut best, mut found) = (schedule, problems);
    let mut size = (best.0.len() / 2).max(1);
    let (mut runs, began) = (0, Instant::now());
    let is_enough = |runs: usize| runs >= MOST_RUNS || began.elapsed() > MOST_TIME;
    loop {
        let mut begin = 0;
        let mut has_shrunk = false;
        while begin < best.0.len() && !is_enough(runs) {
            let smaller = without(&best, begin..(begin + size).min(best.0.len()));
            if smaller == best {
                begin += size;
                continue;
            }
            runs += 1;
            let problems = run(lane, &smaller).await;
            if faults(&problems).intersection(&faults(&found)).next().is_some() {
                (best, found, has_shrunk) = (smaller, problems, true);
            } else {
                begin += size;
            }
        }
        if is_enough(runs) || size == 1 && !has_shrunk {
            return (best, found);
        }
        size = (size / 2).max(1);
    }
}

/// A schedule without some steps, and without those that mean nothing without them.
fn without(schedule: &Schedule, steps: std::ops::Range<usize>) -> Schedule {
    let kept = schedule.0.iter().enumerate().filter(|(index, _)| !steps.contains(index)).map(|(_, step)| *step);
    let kept: Vec<_> = kept.collect();
    let has_gate = |wanted: usize| kept.iter().any(|step| matches!(step, Step::Hold { gate, .. } if *gate == wanted));
    let has_op = |wanted: usize| kept.iter().any(|step| matches!(step, Step::Start { op, .. } if *op == wanted));
    let has_reader =
        |wanted: usize| kept.iter().any(|step| matches!(step, Step::Read { reader, .. } if *reader == wanted));
    let means = |step: &Step| match *step {
        Step::Reach { gate } | Step::Release { gate } | Step::Cut { gate } | Step::Late { gate } => has_gate(gate),
        Step::FailOver { .. } => kept.iter().any(|step| matches!(step, Step::Lag { .. })),
        Step::Wait { op } => has_op(op),
        Step::Start { what, .. } => what.about().is_none_or(has_op),
        Step::Resume { reader, .. } => has_reader(reader),
        _ => true,
    };
    Schedule(kept.iter().copied().filter(means).collect())
}
