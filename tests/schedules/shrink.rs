//! Shrinks a failing schedule while it fails in the same way.

use std::collections::BTreeSet;

use tokio::time::{Duration, Instant};

use crate::check::{Violation, ViolationKind};
use crate::replica_pair::ReplicaPair;
use crate::step::{Schedule, Step};

/// The maximum number of runs, and the approximate maximum duration.
const MAX_RUNS: usize = 150;
const MAX_TIME: Duration = Duration::from_secs(180);

/// Returns a smaller schedule with at least one of the same violations, and its violations. `run` runs a schedule.
pub(crate) async fn shrink(
    replicas: &mut ReplicaPair,
    schedule: Schedule,
    violations: Vec<Violation>,
    run: impl AsyncFn(&mut ReplicaPair, &Schedule) -> Vec<Violation>,
) -> (Schedule, Vec<Violation>) {
    let kinds = |violations: &[Violation]| {
        violations.iter().map(|violation| violation.kind).collect::<BTreeSet<ViolationKind>>()
    };
    let (mut best, mut found) = (schedule, violations);
    let mut size = (best.0.len() / 2).max(1);
    let (mut runs, began) = (0, Instant::now());
    let is_enough = |runs: usize| runs >= MAX_RUNS || began.elapsed() > MAX_TIME;
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
            let violations = run(replicas, &smaller).await;
            if kinds(&violations).intersection(&kinds(&found)).next().is_some() {
                (best, found, has_shrunk) = (smaller, violations, true);
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

/// Returns a schedule without some steps, and without the steps that depend on them.
fn without(schedule: &Schedule, steps: std::ops::Range<usize>) -> Schedule {
    let kept = schedule.0.iter().enumerate().filter(|(index, _)| !steps.contains(index)).map(|(_, step)| *step);
    let kept: Vec<_> = kept.collect();
    let has_gate =
        |wanted: usize| kept.iter().any(|step| matches!(step, Step::AddGate { gate, .. } if *gate == wanted));
    let has_op = |wanted: usize| kept.iter().any(|step| matches!(step, Step::Start { op, .. } if *op == wanted));
    let has_reader =
        |wanted: usize| kept.iter().any(|step| matches!(step, Step::OpenStream { reader, .. } if *reader == wanted));
    let is_valid = |step: &Step| match *step {
        Step::Reach { gate } | Step::Release { gate } | Step::Cut { gate } | Step::DeliverLate { gate } => {
            has_gate(gate)
        }
        Step::FailOver { .. } => kept.iter().any(|step| matches!(step, Step::DetachStandby { .. })),
        Step::Wait { op } => has_op(op),
        Step::Start { action, .. } => action.about().is_none_or(has_op),
        Step::Resume { reader, .. } => has_reader(reader),
        _ => true,
    };
    Schedule(kept.iter().copied().filter(is_valid).collect())
}
