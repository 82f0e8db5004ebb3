//! `ridewire check`: it reports nothing for a correct setup, and exactly the fault of each broken setup.

use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Cluster, Database, PgBouncer, Server, TIMEOUT, clock_ahead, program, ridewire};

/// A secret in the format of `openssl rand -hex 32`.
const SECRET: &str = "0b6ad8f7e1c94d25a3b1c0f29e8d7654f3a2b1908c7d6e5f4a3b2c1d0e9f8a7b";

/// A setup without faults: a durable Postgres and a server on it.
struct Setup {
    database: Database,
    server: Server,
    files: TempDir,
    // Declared last, so that the server stops first.
    _cluster: Cluster,
}

impl Setup {
    async fn new() -> Self {
        let cluster = Cluster::durable().await;
        let (database, files) = (cluster.database(), tempfile::tempdir().unwrap());
        let server = Server::start_with(&database, &[("RIDEWIRE_JWT_SECRET", SECRET)]).await;
        Self { database, server, files, _cluster: cluster }
    }

    /// Returns the settings. A later setting of the same name replaces an earlier one.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let (certificate, key) = self.certificate("cert", |_| {});
        vec![
            ("DATABASE_URL", self.database.url.clone()),
            ("RIDEWIRE_JWT_SECRET", SECRET.to_owned()),
            ("RIDEWIRE_LISTEN", "127.0.0.1:0".to_owned()),
            ("RIDEWIRE_MAX_CONNECTIONS", "100".to_owned()),
            ("RIDEWIRE_TLS_CERTIFICATE", certificate),
            ("RIDEWIRE_TLS_KEY", key),
            // Signed with the server's secret, independently of the other settings.
            ("RIDEWIRE_CHECK_TOKEN", self.token()),
        ]
    }

    fn token(&self) -> String {
        let signer = ridewire::auth::Signer::new(SECRET.as_bytes()).unwrap();
        let user = ridewire::domain::UserId::parse("checker").unwrap();
        signer.sign(&user, ridewire::domain::Role::Rider, Duration::from_secs(3_600)).unwrap()
    }

    /// Creates a certificate for `localhost` and its key, and returns their paths.
    fn certificate(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let file = |end: &str, text: String| {
            let path = self.files.path().join(format!("{name}.{end}"));
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        (file("pem", params.self_signed(&key).unwrap().pem()), file("key", key.serialize_pem()))
    }

    /// Returns the URL of another database, or of another role.
    fn url(&self, role: &str, database: &str) -> String {
        let (_, rest) = self.database.url.split_once('@').unwrap();
        let (host, _) = rest.rsplit_once('/').unwrap();
        format!("postgresql://{role}@{host}/{database}")
    }

    async fn check(&self, broken: &Broken) -> Report {
        let mut arguments = broken.arguments.clone();
        for (option, value) in [("--replicas", "2"), ("--url", self.server.base.as_str())] {
            if !arguments.iter().any(|argument| argument == option) {
                arguments.extend([option, value].map(str::to_owned));
            }
        }
        let mut command = match broken.files {
            Some(files) => {
                let mut shell = tokio::process::Command::new("sh");
                shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).kill_on_drop(true);
                shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(program());
                shell
            }
            None => ridewire(),
        };
        command.arg("check").args(arguments);
        for (name, value) in self.settings().into_iter().chain(broken.settings.iter().cloned()) {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        let output = timeout(TIMEOUT, command.output()).await.expect("the check ends").unwrap();
        Report::of(&output)
    }

    /// Asserts that the check reports exactly one problem, with these texts.
    async fn reports(&self, what: &str, broken: Broken, check: &str, level: &str, texts: &[&str]) {
        let found = self.check(&broken).await;
        let [problem] = found.problems.as_slice() else { panic!("{what}: not one problem:\n{}", found.page) };
        assert!(problem.starts_with(&format!("{level:<8} {check:<14} ")), "{what}:\n{}", found.page);
        for part in texts {
            assert!(problem.contains(part), "{what}: no {part:?} in:\n{problem}");
        }
        assert_eq!(found.code, if level == "error" { 2 } else { 1 }, "{what}:\n{}", found.page);
    }
}

/// How a setup differs from the correct one.
#[derive(Default)]
struct Broken {
    settings: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    files: Option<u32>,
}

fn with(settings: &[(&'static str, &str)]) -> Broken {
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Broken { settings, ..Broken::default() }
}

fn with_arguments(arguments: &[&str]) -> Broken {
    Broken { arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(), ..Broken::default() }
}

/// The report and the exit code.
#[derive(Debug)]
struct Report {
    page: String,
    problems: Vec<String>,
    code: i32,
}

impl Report {
    fn of(output: &Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(stderr, "", "only the report is printed");
        let page = String::from_utf8(output.stdout.clone()).unwrap();
        let is_problem = |line: &&str| line.starts_with("warning ") || line.starts_with("error ");
        let problems = page.lines().filter(is_problem).map(str::to_owned).collect();
        assert!(page.lines().count() <= 30, "the report fits on one page:\n{page}");
        for secret in [SECRET, "hunter2"] {
            assert!(!page.contains(secret), "{page}");
        }
        Self { problems, code: output.status.code().unwrap(), page }
    }
}

/// Returns all objects of a database and all roles.
async fn objects(url: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let objects = "select 'class ' || oid::regclass from pg_class where relnamespace = 'public'::regnamespace
        union all select 'function ' || oid::regprocedure from pg_proc where pronamespace = 'public'::regnamespace
        union all select 'schema ' || nspname from pg_namespace where nspname not like 'pg\\_%'
        union all select 'role ' || rolname from pg_roles
        order by 1";
    client.query(objects, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correct_setup_has_no_problems_and_is_not_changed() {
    let setup = Setup::new().await;
    let admin = setup.database.client().await;
    admin.batch_execute("create database empty").await.unwrap();
    let empty = setup.url("ridewire", "empty");
    let (before, stored) = (objects(&setup.database.url).await, setup.database.contents().await);
    let before_of_empty = objects(&empty).await;

    for (what, settings) in [
        ("a running server", with(&[])),
        ("an empty database", with(&[("DATABASE_URL", &empty)])),
        // The address of the running server is not in use by another program.
        (
            "the address of the running server",
            with(&[
                ("RIDEWIRE_LISTEN", setup.server.address()),
                ("RIDEWIRE_TLS_CERTIFICATE", ""),
                ("RIDEWIRE_TLS_KEY", ""),
            ]),
        ),
        ("a token signed by the check", with(&[("RIDEWIRE_CHECK_TOKEN", "")])),
    ] {
        let found = setup.check(&settings).await;
        assert!(found.code == 0 && found.problems.is_empty(), "{what}:\n{}", found.page);
        let all_ok = found.page.lines().all(|line| line.starts_with("ok ") || line == "no problem found");
        assert!(all_ok, "{what}:\n{}", found.page);
    }
    assert_eq!((objects(&setup.database.url).await, setup.database.contents().await), (before, stored));
    assert_eq!(objects(&empty).await, before_of_empty);

    // The check does not start a private Postgres, and does not create its directory and secret.
    let data = setup.files.path().join("data").display().to_string();
    let private = [("DATABASE_URL", ""), ("RIDEWIRE_JWT_SECRET", ""), ("RIDEWIRE_DATA_DIR", data.as_str())];
    let found = setup.check(&with(&private)).await;
    assert!(found.code == 0 && found.page.contains("creates a private PostgreSQL"), "{}", found.page);
    assert!(!setup.files.path().join("data").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_setting_is_found() {
    let setup = Setup::new().await;
    let misspelt = with(&[("RIDEWIRE_DRAIN_WINDW", "1s")]);
    setup.reports("misspelt", misspelt, "settings", "error", &["did you mean RIDEWIRE_DRAIN_WINDOW?"]).await;
    let slow = with(&[("RIDEWIRE_HEARTBEAT", "2m")]);
    setup.reports("slow heartbeat", slow, "settings", "warning", &["RIDEWIRE_HEARTBEAT is 2m", "idle timeout"]).await;
    let origin = with(&[("RIDEWIRE_CORS_ORIGINS", "https://a.example/app")]);
    setup.reports("origin", origin, "settings", "error", &["RIDEWIRE_CORS_ORIGINS", "must be an origin"]).await;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Each connection is closed immediately.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let port = with(&[("RIDEWIRE_LISTEN", &address)]);
    setup.reports("port in use", port, "address", "error", &[&address, "choose another port"]).await;

    let none = with(&[("RIDEWIRE_JWT_SECRET", "")]);
    setup.reports("no key", none, "keys", "error", &["set RIDEWIRE_JWT_SECRET"]).await;
    let short = with(&[("RIDEWIRE_JWT_SECRET", "hunter2")]);
    setup.reports("short secret", short, "keys", "error", &["at least 32", "openssl rand -hex 32"]).await;
    let weak = with(&[("RIDEWIRE_JWT_SECRET", "my-secret-my-secret-my-secret-my-secret")]);
    setup.reports("weak secret", weak, "keys", "warning", &["can be guessed", "openssl rand -hex 32"]).await;
    let issuer = with(&[("RIDEWIRE_JWKS", "http://127.0.0.1:1/jwks.json")]);
    setup
        .reports("issuer unreachable", issuer, "issuer's keys", "error", &["http://127.0.0.1:1/", "reach the issuer"])
        .await;

    let days = |days: i64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.checked_add_signed(86_400 * days).unwrap())
    };
    let pair = |(certificate, key): (String, String)| {
        with(&[("RIDEWIRE_TLS_CERTIFICATE", &certificate), ("RIDEWIRE_TLS_KEY", &key)])
    };
    let expired = pair(setup.certificate("expired", |params| params.not_after = days(-1)));
    setup.reports("expired", expired, "certificate", "error", &["it expired on", "renew it"]).await;
    let expiring = pair(setup.certificate("expiring", |params| params.not_after = days(3)));
    setup.reports("expires soon", expiring, "certificate", "warning", &["it expires on", "renew it"]).await;
    let (certificate, _) = setup.certificate("one", |_| {});
    let (_, key) = setup.certificate("other", |_| {});
    let mismatch = pair((certificate, key));
    setup.reports("mismatch", mismatch, "certificate", "error", &["RIDEWIRE_TLS_KEY", "the key must be that of"]).await;
    let name = with(&[("RIDEWIRE_PUBLIC_URL", "https://chat.example.com")]);
    let texts = ["clients use chat.example.com", "it is for localhost"];
    setup.reports("another name", name, "certificate", "warning", &texts).await;

    let few = Broken { files: Some(300), ..Broken::default() };
    setup.reports("few files", few, "open files", "warning", &["at most 300", "ulimit -H -n"]).await;
    let clock = with(&[("LD_PRELOAD", &clock_ahead())]);
    setup.reports("clock", clock, "clock", "error", &["s ahead of", "run NTP"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_the_database_is_found() {
    let setup = Setup::new().await;
    let admin = setup.database.client().await;
    admin.batch_execute("create role reader login; create role limited login connection limit 8").await.unwrap();
    admin.batch_execute("create database empty").await.unwrap();

    let unreachable = with(&[("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d")]);
    let texts = ["DATABASE_URL (127.0.0.1:1)", "check that Postgres runs there"];
    setup.reports("unreachable", unreachable, "database", "error", &texts).await;
    let nowhere = with(&[("DATABASE_URL", &setup.url("ridewire", "nowhere"))]);
    setup.reports("no database", nowhere, "database", "error", &["does not exist", "create the database"]).await;
    let wrong = with(&[("DATABASE_URL", "http://example.com")]);
    setup.reports("no URL", wrong, "database", "error", &["DATABASE_URL must be a Postgres URL"]).await;

    let set =
        "do $$ begin execute format('alter database %I set default_transaction_read_only = ', current_database()) ||";
    admin.batch_execute(&format!("{set} 'on'; end $$")).await.unwrap();
    setup.reports("read-only", with(&[]), "writes", "error", &["read-only", "default_transaction_read_only"]).await;
    admin.batch_execute(&format!("set default_transaction_read_only = off; {set} 'off'; end $$")).await.unwrap();
    // The shared Postgres of the tests runs without fsync.
    let not_durable = Database::create().await;
    let without_fsync = with(&[("DATABASE_URL", &not_durable.url)]);
    setup.reports("fsync is off", without_fsync, "durability", "error", &["fsync", "set both to on"]).await;

    let change = async |statements: &str| admin.batch_execute(statements).await.unwrap();
    let latest = "version = (select max(version) from ridewire_migrations)";
    change(&format!("create table kept as select * from ridewire_migrations where {latest}")).await;
    change(&format!("delete from ridewire_migrations where {latest}")).await;
    setup.reports("older", with(&[]), "schema", "warning", &["the next start migrates: V", "ridewire migrate"]).await;
    change("insert into ridewire_migrations select * from kept; drop table kept").await;
    change("insert into ridewire_migrations values (9999, 'future', '2030-01-01T00:00:00Z', '1')").await;
    setup.reports("newer", with(&[]), "schema", "error", &["V9999__future", "run the newer version"]).await;
    change("delete from ridewire_migrations where version = 9999").await;
    let checksum = "update ridewire_migrations set checksum = (checksum::numeric";
    change(&format!("{checksum} - 1)::text where version = 1")).await;
    setup.reports("divergent", with(&[]), "schema", "error", &["V1__core", "another content"]).await;
    change(&format!("{checksum} + 1)::text where version = 1")).await;

    change("grant usage on schema public to reader; grant select on all tables in schema public to reader").await;
    let reader = with(&[("DATABASE_URL", &setup.url("reader", "ridewire"))]);
    setup.reports("no rights", reader, "privileges", "error", &["permission denied for table", "grant reader"]).await;
    let (client, connection) =
        tokio_postgres::connect(&setup.url("ridewire", "empty"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("revoke create on schema public from public").await.unwrap();
    let creator = with(&[("DATABASE_URL", &setup.url("reader", "empty"))]);
    setup.reports("may not create", creator, "privileges", "error", &["reader may not create tables"]).await;
    let schemaless = format!("{}?options=-csearch_path%3Dnowhere", setup.database.url);
    let schemaless = with(&[("DATABASE_URL", &schemaless)]);
    setup.reports("no schema", schemaless, "schema", "error", &["`search_path`", "create it"]).await;

    let many = with_arguments(&["--replicas", "100"]);
    setup.reports("many replicas", many, "connections", "error", &["100 × 9", "raise max_connections"]).await;
    let limited = with(&[("DATABASE_URL", &setup.url("limited", "empty"))]);
    client.batch_execute("grant create on schema public to limited").await.unwrap();
    setup.reports("limited role", limited, "connections", "error", &["8 are allowed", "limit of the role"]).await;
    let elsewhere = with(&[("RIDEWIRE_LISTEN_DATABASE_URL", &setup.url("ridewire", "empty"))]);
    setup.reports("elsewhere", elsewhere, "notifications", "error", &["to another database than DATABASE_URL"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_pooler_is_found() {
    let setup = Setup::new().await;
    let Some(bouncer) = PgBouncer::start(&setup.database).await else { return };
    let pooled = [("DATABASE_URL", bouncer.url.as_str())];
    let found = setup.check(&with(&pooled)).await;
    let checks: Vec<_> = found.problems.iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!((checks.as_slice(), found.code), (&["pooler", "notifications"][..], 2), "{}", found.page);
    assert!(found.problems[0].contains("RIDEWIRE_PREPARED_STATEMENTS=off"), "{}", found.page);
    assert!(found.problems[1].contains("RIDEWIRE_LISTEN_DATABASE_URL"), "{}", found.page);

    let unprepared = [&pooled[..], &[("RIDEWIRE_PREPARED_STATEMENTS", "off")]].concat();
    let without_notifications = with(&unprepared);
    setup
        .reports(
            "no notifications",
            without_notifications,
            "notifications",
            "error",
            &["set RIDEWIRE_LISTEN_DATABASE_URL to the database"],
        )
        .await;
    let direct = [&unprepared[..], &[("RIDEWIRE_LISTEN_DATABASE_URL", setup.database.url.as_str())]].concat();
    let found = setup.check(&with(&direct)).await;
    assert!(found.code == 0 && found.problems.is_empty(), "{}", found.page);
}

/// Starts a proxy that buffers whole responses, and returns its URL.
async fn buffering_proxy(upstream: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(proxy_buffered(client, upstream.clone()));
        }
    });
    base
}

/// Forwards one request, and its response after the upstream has closed the connection, as the request demands.
async fn proxy_buffered(mut client: TcpStream, upstream: String) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    server.read_to_end(&mut response).await?;
    client.write_all(&response).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffering_proxy_is_found() {
    let setup = Setup::new().await;
    let proxy = buffering_proxy(setup.server.address().to_owned()).await;
    let held = with_arguments(&["--url", &proxy]);
    setup
        .reports("buffering", held, "proxy", "error", &["did not arrive", "buffering", "docs/how-to/proxies.md"])
        .await;
    let nowhere = with_arguments(&["--url", "http://127.0.0.1:1"]);
    setup.reports("nowhere", nowhere, "proxy", "error", &["http://127.0.0.1:1", "check the address"]).await;
    let path = with_arguments(&["--url", &format!("{}/elsewhere", setup.server.base)]);
    setup.reports("another path", path, "proxy", "error", &["404", "does the proxy forward to Ridewire"]).await;
    let token = with(&[("RIDEWIRE_CHECK_TOKEN", "no.to.ken")]);
    setup.reports("token", token, "proxy", "error", &["401", "RIDEWIRE_CHECK_TOKEN"]).await;
    let unsigned = with(&[("RIDEWIRE_CHECK_TOKEN", ""), ("RIDEWIRE_JWT_SECRET", ""), ("RIDEWIRE_JWT_PUBLIC_KEY", EC)]);
    setup.reports("no token", unsigned, "proxy", "warning", &["set RIDEWIRE_CHECK_TOKEN to a token"]).await;
}

/// A public key, which cannot sign tokens.
const EC: &str = include_str!("../keys/p256.pub.pem");
