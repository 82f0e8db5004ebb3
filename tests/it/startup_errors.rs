//! Every error that prevents the start of a server, as a user reads it: the cause and the remedy.
//!
//! Not tested, because they require another machine or a minute: `EmbeddedError::{NoPrograms, NoAccount, Silent, Database}`,
//! `AppError::{Metrics, Signals, Task}`, TLS without any cipher suite, and a port below 1024 as another user than root.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::support::{Database, SECRET, TIMEOUT, TlsPostgres, ridewire};

/// Starts a server that must fail, and returns its error output.
async fn rejected_start(what: &str, environment: &[(&str, OsString)]) -> String {
    let mut command = ridewire();
    for (name, value) in environment {
        // Empty settings count as unset.
        if value.is_empty() {
            command.env_remove(name)
        } else {
            command.env(name, value)
        };
    }
    let output = timeout(TIMEOUT, command.output())
        .await
        .unwrap_or_else(|_| panic!("{what}: the server does not exit"))
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "{what}: {stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("ridewire: ")), "{what}: {stderr}");
    assert!(!stderr.contains(SECRET), "{what}: {stderr}");
    stderr
}

/// Each row: the label, the setting, its value, and the expected texts.
type Row<'a> = (&'a str, &'a str, String, &'a [&'a str]);

/// Starts a server for each row, with valid settings except that of the row.
async fn assert_rejected(right: &[(&str, &str)], rows: &[Row<'_>]) {
    for (what, name, value, expected) in rows {
        let mut environment: Vec<(&str, OsString)> = right.iter().map(|(name, value)| (*name, value.into())).collect();
        environment.push((name, value.into()));
        let stderr = rejected_start(what, &environment).await;
        for part in *expected {
            assert!(stderr.contains(part), "{what}: no {part:?} in: {stderr}");
        }
    }
}

fn key(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)).unwrap()
}

fn file(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_value_is_reported_with_the_expected_format() {
    // These errors occur before the database connection.
    let right = [
        ("DATABASE_URL", "postgres://u@127.0.0.1:1/d"),
        ("RIDEWIRE_JWT_SECRET", SECRET),
        ("RIDEWIRE_LISTEN", "127.0.0.1:0"),
    ];
    let rows: &[(&str, &str, &[&str])] = &[
        (
            "RIDEWIRE_DRAIN_WINDW",
            "1s",
            &["RIDEWIRE_DRAIN_WINDW is not a setting", "did you mean RIDEWIRE_DRAIN_WINDOW?"],
        ),
        ("RIDEWIRE_ZEBRA", "1", &["RIDEWIRE_ZEBRA is not a setting", "`ridewire serve --help`"]),
        ("RIDEWIRE_CHAT_GRACE", "a while", &["RIDEWIRE_CHAT_GRACE (--chat-grace)", "\"a while\"", "15s, 3m or 24h"]),
        ("RIDEWIRE_HEARTBEAT", "0s", &["RIDEWIRE_HEARTBEAT (--heartbeat)", "more than zero"]),
        ("RIDEWIRE_WEBHOOK_RETRIES", "5s,soon", &["RIDEWIRE_WEBHOOK_RETRIES (--webhook-retries)", "15s, 3m or 24h"]),
        ("RIDEWIRE_NOTIFY", "maybe", &["RIDEWIRE_NOTIFY (--notify)", "\"maybe\"", "write one of on, off"]),
        ("RIDEWIRE_CONSOLE", "perhaps", &["RIDEWIRE_CONSOLE (--console)", "write one of on, off"]),
        ("RIDEWIRE_DEMO", "perhaps", &["RIDEWIRE_DEMO (--demo)", "write one of true, false"]),
        ("RIDEWIRE_MAX_STREAMS", "many", &["RIDEWIRE_MAX_STREAMS (--max-streams)", "write a whole number"]),
        ("RIDEWIRE_DATABASE_CONNECTIONS", "0", &["RIDEWIRE_DATABASE_CONNECTIONS", "at least 1"]),
        ("RIDEWIRE_MAX_HEAD", "1", &["RIDEWIRE_MAX_HEAD (--max-head)", "from 8192 to 1048576"]),
        ("RIDEWIRE_MEMORY", "1", &["RIDEWIRE_MEMORY (--memory)", "write it as 512MiB"]),
        ("RIDEWIRE_TRACE_RATIO", "2", &["RIDEWIRE_TRACE_RATIO (--trace-ratio)", "from 0 to 1"]),
        ("RIDEWIRE_LOG", "verbose", &["RIDEWIRE_LOG (--log)", "\"verbose\"", "write a level (error, warn, info"]),
        ("RIDEWIRE_LOG", "ridewire=loud", &["RIDEWIRE_LOG (--log)", "as info,ridewire=debug"]),
        (
            "RIDEWIRE_PUBLIC_URL",
            "chat.example.com",
            &["RIDEWIRE_PUBLIC_URL (--public-url)", "https://chat.example.com"],
        ),
        ("RIDEWIRE_CORS_ORIGINS", "https://a.example/app", &["RIDEWIRE_CORS_ORIGINS", "https://app.example.com"]),
        ("RIDEWIRE_OTLP_ENDPOINT", "http://[", &["RIDEWIRE_OTLP_ENDPOINT", "write it as http://collector:4318"]),
        ("RIDEWIRE_MODERATION_URL", "http://127.0.0.1:9/", &["needs RIDEWIRE_MODERATION_SECRET"]),
        ("DATABASE_URL", "http://example.com", &["DATABASE_URL must be a Postgres URL"]),
        ("DATABASE_URL", "postgres://u@h/d?sslmode=maybe", &["DATABASE_URL", "sslmode must be disable"]),
        ("DATABASE_URL", "postgres://u@h/d?sslmode=verify-ca", &["DATABASE_URL", "needs an sslrootcert"]),
        ("DATABASE_URL", "postgres://u@h/d?sslmode=verify-ca&sslrootcert=/no.pem", &["/no.pem", "as PEM"]),
        ("RIDEWIRE_LISTEN_DATABASE_URL", "nonsense", &["RIDEWIRE_LISTEN_DATABASE_URL must be a Postgres URL"]),
        ("RIDEWIRE_LISTEN", "nowhere", &["RIDEWIRE_LISTEN", "nowhere", "as 127.0.0.1:8080"]),
        ("RIDEWIRE_LISTEN", "192.0.2.1:8080", &["RIDEWIRE_LISTEN", "choose an address of this machine"]),
        ("RIDEWIRE_ADMIN_LISTEN", "nowhere", &["RIDEWIRE_ADMIN_LISTEN", "as 127.0.0.1:8080"]),
    ];
    let rows: Vec<Row> =
        rows.iter().map(|(name, value, expected)| (*name, *name, (*value).to_owned(), *expected)).collect();
    assert_rejected(&right, &rows).await;

    let not_text = OsString::from_vec(b"\xff".to_vec());
    let stderr = rejected_start("not UTF-8", &[("RIDEWIRE_LISTEN", not_text)]).await;
    assert!(stderr.contains("RIDEWIRE_LISTEN (--listen)") && stderr.contains("UTF-8"), "{stderr}");

    let moderation = [&right[..], &[("RIDEWIRE_MODERATION_URL", "http://127.0.0.1:9/")]].concat();
    let secret = format!("whsec_{}", "MfKQ9r8".repeat(8));
    assert_rejected(
        &moderation,
        &[("its secret", "RIDEWIRE_MODERATION_SECRET", "x".to_owned(), &["whsec_", "base64"])],
    )
    .await;
    let moderation = [&moderation[..], &[("RIDEWIRE_MODERATION_SECRET", secret.as_str())]].concat();
    let rows: &[Row] = &[
        (
            "its URL",
            "RIDEWIRE_MODERATION_URL",
            "ftp://h/".to_owned(),
            &["RIDEWIRE_MODERATION_URL", "http:// or https://"],
        ),
        (
            "its time",
            "RIDEWIRE_MODERATION_TIMEOUT",
            "0s".to_owned(),
            &["RIDEWIRE_MODERATION_TIMEOUT", "write it as 300ms"],
        ),
    ];
    assert_rejected(&moderation, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_reported_before_anything_is_created() {
    let (in_use, directory) = (TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    let (in_use_address, data) = (in_use.local_addr().unwrap().to_string(), directory.path().join("data"));
    let data_dir = data.display().to_string();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // With a private Postgres, and a secret that the server would create.
    let rows: &[Row] = &[
        (
            "in use",
            "RIDEWIRE_LISTEN",
            in_use_address.clone(),
            &["RIDEWIRE_LISTEN", &in_use_address, "choose another port"],
        ),
        ("in use", "RIDEWIRE_ADMIN_LISTEN", in_use_address.clone(), &["RIDEWIRE_ADMIN_LISTEN", "choose another port"]),
        ("twice", "RIDEWIRE_ADMIN_LISTEN", free.clone(), &["RIDEWIRE_ADMIN_LISTEN", "RIDEWIRE_LISTEN is the same"]),
    ];
    assert_rejected(&[("RIDEWIRE_DATA_DIR", &data_dir), ("RIDEWIRE_LISTEN", &free)], rows).await;
    assert!(!data.exists(), "something was created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_keys_and_certificates_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| file(&directory, name, text);
    let right = [("DATABASE_URL", "postgres://u@127.0.0.1:1/d"), ("RIDEWIRE_LISTEN", "127.0.0.1:0")];
    let (secret, public, jwks) = ("RIDEWIRE_JWT_SECRET", "RIDEWIRE_JWT_PUBLIC_KEY", "RIDEWIRE_JWKS");
    let two = key("p256.pub.pem") + &key("rsa.pub.pem");
    let rows: &[Row] = &[
        ("none", secret, String::new(), &["set RIDEWIRE_JWT_SECRET, RIDEWIRE_JWT_PUBLIC_KEY or RIDEWIRE_JWKS"]),
        ("short", secret, "short".to_owned(), &["RIDEWIRE_JWT_SECRET", "at least 32", "openssl rand -hex 32"]),
        ("PEM", secret, key("rsa.pub.pem"), &["RIDEWIRE_JWT_SECRET", "configure a public key as the public key"]),
        ("no file", public, "/no/key.pem".to_owned(), &["RIDEWIRE_JWT_PUBLIC_KEY", "/no/key.pem", "name a PEM file"]),
        (
            "neither",
            public,
            "hunter2".to_owned(),
            &["RIDEWIRE_JWT_PUBLIC_KEY", "give text that begins with -----BEGIN"],
        ),
        (
            "not PEM",
            public,
            file("x.pem", "hello"),
            &["RIDEWIRE_JWT_PUBLIC_KEY", "give one with `-----BEGIN PUBLIC KEY"],
        ),
        ("private", public, key("p256.pem"), &["RIDEWIRE_JWT_PUBLIC_KEY", "openssl pkey -pubout"]),
        ("two", public, two, &["RIDEWIRE_JWT_PUBLIC_KEY", "give one public key"]),
        ("short", public, key("rsa1024.pub.pem"), &["RIDEWIRE_JWT_PUBLIC_KEY", "needs at least 2048"]),
        ("curve", public, key("p384.pub.pem"), &["RIDEWIRE_JWT_PUBLIC_KEY", "P-256"]),
        ("kind", public, key("ed448.pub.pem"), &["RIDEWIRE_JWT_PUBLIC_KEY", "RSA", "Ed25519"]),
        (
            "no file",
            jwks,
            "/no/jwks.json".to_owned(),
            &["RIDEWIRE_JWKS", "cannot read /no/jwks.json", "set it to the https://"],
        ),
        ("no set", jwks, file("a.json", "{}"), &["RIDEWIRE_JWKS", "an object with an array `keys`"]),
        ("no key", jwks, file("b.json", r#"{"keys":[]}"#), &["RIDEWIRE_JWKS", "none of its keys can be used"]),
        ("insecure", jwks, "http://192.0.2.1/".to_owned(), &["RIDEWIRE_JWKS", "use https://"]),
    ];
    assert_rejected(&right, rows).await;

    let pair = || generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (CertifiedKey { cert, signing_key }, other) = (pair(), pair());
    let (cert, own) = (file("cert.pem", &cert.pem()), file("key.pem", &signing_key.serialize_pem()));
    let (certificate, key) = ("RIDEWIRE_TLS_CERTIFICATE", "RIDEWIRE_TLS_KEY");
    let with_secret = [&right[..], &[(secret, SECRET)]].concat();
    assert_rejected(&with_secret, &[("one", certificate, cert.clone(), &["set both RIDEWIRE_TLS_CERTIFICATE and"])])
        .await;
    let with_certificate = [&with_secret[..], &[(certificate, cert.as_str())]].concat();
    let rows: &[Row] = &[
        ("no file", key, "/no/key.pem".to_owned(), &["RIDEWIRE_TLS_KEY", "cannot read /no/key.pem", "name a PEM file"]),
        ("no key", key, file("y.pem", "hello"), &["RIDEWIRE_TLS_KEY", "y.pem", "it must be PEM"]),
        (
            "other",
            key,
            file("z.pem", &other.signing_key.serialize_pem()),
            &["RIDEWIRE_TLS_KEY", "the key must be that of"],
        ),
    ];
    assert_rejected(&with_certificate, rows).await;
    let with_key = [&with_secret[..], &[(key, own.as_str())]].concat();
    assert_rejected(
        &with_key,
        &[("no certificate", certificate, file("w.pem", "hello"), &["RIDEWIRE_TLS_CERTIFICATE"])],
    )
    .await;
}

/// The address of another role, database or session of the same Postgres.
fn address(url: &str, role: &str, parameters: &str) -> String {
    let (_, rest) = url.split_once('@').unwrap();
    format!("postgresql://{role}@{rest}{parameters}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_database_is_reported() {
    let (valid, empty, foreign) = (Database::create().await, Database::create().await, Database::create().await);
    let (newer, divergent) = (Database::create().await, Database::create().await);
    let clear = "drop schema public cascade; create schema public; grant usage on schema public to public;";
    let admin = empty.client().await;
    admin.batch_execute(clear).await.unwrap();
    foreign.client().await.batch_execute(&format!("{clear} create table topics (name text)")).await.unwrap();
    for role in ["startup_reader", "startup_limited"] {
        admin.batch_execute(&format!("create role {role} login")).await.unwrap();
    }
    admin.batch_execute("alter role startup_limited connection limit 0").await.unwrap();
    let future = "insert into ridewire_migrations values (9999, 'future', '2030-01-01T00:00:00Z', '1')";
    newer.client().await.batch_execute(future).await.unwrap();
    let other = "update ridewire_migrations set checksum = '1' where version = 1";
    divergent.client().await.batch_execute(other).await.unwrap();

    let own = "ridewire";
    let nowhere = address(&valid.url, own, "_nowhere");
    let schemaless = address(&valid.url, own, "?options=-csearch_path%3Dnowhere");
    let read_only = address(&empty.url, own, "?options=-cdefault_transaction_read_only%3Don");
    let reader = address(&empty.url, "startup_reader", "");
    let limited = address(&empty.url, "startup_limited", "");
    let stranger = address(&empty.url, "startup_stranger", "");
    let url = "DATABASE_URL";
    let rows: &[Row] = &[
        ("no database", url, nowhere, &["DATABASE_URL (", ".s.PGSQL.5432)", "does not exist", "create the database"]),
        ("no role", url, stranger, &["startup_stranger", "check the user and the password"]),
        ("no schema", url, schemaless, &["DATABASE_URL (", "create the schema that `search_path` names"]),
        ("read-only", url, read_only, &["read-only", "run `ridewire migrate` on the primary"]),
        ("no rights", url, reader, &["permission denied", "grant the role the privileges", "`ridewire check`"]),
        ("no connection", url, limited, &["too many connections", "raise max_connections"]),
        ("others' tables", url, foreign.url.clone(), &["\"topics\" already exists", "its own database or schema"]),
        ("newer", url, newer.url.clone(), &["V9999__future", "run the newer version"]),
        ("divergent", url, divergent.url.clone(), &["V1__core", "another content", "run the build"]),
    ];
    let right = [("RIDEWIRE_JWT_SECRET", SECRET), ("RIDEWIRE_LISTEN", "127.0.0.1:0")];
    assert_rejected(&right, rows).await;
    // Roles belong to the whole cluster.
    drop(admin.batch_execute("drop role startup_reader, startup_limited").await);

    let secure = TlsPostgres::start().await;
    let insecure = secure.database("localhost", "sslmode=disable").url.clone();
    assert_rejected(&right, &[("no TLS", url, insecure, &["localhost:", "pg_hba.conf", "check the user"])]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_database_is_logged_at_once_and_then_every_ten_seconds() {
    let environment = [
        ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d"),
        ("RIDEWIRE_JWT_SECRET", SECRET),
        ("RIDEWIRE_LISTEN", "127.0.0.1:0"),
    ];
    let stderr = rejected_start("away", &environment.map(|(name, value)| (name, value.into()))).await;
    let waiting: Vec<_> = stderr.lines().filter(|line| line.contains("database not reachable, retrying")).collect();
    // At 0, 10 and 20 s of the 30 s timeout. An attempt is made every half second.
    assert!((2..=4).contains(&waiting.len()), "{stderr}");
    assert!(waiting.iter().all(|line| line.contains("127.0.0.1:1") && line.contains("DATABASE_URL")), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("ridewire: DATABASE_URL (127.0.0.1:1): ") && last.contains("refused"), "{stderr}");
    assert!(last.contains("check that Postgres runs there") && !stderr.contains("hunter2"), "{stderr}");
}

/// Creates a directory that the user of a private Postgres can traverse.
fn passable() -> TempDir {
    let directory = tempfile::Builder::new().prefix("rw-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Creates fake PostgreSQL programs with these scripts.
fn programs(directory: &Path, initdb: &str, postgres: &str) -> String {
    let bin = directory.join(format!("bin-{}", fastrand::u32(..)));
    fs::create_dir(&bin).unwrap();
    let version = "[ \"$1\" = --version ] && { echo 'postgres (PostgreSQL) 15.0'; exit 0; }";
    for (name, script) in [("initdb", initdb), ("postgres", postgres)] {
        fs::write(bin.join(name), format!("#!/bin/sh\n{version}\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&bin, Permissions::from_mode(0o755)).unwrap();
    bin.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_postgres_that_cannot_start_is_reported() {
    let directory = passable();
    let data = |name: &str| directory.path().join(name);
    let text = |name: &str| data(name).display().to_string();
    let (data_dir, bin) = ("RIDEWIRE_DATA_DIR", "RIDEWIRE_PG_BIN");
    for (name, version) in [("old", "9\n"), ("odd", "odd\n")] {
        fs::create_dir_all(data(name).join("postgres")).unwrap();
        fs::write(data(name).join("postgres/PG_VERSION"), version).unwrap();
    }
    fs::write(data("file"), "").unwrap();
    fs::create_dir(data("open")).unwrap();
    fs::write(data("open").join("jwt-secret"), SECRET).unwrap();
    fs::set_permissions(data("open").join("jwt-secret"), Permissions::from_mode(0o644)).unwrap();
    let here = [("RIDEWIRE_LISTEN", "127.0.0.1:0")];
    let rows: &[Row] = &[
        ("version", data_dir, text("old"), &["created by PostgreSQL 9", "Install it", "RIDEWIRE_DATA_DIR"]),
        ("no cluster", data_dir, text("odd"), &["neither a Postgres cluster nor empty", "move it away"]),
        ("no directory", data_dir, text("file"), &["jwt-secret", "set RIDEWIRE_DATA_DIR to another"]),
        ("nowhere", data_dir, "/proc/nowhere".to_owned(), &["/proc/nowhere", "set RIDEWIRE_DATA_DIR to another"]),
        ("open secret", data_dir, text("open"), &["jwt-secret", "accessible to other users (its mode is not 600)"]),
    ];
    assert_rejected(&here, rows).await;

    let new = text("new");
    let here = [("RIDEWIRE_LISTEN", "127.0.0.1:0"), (data_dir, new.as_str())];
    let full = programs(directory.path(), "echo 'no space left'; exit 1", "exit 1");
    let made = "while [ $# -gt 0 ]; do [ \"$1\" = --pgdata ] && echo 15 > \"$2/PG_VERSION\"; shift; done";
    let broken = programs(directory.path(), made, "echo 'broken disk' >&2; exit 1");
    let rows: &[Row] = &[
        ("no programs", bin, "/nowhere".to_owned(), &["RIDEWIRE_PG_BIN names /nowhere", "name their directory"]),
        ("initdb", bin, full, &["initdb failed", "no space left", "DATABASE_URL"]),
        ("postgres", bin, broken, &["the private Postgres ended", "broken disk", "Fix what"]),
    ];
    assert_rejected(&here, rows).await;

    let long = format!("/tmp/{}", "d".repeat(120));
    let stderr = rejected_start(
        "a long path",
        &[
            ("RIDEWIRE_LISTEN", "127.0.0.1:0".into()),
            (data_dir, data(&"d".repeat(110)).into()),
            ("TMPDIR", long.into()),
        ],
    )
    .await;
    assert!(stderr.contains("too long for a socket's path") && stderr.contains("to a shorter one"), "{stderr}");

    if nix::unistd::geteuid().is_root() {
        let closed = programs(directory.path(), "exit 1", "exit 1");
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(data("foreign").join("run")).unwrap();
        chown(data("foreign").join("run"), Some(12_345), None).unwrap();
        fs::create_dir(data("private")).unwrap();
        fs::set_permissions(data("private"), Permissions::from_mode(0o700)).unwrap();
        let right = [("RIDEWIRE_LISTEN", "127.0.0.1:0"), (data_dir, new.as_str())];
        assert_rejected(&right, &[("closed programs", bin, closed, &["may not run", "Let that user execute it"])])
            .await;
        let rows: &[Row] = &[
            ("closed", data_dir, text("private/data"), &["may not enter", "a directory which that user can reach"]),
            ("another's", data_dir, text("foreign"), &["belongs to the user 12345", "Run the server as that user"]),
        ];
        assert_rejected(&[("RIDEWIRE_LISTEN", "127.0.0.1:0")], rows).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_in_a_data_directory_is_shown_how_to_share_the_database() {
    let directory = passable();
    let data = directory.path().join("data").display().to_string();
    let here = [("RIDEWIRE_LISTEN", "127.0.0.1:0"), ("RIDEWIRE_DATA_DIR", data.as_str())];
    let mut first = ridewire().envs(here).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stdout.as_mut().unwrap()).lines();
    timeout(TIMEOUT, lines.next_line()).await.expect("the server starts").unwrap().expect("the server does not exit");
    let stderr = rejected_start("second", &here.map(|(name, value)| (name, value.into()))).await;
    assert!(
        stderr.contains("another server is running in") && stderr.contains("set DATABASE_URL=postgresql://"),
        "{stderr}"
    );
    let pid = nix::unistd::Pid::from_raw(i32::try_from(first.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(timeout(TIMEOUT, first.wait()).await.expect("it ends").unwrap().success());
}
