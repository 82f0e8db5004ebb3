//! Searches the memory of a server process.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use memchr::memmem;

/// glibc settings that overwrite memory when it is freed (`M_PERTURB`), without thread caches that would delay that.
///
/// So a match is in memory that is in use: in the server's state, in the buffer of an open connection, or on a stack.
pub(super) const OVERWRITE_FREED: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0");

/// The number of bytes shown around a match.
const CONTEXT: usize = 60;

/// The size of one read.
const CHUNK: usize = 16 << 20;

/// Returns whether a server's memory can be read and is overwritten when freed.
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

/// Finds the words in the writable memory of a process. Returns each match with the bytes around it.
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
            let mut chunk = vec![0; CHUNK.min(usize::try_from(to - at).unwrap())];
            // A region may have been unmapped since, and reserved pages may not be readable.
            let Ok(read) = memory.read_at(&mut chunk, at) else { break };
            chunk.truncate(read);
            for (word, finder) in &finders {
                for offset in finder.find_iter(&chunk) {
                    let context = &chunk[offset.saturating_sub(CONTEXT)..(offset + CONTEXT).min(read)];
                    found.push(format!("{word} in {name} at {:x}: {}", at + offset as u64, context.escape_ascii()));
                }
            }
            if read < longest {
                break;
            }
            // A word may cross the boundary of two reads.
            let next = at + read as u64;
            at = if next < to { next - longest as u64 + 1 } else { next };
        }
    }
    found
}
