//! Checks that the commands in the README and in the migration guides work as written, and that links between documents have a target.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Database, Server, TIMEOUT};

/// The environment of the pasted commands: a failed request ends the script, and a stream is closed after its first event.
const PRELUDE: &str = r#"set -eu
curl() {
    case " $* " in
    *" -N "*)
        # The file may have the previous stream, and the background process may start late.
        : >"$STREAM"
        command curl -sS --fail-with-body --noproxy '*' "$@" >"$STREAM" 2>&1 &
        stream=$!
        until grep -q '^data: .*}$' "$STREAM"; do
            kill -0 $stream || { cat "$STREAM"; return 1; }
            sleep 0.05
        done
        kill $stream
        wait $stream || true
        cat "$STREAM"
        ;;
    *) command curl -sS --fail-with-body --noproxy '*' "$@" ;;
    esac
}
"#;

/// Runs all commands of a page in one shell and returns their output.
async fn run_commands(page: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
    let blocks: Vec<_> = text.split("```bash\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let token = |name: &str| match name {
        "RIDER" => server.rider("rider_1").token,
        "DRIVER" => server.driver("driver_1").token,
        _ => server.service().token,
    };
    // The page's example settings are replaced by those of this server.
    let (settings, commands) = blocks.split_first().unwrap();
    let mut script = PRELUDE.to_owned();
    for line in settings.lines() {
        let (name, _) = line.split_once('=').unwrap();
        let value = if name == "BASE" { format!("{}/api/v1", server.base) } else { token(name) };
        script += &format!("{name}='{value}'\n");
    }
    let script = script + "set -x\n" + &commands.concat();
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("STREAM", directory.path().join("stream")).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(TIMEOUT * 2, shell.output()).await.expect("it ends").unwrap();
    let (output_text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{page}: {output_text}\n{log}");
    output_text.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_in_the_polling_migration_guide_work_as_written() {
    let output_text = run_commands("how-to/migrate-from-polling.md").await;
    assert!(output_text.contains("}304\n"), "unexpected 304: {output_text}");
    assert!(output_text.contains("event: stream:sync"), "{output_text}");
    assert!(output_text.contains(r#""total":0"#), "unread messages remain: {output_text}");
    let messages = output_text.split(r#"{"id":""#).skip(1).filter(|message| message.contains("phone-1:17"));
    let named: Vec<_> = messages.filter_map(|message| message.split('"').next()).collect();
    assert!(named.len() >= 2 && named.iter().all(|id| *id == named[0]), "more than one message for an id: {named:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_in_the_websocket_migration_guide_work_as_written() {
    let output_text = run_commands("how-to/migrate-from-websocket.md").await;
    assert_eq!(output_text.matches("event: stream:sync").count(), 2, "{output_text}");
    assert!(output_text.contains(r#""status":"arrived""#), "{output_text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_conversation_in_the_readme_works_as_written() {
    let output_text = run_commands("../README.md").await;
    assert_eq!(output_text.matches("event: stream:sync").count(), 2, "{output_text}");
    assert!(output_text.contains(r#""content":"Hello""#), "{output_text}");
}

/// Returns all Markdown documents of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                waiting.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// Returns the anchor of a heading, as GitHub generates it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_between_documents_have_a_target() {
    let mut checked = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        // Skip code blocks.
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let named = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let shown = document.display();
            assert!(named.exists(), "{shown}: {target} does not exist");
            if !fragment.is_empty() && named.extension().is_some_and(|extension| extension == "md") {
                let there = fs::read_to_string(&named).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line.trim_start_matches('#').trim()) == fragment),
                    "{shown}: {target}: no such heading"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}
