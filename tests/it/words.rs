//! The vocabulary: standard terms instead of private words, in all files of the repository.
//!
//! Each entry has a word that is always wrong and the term to use instead. A failure lists each occurrence.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Names and titles, compared exactly.
const NAMES: &[(&str, &str)] = &[
    ("Desk", "BatchContext or HandoverSlot"),
    ("Ledger", "BatchState"),
    ("Heeding", "RemoteObserver"),
    ("Heard", "RemoteUpdate"),
    ("Attendance", "PresenceTracker"),
    ("Attending", "PresenceGuard"),
    ("Attendee", "PresenceEntry"),
    ("Believing", "PgServerCertVerifier"),
    ("GoingOn", "OpenRides"),
    ("KnownRide", "CachedRide"),
    ("LastValue", "LatestValue"),
    ("LeftAs", "RideAtLeave"),
    ("MarkKind", "ReceiptKind"),
    ("MergedNext", "MergedItem"),
    ("NotOurs", "WrongOwner"),
    ("Refusal", "ApiError"),
    ("RidePlace", "RideListCursor"),
    ("Suspicion", "ConnectionHealth"),
    ("TooManyWaiting", "TooManyQueuedWrites"),
    ("FLIGHTS", "MAX_IN_FLIGHT"),
    ("Our fault", "Internal server error"),
    ("It lives", "Liveness probe"),
    ("It can work", "Readiness probe"),
    ("under_locks", "locking path"),
    ("ridewire_answers_total", "ridewire_http_requests_total"),
    ("ridewire_audit_waiting_entries", "ridewire_audit_pending_entries"),
    ("ridewire_held_bytes", "ridewire_http_buffered_bytes"),
    ("ridewire_listen_lag_seconds", "ridewire_listener_lag_seconds"),
    ("ridewire_open", "ridewire_connections"),
    ("ridewire_refusals_total", "ridewire_api_errors_total"),
    ("ridewire_rejections_total", "ridewire_limit_rejections_total"),
    ("ridewire_streams_put_off_total", "ridewire_streams_rejected_total"),
];

/// Words and phrases, compared without case. An underscore counts as a space, so they are found in identifiers too.
const PHRASES: &[(&str, &str)] = &[
    ("a word about it", "a message"),
    ("address for operators", "admin listener"),
    ("anybody", "any user, any client"),
    ("asker", "caller or responder"),
    ("enlist", "register"),
    ("enlisted", "registered"),
    ("enlists", "registers"),
    ("everybody", "all users, all replicas"),
    ("fate", "outcome"),
    ("flights", "in-flight batches"),
    ("heard", "received"),
    ("hears", "receives"),
    ("in silence", "silently"),
    ("in vain", "conflict, failed or timed out"),
    ("judge", "apply or decide"),
    ("judged", "applied or decided"),
    ("judges", "applies or decides"),
    ("lapsed", "expired"),
    ("look again", "refresh or reload"),
    ("looks again", "refreshes or reloads"),
    ("one's", "the user's, own"),
    ("operators' address", "admin listener"),
    ("over for good", "closed"),
    ("patience", "timeout"),
    ("people of a ride", "participants"),
    ("put off", "throttled or postponed"),
    ("reap", "remove what has expired"),
    ("reaps", "removes what has expired"),
    ("refusal", "rejection"),
    ("refusals", "rejections"),
    ("ride's people", "participants"),
    ("somebody", "a user, another session"),
    ("straggler", "late commit"),
    ("stragglers", "late commits"),
    ("straggles", "may still commit"),
    ("straggling", "late"),
    ("tells", "sends, returns or reports"),
    ("told", "receives, is notified, is passed"),
    ("unattended", "unregistered"),
    ("unheard", "without a notification"),
    ("whoever", "the user, the client, the session"),
];

/// Files that keep the old words: the changelog's history, migrations that have been released, and generated files.
const EXCLUDED: &[&str] = &["CHANGELOG.md", "Cargo.lock", "package-lock.json", "sql/migrations/", "tests/it/words.rs"];

/// Returns whether `text` contains `word` with no letter or digit directly before or after it.
fn contains_word(text: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + word.len()..].chars().next());
        !before.is_some_and(is_letter) && !after.is_some_and(is_letter)
    })
}

/// Returns the entries that a line violates.
fn violations(line: &str) -> Vec<(&'static str, &'static str)> {
    let prose = line.replace('_', " ").to_lowercase();
    let names = NAMES.iter().filter(|(name, _)| contains_word(line, name));
    names.chain(PHRASES.iter().filter(|(phrase, _)| contains_word(&prose, phrase))).copied().collect()
}

#[test]
fn private_words_are_found_in_prose_and_identifiers() {
    let words = |line: &str| violations(line).into_iter().map(|(word, _)| word).collect::<Vec<_>>();
    assert_eq!(words("struct Ledger {"), ["Ledger"]);
    assert_eq!(words("/// A straggler is over for good."), ["over for good", "straggler"]);
    assert_eq!(words("async fn a_retry_in_vain_is_told() {"), ["in vain", "told"]);
    assert_eq!(words("sum(ridewire_open)"), ["ridewire_open"]);
    assert_eq!(words("ridewire_opened: a ledger, everyone's retold story"), Vec::<&str>::new());
}

#[test]
fn tracked_files_contain_no_private_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root).output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: this is not a git checkout");
        return;
    };
    let mut found = Vec::new();
    for path in String::from_utf8(listed.stdout).unwrap().lines() {
        if EXCLUDED.iter().any(|excluded| path.starts_with(excluded) || path.ends_with(excluded)) {
            continue;
        }
        // Deleted files and binary files are skipped.
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (word, term) in violations(line) {
                found.push(format!("{path}:{}: `{word}`; write: {term}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} private words:\n{}", found.len(), found.join("\n"));
}
