//! Prometheus and Grafana: metric names, alert rules and the dashboard.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;

use crate::jwks::{EC, set};
use crate::support::{Database, Server, User, eventually};

/// 2031-01-01T00:00:00Z, the expiry of the test certificate, in Unix seconds.
const EXPIRY: &str = "1924992000";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap()
}

/// Runs promtool with this input. Returns `None` and prints a message if promtool is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(root("ops/prometheus"));
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: promtool is not installed; scripts/test-programs.sh installs it");
        return None;
    };
    // promtool may exit before it reads the input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Some(child.wait_with_output().unwrap())
}

/// Returns the output of promtool, which must succeed.
fn accepted(output: &Output) -> String {
    let output_text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{output_text}");
    output_text
}

/// Returns `/metrics` of a server that uses every feature with a metric.
async fn everything() -> String {
    let database = Database::create().await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let key = KeyPair::generate().unwrap();
    let certificate = |year| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    // The certificate of a chain that expires first counts.
    let [chain, private, keys] = ["chain.pem", "key.pem", "keys.json"].map(path);
    fs::write(&chain, [certificate(2035), certificate(2031)].concat()).unwrap();
    fs::write(&private, key.serialize_pem()).unwrap();
    fs::write(&keys, set(&[EC])).unwrap();
    // The port is free, and no other program takes it so soon.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let admin = format!("127.0.0.1:{port}");
    let settings = [
        ("RIDEWIRE_ADMIN_LISTEN", admin.as_str()),
        ("RIDEWIRE_CONSOLE", "on"),
        ("RIDEWIRE_TLS_CERTIFICATE", chain.as_str()),
        ("RIDEWIRE_TLS_KEY", private.as_str()),
        ("RIDEWIRE_JWKS", keys.as_str()),
    ];
    let server = Server::start_with(&database, &settings).await;
    // With the console, the admin listener serves the API without TLS.
    let base = format!("http://{admin}");
    let at_admin = |mut user: User| {
        user.base.clone_from(&base);
        user
    };
    let service = at_admin(EC.service(&server));
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(201);
    let rider = at_admin(server.rider("rider_1").with_token(EC.token("ec-2026", "rider_1", "rider")));
    let mut stream = rider.stream("ride_1", "").await.expect(200);
    stream.next_sync().await;
    rider.send("ride_1", "Hello").await;
    stream.next_of_type("message:new").await;
    rider.get("rides/ride_9").await.problem(404, "ride_not_found");
    drop(stream);
    eventually("the stream has ended and a database query has completed", async || {
        let text = reqwest::get(format!("{base}/metrics")).await.unwrap().text().await.unwrap();
        let is_there =
            ["ridewire_http_stream_duration_seconds_count", "ridewire_listener_state{state=\"listening\"} 1"]
                .iter()
                .all(|name| text.contains(name));
        (is_there && !text.contains("NaN")).then_some(text)
    })
    .await
}

/// Returns the metric names in a text: those of Ridewire and of the process.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("ridewire_") || word.starts_with("process_")).collect()
}

/// Returns the panels of the dashboard: title, unit and queries.
fn panels() -> Vec<(String, String, Vec<String>)> {
    let dashboard: Value = serde_json::from_str(&read("ops/grafana/ridewire.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let panels = dashboard["panels"].as_array().unwrap().iter().map(|panel| {
        let queries = panel["targets"].as_array().unwrap().iter().map(|target| text(&target["expr"]));
        (text(&panel["title"]), text(&panel["fieldConfig"]["defaults"]["unit"]), queries.collect())
    });
    panels.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_pass_promtool_and_match_the_documents() {
    let metrics = everything().await;
    assert!(metrics.contains(&format!("ridewire_tls_certificate_expiry_timestamp_seconds {EXPIRY}\n")), "{metrics}");
    let age = metrics.lines().find_map(|line| line.strip_prefix("ridewire_jwks_age_seconds ")).unwrap();
    assert!((0.0..3_600.0).contains(&age.parse::<f64>().unwrap()), "{age}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        metrics.contains(&format!(r#"ridewire_build_info{{allocator="system",version="{version}"}} 1"#)),
        "{metrics}"
    );

    if let Some(output) = promtool(&["check", "metrics"], &metrics) {
        assert_eq!(accepted(&output), "");
    }

    let (known, operations) = (names(&metrics), read("docs/how-to/operations.md"));
    for document in ["ops/grafana/ridewire.json", "ops/prometheus/alerts.yml", "ops/prometheus/alerts_test.yml"] {
        let text = read(document);
        let unknown: Vec<_> = names(&text).difference(&known).copied().collect();
        assert!(names(&text).len() > 15 && unknown.is_empty(), "{document} asks for {unknown:?}");
    }
    // The documented table has every metric and no others.
    let described =
        |name: &str| [format!("| `{name}`"), format!("| `{name}{{")].iter().any(|row| operations.contains(row));
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ridewire_")?.split(' ').next());
    let types: Vec<String> = types.map(|name| format!("ridewire_{name}")).collect();
    assert!(types.len() > 25);
    let missing: Vec<_> = types.iter().filter(|name| !described(name)).collect();
    assert!(missing.is_empty(), "docs/how-to/operations.md has no row for {missing:?}");
    let rows = operations.lines().filter_map(|line| line.strip_prefix("| `ridewire_")?.split(['`', '{']).next());
    let unknown: Vec<_> = rows.map(|name| format!("ridewire_{name}")).filter(|name| !types.contains(name)).collect();
    assert!(unknown.is_empty(), "these metrics do not exist: {unknown:?}");
}

#[test]
fn promtool_accepts_the_alerts_and_each_of_them_fires_in_its_test() {
    let (alerts, tests) = (read("ops/prometheus/alerts.yml"), read("ops/prometheus/alerts_test.yml"));
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = format!("        alertname: {alert}\n        exp_alerts:\n          - exp_labels");
        assert!(tests.contains(&fires), "{alert} fires in no test");
        assert!(
            tests.contains(&format!("{{ eval_time: 100m, alertname: {alert} }}")),
            "{alert} has no test in which it does not fire"
        );
    }
    if let Some(output) = promtool(&["check", "rules", "alerts.yml"], "") {
        assert!(accepted(&output).contains("SUCCESS"));
        let output = promtool(&["test", "rules", "alerts_test.yml"], "").unwrap();
        assert!(accepted(&output).contains("SUCCESS"));
    }
}

#[test]
fn each_alert_links_to_its_runbook() {
    let (alerts, operations) = (read("ops/prometheus/alerts.yml"), read("docs/how-to/operations.md"));
    let rules: Vec<_> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 15);
    for rule in rules {
        let (alert, rule) = rule.split_once('\n').unwrap();
        let link = rule.lines().find_map(|line| line.trim().strip_prefix("runbook_url: ")).unwrap_or_default();
        assert_eq!(link, format!("docs/how-to/operations.md#{}", alert.to_lowercase()));
        // The anchor of a heading is its text in lower case.
        assert!(
            operations.contains(&format!("\n### {alert}\n\n")),
            "docs/how-to/operations.md has no section on {alert}"
        );
    }
    for heading in operations.lines().filter_map(|line| line.strip_prefix("### Ridewire")) {
        assert!(alerts.contains(&format!("- alert: Ridewire{heading}\n")), "there is no alert Ridewire{heading}");
    }
}

#[test]
fn promtool_accepts_the_queries_of_the_dashboard() {
    let queries: Vec<String> = panels().into_iter().flat_map(|(.., queries)| queries).collect();
    assert!(queries.len() > 30);
    // promtool checks rules but no queries, so the queries become rules. Grafana's variables are replaced by values.
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        let query = query.replace("$__rate_interval", "1m").replace("$instance", "one|two");
        assert!(!query.contains('$'), "{query}");
        rules += &format!("      - record: dashboard:query:{number}\n        expr: {}\n", serde_json::json!(query));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.yml");
    fs::write(&path, rules).unwrap();
    if let Some(output) = promtool(&["check", "rules", path.to_str().unwrap()], "") {
        assert!(accepted(&output).contains(&format!("{} rules found", queries.len())));
    }
}

/// Returns the Grafana unit of a query's values.
fn unit(query: &str) -> &'static str {
    let has = |part: &str| query.contains(part);
    match () {
        // A number of cores: CPU seconds per second.
        () if has("process_cpu_seconds_total") => "short",
        // An average: commands per batch.
        () if has("ridewire_batch_commands_sum") => "short",
        () if has(" / ") || has("_ratio{") => "percentunit",
        () if has("_seconds_count{") => "reqps",
        () if has("_total{") => "ops",
        () if has("_bytes{") => "bytes",
        () if has("_timestamp_seconds{") => {
            if has(" - time()") {
                "s"
            } else {
                "dateTimeAsIso"
            }
        }
        () if has("_seconds{") || has("_seconds_bucket{") => "s",
        () => "short",
    }
}

#[test]
fn no_panel_of_the_dashboard_mixes_units() {
    let mut titles = BTreeSet::new();
    for (title, expected, queries) in panels() {
        for query in &queries {
            assert_eq!(unit(query), expected, "{title}: {query}");
        }
        assert!(titles.insert(title.clone()), "{title} exists twice");
    }
}
