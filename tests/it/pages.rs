//! What the pages about moving an app tell to paste works as it stands there; and links between documents lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Database, PATIENCE, Server};

/// What is around the commands of a page: a refusal ends it all, and a stream is left once it has begun: it says one thing.
const PRELUDE: &str = r#"set -eu
curl() {
    case " $* " in
    *" -N "*)
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

/// Runs what a page tells to paste, in one shell, and returns what it prints.
async fn pasted(page: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
    let blocks: Vec<_> = text.split("```bash\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let token = |name: &str| match name {
        "RIDER" => server.rider("rider_1").token,
        "DRIVER" => server.driver("driver_1").token,
        _ => server.service().token,
    };
    // The settings of a reader's own machine are those of this server.
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
    let output = timeout(PATIENCE * 2, shell.output()).await.expect("it ends").unwrap();
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{page}: {said}\n{log}");
    said.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_an_app_that_polled_work_as_they_stand() {
    let said = pasted("migrate-from-polling.md").await;
    assert!(said.contains("}304\n"), "nothing has changed: {said}");
    assert!(said.contains("event: stream:sync"), "{said}");
    assert!(said.contains(r#""total":0"#), "all is read: {said}");
    let messages = said.split(r#"{"id":""#).skip(1).filter(|message| message.contains("phone-1:17"));
    let named: Vec<_> = messages.filter_map(|message| message.split('"').next()).collect();
    assert!(named.len() >= 2 && named.iter().all(|id| *id == named[0]), "a name is one message: {named:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_an_app_that_had_a_socket_work_as_they_stand() {
    let said = pasted("migrate-from-websocket.md").await;
    assert_eq!(said.matches("event: stream:sync").count(), 2, "{said}");
    assert!(said.contains(r#""status":"arrived""#), "{said}");
}

/// All documents in Markdown, but for those of others.
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

/// What a heading is called in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut checked = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        // Not what only looks like a link in an example.
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let named = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let shown = document.display();
            assert!(named.exists(), "{shown}: {target} is not there");
            if !fragment.is_empty() && named.extension().is_some_and(|extension| extension == "md") {
                let there = fs::read_to_string(&named).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line.trim_start_matches('#').trim()) == fragment),
                    "{shown}: {target}: there is no such heading"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}
