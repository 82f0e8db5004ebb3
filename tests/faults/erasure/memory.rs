//! What is in the memory of a server process.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use memchr::memmem;

/// Freed memory is overwritten at once (glibc's `M_PERTURB`), without the caches of threads that would put that off. So what is found
/// is in memory that is in use: in what the server keeps, in a buffer of an open connection, or on a stack.
pub(super) const OVERWRITE_FREED: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0");

/// How much is shown around what is found.
const AROUND: usize = 60;

/// How much is read at once.
const PART: usize = 16 << 20;

/// Whether the memory of a process of ours can be read, and is overwritten when it is freed.
pub(super) fn can_be_searched(pid: u32) -> bool {
    if !cfg!(target_env = "gnu") {
        eprintln!("the memory is not searched: only glibc overwrites what is freed");
        return false;
    }
    match File::open(format!("/proc/{pid}/mem")) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("the memory is not searched: the kernel does not let us read it: {error}");
            false
        }
    }
}

/// Where any of the words is in the writable memory of a process, each with what stands around it.
pub(super) fn search(pid: u32, words: &[&str]) -> Vec<String> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let longest = words.iter().map(|word| word.len()).max().unwrap();
    let finders: Vec<_> = words.iter().map(|word| (word, memmem::Finder::new(word))).collect();
    let mut found = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let name = fields.nth(3).unwrap_or("memory");
        if !rights.starts_with("rw") || name.starts_with("[v") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut at = from;
        while at < to {
            let mut part = vec![0; PART.min(usize::try_from(to - at).unwrap())];
            // A region may have gone since, and pages may be reserved and not readable.
            let Ok(read) = memory.read_at(&mut part, at) else { break };
            part.truncate(read);
            for (word, finder) in &finders {
                for place in finder.find_iter(&part) {
                    let around = &part[place.saturating_sub(AROUND)..(place + AROUND).min(read)];
                    found.push(format!("{word} in {name} at {:x}: {}", at + place as u64, around.escape_ascii()));
                }
            }
            if read < longest {
                break;
            }
            // A word may lie across two parts.
            let next = at + read as u64;
            at = if next < to { next - longest as u64 + 1 } else { next };
        }
    }
    found
}
