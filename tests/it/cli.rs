//! The command line.

use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::support::{Database, SECRET, Server, TIMEOUT, ridewire};

async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = ridewire().args(arguments).envs(environment.iter().copied()).output();
    timeout(TIMEOUT, output).await.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_printed_token_is_valid_for_a_server_with_the_same_secret() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let environment = [("DATABASE_URL", database.url.as_str()), ("RIDEWIRE_JWT_SECRET", SECRET)];
    let token = async |arguments: &[&str]| run(&[&["token"], arguments].concat(), &environment).await;
    let printed = token(&["--sub", "platform", "--role", "service", "--ttl", "5m"]).await;
    assert!(printed.status.success(), "{}", stderr(&printed));
    let service = server.service().with_token(stdout(&printed).trim_end());
    service.put_ride("ride_1", "rider_1", None).await.expect(201);
    let printed = token(&["--sub", "rider_1", "--role", "rider"]).await;
    server.rider("rider_1").with_token(stdout(&printed).trim_end()).get("rides/ride_1").await.expect(200);

    for wrong in [
        &["--sub", "a b", "--role", "rider"][..],
        &["--sub", "rider_1", "--role", "admin"],
        &["--sub", "rider_1"],
        &["--role", "rider"],
        &["--sub", "rider_1", "--role", "rider", "--ttl", "soon"],
    ] {
        let rejected = token(wrong).await;
        assert!(!rejected.status.success() && rejected.stdout.is_empty(), "{wrong:?}");
        assert!(!rejected.stderr.is_empty(), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_database_requires_a_key() {
    let database = Database::create().await;
    let rejected = run(&["serve"], &[("DATABASE_URL", &database.url), ("RIDEWIRE_LISTEN", "127.0.0.1:0")]).await;
    assert!(!rejected.status.success());
    assert!(stderr(&rejected).contains("RIDEWIRE_JWT_SECRET"), "{}", stderr(&rejected));
    assert_eq!(stdout(&rejected), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_settings_prevent_the_start() {
    let database = Database::create().await;
    for (name, value) in [
        ("RIDEWIRE_JWT_SECRET", "short"),
        ("RIDEWIRE_JWT_PUBLIC_KEY", "/nowhere/key.pem"),
        ("RIDEWIRE_CHAT_GRACE", "a while"),
        ("RIDEWIRE_NOTIFY", "maybe"),
        ("RIDEWIRE_LISTEN", "nowhere"),
        ("DATABASE_URL", "http://example.com"),
    ] {
        let environment = [
            ("DATABASE_URL", database.url.as_str()),
            ("RIDEWIRE_JWT_SECRET", SECRET),
            ("RIDEWIRE_LISTEN", "127.0.0.1:0"),
            (name, value),
        ];
        let rejected = run(&[], &environment).await;
        assert!(!rejected.status.success(), "{name}={value}");
        assert!(!stderr(&rejected).is_empty() && stdout(&rejected).is_empty(), "{name}={value}: {rejected:?}");
        assert!(!stderr(&rejected).contains(SECRET));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_and_repeated_migrations_run_once() {
    let database = Database::create().await;
    database.client().await.batch_execute("drop schema public cascade; create schema public").await.unwrap();
    let environment = [("DATABASE_URL", database.url.as_str()), ("RIDEWIRE_JWT_SECRET", SECRET)];
    let both = tokio::join!(run(&["migrate"], &environment), run(&["migrate"], &environment));
    for output in [both.0, both.1, run(&["migrate"], &environment).await] {
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_requests_the_configured_server() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let healthy = run(&["healthcheck"], &[("RIDEWIRE_LISTEN", server.address())]).await;
    assert!(healthy.status.success(), "{}", stderr(&healthy));
    let by_flag = run(&["healthcheck", "--listen", server.address()], &[]).await;
    assert!(by_flag.status.success(), "{}", stderr(&by_flag));
    let address = server.address().to_owned();
    server.kill().await;
    let unhealthy = run(&["healthcheck"], &[("RIDEWIRE_LISTEN", &address)]).await;
    assert!(!unhealthy.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_is_in_the_help() {
    let help = stdout(&run(&["serve", "--help"], &[]).await);
    for setting in [
        "DATABASE_URL",
        "RIDEWIRE_DATA_DIR",
        "RIDEWIRE_LISTEN_DATABASE_URL",
        "RIDEWIRE_LISTEN",
        "RIDEWIRE_JWT_SECRET",
        "RIDEWIRE_JWT_PUBLIC_KEY",
        "RIDEWIRE_CHAT_GRACE",
        "RIDEWIRE_HEARTBEAT",
        "RIDEWIRE_FALLBACK_POLL",
        "RIDEWIRE_NOTIFY",
    ] {
        assert!(help.contains(setting), "{setting}");
        let flag = setting.trim_start_matches("RIDEWIRE_").to_lowercase().replace('_', "-");
        assert!(help.contains(&format!("--{flag}")), "{flag}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unwritable_log_does_not_stop_the_server() {
    let database = Database::create().await;
    let mut server = ridewire()
        .env("DATABASE_URL", &database.url)
        .env("RIDEWIRE_JWT_SECRET", SECRET)
        .env("RIDEWIRE_LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = timeout(TIMEOUT, output.next_line())
        .await
        .expect("the server starts")
        .unwrap()
        .expect("the server keeps running");
    let base = line.strip_prefix("listening on ").unwrap();
    assert_eq!(reqwest::get(format!("{base}/readyz")).await.unwrap().status(), 200);
}

/// Returns the sections of a help page as (heading, text).
fn sections(help: &str) -> Vec<(&str, String)> {
    let mut sections = Vec::new();
    for line in help.lines() {
        match line.strip_suffix(':').filter(|heading| !heading.starts_with(' ')) {
            Some(heading) => sections.push((heading, String::new())),
            None => sections.iter_mut().rev().take(1).for_each(|(_, text)| *text += &format!("{line}\n")),
        }
    }
    sections
}

/// Returns the environment variables of a help page.
fn variables(help: &str) -> Vec<&str> {
    let named = help.split("[env: ").skip(1);
    named.map(|rest| rest.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_subcommand_shows_its_own_options_by_heading() {
    let help = async |command: &str| stdout(&run(&[command, "--help"], &[]).await);
    let token = help("token").await;
    let names = ["DATABASE_URL", "RIDEWIRE_DATA_DIR", "RIDEWIRE_JWKS", "RIDEWIRE_JWT_AUDIENCE", "RIDEWIRE_JWT_ISSUER"];
    let mut shown = variables(&token);
    shown.sort_unstable();
    assert_eq!(shown, [&names[..], &["RIDEWIRE_JWT_PUBLIC_KEY", "RIDEWIRE_JWT_SECRET"]].concat(), "{token}");
    let healthcheck = help("healthcheck").await;
    let names = ["RIDEWIRE_LISTEN", "RIDEWIRE_ADMIN_LISTEN", "RIDEWIRE_TLS_CERTIFICATE"];
    assert_eq!(variables(&healthcheck), names, "{healthcheck}");
    let migrate = help("migrate").await;
    assert!(migrate.contains("--listen-database-url") && !migrate.contains("--heartbeat"), "{migrate}");
    assert_eq!(variables(&help("openapi").await), [""; 0]);

    for command in ["serve", "check"] {
        let help = help(command).await;
        let sections = sections(&help);
        let headings: Vec<_> = sections.iter().map(|(heading, _)| *heading).collect();
        for heading in ["Database", "Keys and tokens", "Limits", "Logs and traces", "Retention"] {
            assert!(headings.contains(&heading), "{command}: {headings:?}");
        }
        let (_, general) = sections.iter().find(|(heading, _)| *heading == "Options").unwrap();
        assert_eq!(variables(general), [""; 0], "each setting of `{command}` has a heading");
    }
    let top = stdout(&run(&["--help"], &[]).await);
    assert!(variables(&top).is_empty() && top.contains("check") && top.contains("Without a command"), "{top}");
    assert!(stdout(&run(&["--version"], &[]).await).starts_with("ridewire "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_is_in_the_reference() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/settings.md")).unwrap();
    let help = stdout(&run(&["check", "--help"], &[]).await) + &stdout(&run(&["serve", "--help"], &[]).await);
    let variables = variables(&help);
    assert!(variables.len() > 100, "{}", variables.len());
    for name in variables {
        assert!(page.contains(&format!("`{name}`")), "docs/reference/settings.md has no row for {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_without_a_command_belong_to_serve() {
    let rejected = run(&["--heartbeat", "soon"], &[]).await;
    assert_eq!(rejected.status.code(), Some(2));
    assert!(stderr(&rejected).contains("RIDEWIRE_HEARTBEAT (--heartbeat)"), "{}", stderr(&rejected));
    let unknown = run(&["sevre"], &[]).await;
    assert!(unknown.status.code() == Some(2) && stderr(&unknown).contains("serve"), "{}", stderr(&unknown));
}
