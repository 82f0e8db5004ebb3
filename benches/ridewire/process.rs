//! Resource usage of processes, and the hardware, from the kernel.

use std::fs::read_to_string;
use std::process::Command;

use anyhow::Context;

/// `USER_HZ`: the unit of times in `/proc` on all supported architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds used so far, or cores used during a measurement.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) server: f64,
    pub(crate) postgres: f64,
    /// This process and its finished children, such as pgbench.
    pub(crate) generator: f64,
}

impl Cpu {
    pub(crate) fn now(server: Option<u32>, postgres: u32) -> anyhow::Result<Self> {
        Ok(Self {
            server: server.map_or(Ok(0.0), cpu_of_process_tree)?,
            postgres: cpu_of_process_tree(postgres)?,
            generator: cpu_of_process(std::process::id(), true)?,
        })
    }

    /// Returns the cores used since `before`, which is `seconds` ago.
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

/// Returns the CPU seconds of a process, optionally with those of its finished children.
pub(crate) fn cpu_of_process(pid: u32, with_ended_children: bool) -> anyhow::Result<f64> {
    let fields = stat(pid).context("a process has exited")?;
    let ticks = fields.iter().skip(11).take(if with_ended_children { 4 } else { 2 });
    Ok(ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
}

/// Returns the fields of `/proc/<pid>/stat` from the third one on. The second one may contain spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Returns the CPU seconds of a process with its children, such as those of Postgres and nginx, also finished ones.
pub(crate) fn cpu_of_process_tree(pid: u32) -> anyhow::Result<f64> {
    let children = children(pid)?.into_iter().map(|child| cpu_of_process(child, false).unwrap_or(0.0));
    Ok(cpu_of_process(pid, true)? + children.sum::<f64>())
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

/// Returns the resident memory of a process and its children in kB.
pub(crate) fn resident_memory(pid: u32) -> anyhow::Result<f64> {
    let children = children(pid)?;
    std::iter::once(pid).chain(children).map(resident_memory_of_one).sum()
}

fn resident_memory_of_one(pid: u32) -> anyhow::Result<f64> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Raises the limit of open files, also for children, as far as the kernel allows. Returns the limit.
pub(crate) fn raise_file_limit() -> usize {
    let (target, pid) = (32_768, std::process::id().to_string());
    let hard = file_limit().1;
    for limit in [target.max(hard), hard] {
        // Uses the program, because the standard library has no such call.
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

/// Returns the processor model and the number of cores.
pub(crate) fn cpu_model() -> String {
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    format!("{}, {} cores", model.unwrap_or("unknown processor"), cores())
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Returns the load average of the last minute.
pub(crate) fn load_average() -> String {
    let load_average = read_to_string("/proc/loadavg").unwrap_or_default();
    load_average.split(' ').next().unwrap_or("?").to_owned()
}

/// Returns what limits the throughput.
pub(crate) fn bottleneck(total: f64, generator: f64) -> &'static str {
    if total > 0.9 * cores() as f64 {
        "all cores"
    } else if generator > 0.9 {
        "load generator"
    } else {
        "none: waits for the disk, for locks, or for other processes"
    }
}
