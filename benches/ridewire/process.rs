//! What the kernel says of processes and of this machine.

use std::fs::read_to_string;
use std::process::Command;

use anyhow::Context;

/// `USER_HZ`: what Linux counts in `/proc`, on every architecture that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds that were used: so far, or in a span.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) server: f64,
    pub(crate) postgres: f64,
    /// This process and its children that have ended: pgbench, where it is that.
    pub(crate) generator: f64,
}

impl Cpu {
    pub(crate) fn now(server: Option<u32>, postgres: u32) -> anyhow::Result<Self> {
        Ok(Self {
            server: server.map_or(Ok(0.0), of_family)?,
            postgres: of_family(postgres)?,
            generator: used(std::process::id(), true)?,
        })
    }

    /// Cores that were busy since `before`, over so many seconds.
    pub(crate) fn since(self, before: Self, seconds: f64) -> Self {
        Self {
            server: (self.server - before.server) / seconds,
            postgres: (self.postgres - before.postgres) / seconds,
            generator: (self.generator - before.generator) / seconds,
        }
    }

    pub(crate) fn total(self) -> f64 {
        self.server + self.postgres + self.generator
    }
}

/// Seconds of a process; with those of its children that have ended and were waited for.
pub(crate) fn used(pid: u32, with_ended_children: bool) -> anyhow::Result<f64> {
    let fields = stat(pid).context("a process is gone")?;
    let ticks = fields.iter().skip(11).take(if with_ended_children { 4 } else { 2 });
    Ok(ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
}

/// `/proc/<pid>/stat` from its third field, the state, on; what stands before may contain spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// A process with its children, such as Postgres' and nginx's; of those that have ended it knows.
pub(crate) fn of_family(pid: u32) -> anyhow::Result<f64> {
    let children = children(pid)?.into_iter().map(|child| used(child, false).unwrap_or(0.0));
    Ok(used(pid, true)? + children.sum::<f64>())
}

fn children(of: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let parent = stat(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok());
        if parent == Some(of) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// Resident memory of a process and its children in kB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    let children = children(pid)?;
    std::iter::once(pid).chain(children).map(resident_alone).sum()
}

fn resident_alone(pid: u32) -> anyhow::Result<f64> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Lets us and what we start have as many files open as the kernel allows; returns how many.
pub(crate) fn raise_file_limit() -> usize {
    let (wanted, pid) = (32_768, std::process::id().to_string());
    let hard = file_limit().1;
    for limit in [wanted.max(hard), hard] {
        // By the tool, for there is no safe call in the standard library.
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:{limit}")]).output();
        if set.is_ok_and(|set| set.status.success()) {
            break;
        }
    }
    file_limit().0
}

pub(crate) fn file_limit() -> (usize, usize) {
    let limits = read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(1_024));
    (numbers.next().unwrap_or(1_024), numbers.next().unwrap_or(1_024))
}

/// The processor's name and how many of them there are.
pub(crate) fn hardware() -> String {
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    format!("{}, {} cores", model.unwrap_or("unknown processor"), cores())
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("?").to_owned()
}

/// What kept it from being faster.
pub(crate) fn saturated(total: f64, generator: f64) -> &'static str {
    if total > 0.9 * cores() as f64 {
        "all cores"
    } else if generator > 0.9 {
        "the generator"
    } else {
        "none: it waits for the disk, for locks, or for others on this machine"
    }
}
