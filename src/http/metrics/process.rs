//! Metrics of the server's process, under the names that the Prometheus client libraries share.
//!
//! CPU time comes from getrusage(2), the limit of open files from getrlimit(2). Memory, threads and open files come from
//! `/proc/self` (proc(5)); on systems without it they stay 0. Each scrape reads them.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use prometheus::{Counter, IntGauge, Registry};

/// The metrics of the process.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    cpu: Counter,
    open_files: IntGauge,
    max_files: IntGauge,
    virtual_memory: IntGauge,
    resident_memory: IntGauge,
    threads: IntGauge,
}

impl ProcessMetrics {
    /// Adds the metrics to a registry, with the current time as the start of the process.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let cpu = Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")?;
        registry.register(Box::new(cpu.clone()))?;
        let start = gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        start.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        Ok(Self {
            cpu,
            open_files: gauge("process_open_fds", "Number of open file descriptors.")?,
            max_files: gauge("process_max_fds", "Maximum number of open file descriptors.")?,
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            resident_memory: gauge("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            threads: gauge("process_threads", "Number of OS threads in the process.")?,
        })
    }

    /// Reads the current values.
    pub(super) fn update(&self) {
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
            let total = seconds(usage.user_time()) + seconds(usage.system_time());
            // Two concurrent scrapes may get here in either order. A counter must not decrease.
            self.cpu.inc_by((total - self.cpu.get()).max(0.0));
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.max_files.set(i64::try_from(soft).unwrap_or(i64::MAX));
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (field, gauge, unit) in [
            ("VmSize", &self.virtual_memory, 1024),
            ("VmRSS", &self.resident_memory, 1024),
            ("Threads", &self.threads, 1),
        ] {
            if let Some(value) = number(&status, field) {
                gauge.set(value.saturating_mul(unit));
            }
        }
    }
}

/// Parses the number in a line such as `VmRSS:     5120 kB`.
fn number(status: &str, field: &str) -> Option<i64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_status_field_by_its_whole_name() {
        let status = "Name:\tridewire\nVmSizeOf:\t1 kB\nVmSize:\t  8192 kB\nThreads:\t3\n";
        assert_eq!(number(status, "VmSize"), Some(8192));
        assert_eq!(number(status, "Threads"), Some(3));
        assert_eq!(number(status, "VmRSS"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn reads_cpu_time_memory_and_open_files_of_this_process() {
        let metrics = ProcessMetrics::register(&Registry::new()).unwrap();
        metrics.update();
        let first = metrics.cpu.get();
        metrics.update();
        assert!(first > 0.0 && metrics.cpu.get() >= first);
        assert!(metrics.virtual_memory.get() > metrics.resident_memory.get());
        assert!(metrics.resident_memory.get() > 100_000 && metrics.threads.get() >= 1);
        assert!((3..metrics.max_files.get()).contains(&metrics.open_files.get()));
    }
}
