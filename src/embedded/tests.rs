//! Tests with real clusters, each in a directory that the user that runs Postgres can enter.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::*;

const TEST: Options = Options { durable: false };

/// The environment variable with the data directory for the process to kill; see [`a_server_that_is_killed`].
const TO_BE_KILLED: &str = "RIDEWIRE_TEST_TO_BE_KILLED";

fn data_dir() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o711)).unwrap();
    directory
}

async fn start(directory: &TempDir) -> Result<EmbeddedPostgres, EmbeddedError> {
    EmbeddedPostgres::start(directory.path(), TEST).await
}

/// Inserts a row, and returns the number of rows.
async fn add_row(url: &str) -> i64 {
    let client = connect(url).await.unwrap();
    client.batch_execute("create table if not exists kept (); insert into kept default values").await.unwrap();
    client.query_one("select count(*) from kept", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn commits_survive_every_kind_of_stop() {
    let directory = data_dir();
    let postgres = start(&directory).await.unwrap();
    assert_eq!(add_row(&postgres.url()).await, 1);
    postgres.stop(StopMode::Fast).await.unwrap();

    let postgres = start(&directory).await.unwrap();
    assert_eq!(add_row(&postgres.url()).await, 2);
    postgres.stop(StopMode::Immediate).await.unwrap();

    let postgres = start(&directory).await.unwrap();
    assert_eq!(add_row(&postgres.url()).await, 3);
    drop(postgres);

    let mut postgres = start(&directory).await.unwrap();
    assert_eq!(add_row(&postgres.url()).await, 4);
    postgres.signal(Signal::SIGKILL);
    let ended = postgres.exited().await.to_string();
    assert!(ended.contains("signal: 9") && ended.contains("database system is ready"), "{ended}");
    assert_eq!(postgres.pid(), None);
    postgres.stop(StopMode::Fast).await.unwrap();

    let postgres = start(&directory).await.unwrap();
    assert_eq!(add_row(&postgres.url()).await, 5);
    postgres.stop(StopMode::Fast).await.unwrap();
}

/// Not a test by itself: the process that the next test starts and kills.
#[tokio::test]
async fn a_server_that_is_killed() {
    let Some(directory) = std::env::var_os(TO_BE_KILLED) else { return };
    let postgres = EmbeddedPostgres::start(Path::new(&directory), TEST).await.unwrap();
    eprintln!("{TO_BE_KILLED} {} {}", postgres.pid().unwrap(), postgres.url());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn an_orphaned_postgres_is_stopped_and_replaced() {
    let directory = data_dir();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::tests::a_server_that_is_killed", "--nocapture"])
        .env(TO_BE_KILLED, directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let line = loop {
        let line = lines.next_line().await.unwrap().expect("it ends only when it is killed");
        if let Some((_, rest)) = line.split_once(TO_BE_KILLED) {
            break rest.trim().to_owned();
        }
    };
    let (pid, url) = line.split_once(' ').unwrap();
    assert_eq!(add_row(url).await, 1);

    // While it lives, it holds the data directory, and the error has the URL of its Postgres.
    let error = start(&directory).await.unwrap_err().to_string();
    assert!(error.contains(&format!("DATABASE_URL={url};")), "{error}");

    server.kill().await.unwrap();
    assert_eq!(add_row(url).await, 2, "its Postgres continues to run");
    let postgres = start(&directory).await.unwrap();
    assert_ne!(postgres.pid().unwrap().to_string(), pid);
    assert_eq!(add_row(&postgres.url()).await, 3);
    postgres.stop(StopMode::Fast).await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_neither_blocks_a_start_nor_stops_an_unrelated_process() {
    let directory = data_dir();
    start(&directory).await.unwrap().stop(StopMode::Immediate).await.unwrap();
    let record = directory.path().join("postgres/postmaster.pid");
    let mut unrelated = Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
    let pid = unrelated.id().unwrap();
    for text in [format!("{pid}\n{}\n", directory.path().display()), "2147483647\n".to_owned(), String::new()] {
        fs::write(&record, &text).unwrap();
        let postgres = start(&directory).await.unwrap();
        postgres.stop(StopMode::Immediate).await.unwrap();
    }
    assert!(unrelated.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn an_interrupted_initdb_leaves_no_partial_cluster() {
    let directory = data_dir();
    let unfinished = || {
        let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("postgres.new-")).count()
    };
    let initdb_started = async {
        while unfinished() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = start(&directory) => panic!("a start takes longer than its first directory"),
        () = initdb_started => {}
    }
    assert!(!directory.path().join("postgres").exists());
    let postgres = start(&directory).await.unwrap();
    assert_eq!(unfinished(), 0);
    postgres.stop(StopMode::Immediate).await.unwrap();
}

#[tokio::test]
async fn a_data_directory_with_a_long_path_has_its_socket_in_the_temporary_directory() {
    let directory = data_dir();
    let long = directory.path().join("d".repeat(100));
    let postgres = EmbeddedPostgres::start(&long, TEST).await.unwrap();
    assert_eq!(add_row(&postgres.url()).await, 1);
    let socket = postgres.socket.path().to_owned();
    assert_eq!(socket.parent(), Some(std::env::temp_dir().as_path()));
    postgres.stop(StopMode::Immediate).await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn only_its_user_can_access_the_socket_and_the_settings_apply() {
    let directory = data_dir();
    let postgres = EmbeddedPostgres::start(directory.path(), Options::default()).await.unwrap();
    let owner = fs::metadata(directory.path().join("postgres")).unwrap().uid();
    assert_ne!(owner, 0, "Postgres does not run as root");
    for path in ["run", "run/.s.PGSQL.5432", "postgres"] {
        let metadata = fs::metadata(directory.path().join(path)).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o700, owner), "{path}");
    }
    assert_eq!(fs::metadata(directory.path()).unwrap().uid(), geteuid().as_raw());

    let client = connect(&postgres.url()).await.unwrap();
    for (name, value) in [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("max_connections", "100"),
    ] {
        let row = client.query_one("select current_setting($1)", &[&name]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value, "{name}");
    }
    let row = client.query_one("select datcollate from pg_database where datname = 'ridewire'", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "C");
    postgres.stop(StopMode::Fast).await.unwrap();
}

#[tokio::test]
async fn the_error_of_a_failed_start_has_the_cause() {
    let directory = data_dir();
    start(&directory).await.unwrap().stop(StopMode::Fast).await.unwrap();
    fs::write(directory.path().join("postgres/postgresql.auto.conf"), "ride = 'wire'\n").unwrap();
    let error = start(&directory).await.unwrap_err().to_string();
    assert!(error.contains("unrecognized configuration parameter \"ride\""), "{error}");

    fs::write(directory.path().join("postgres/PG_VERSION"), "9\n").unwrap();
    let error = start(&directory).await.unwrap_err().to_string();
    assert!(error.contains("created by PostgreSQL 9, which is not installed (found: "), "{error}");
}

#[tokio::test]
async fn a_directory_with_other_content_is_not_changed() {
    let directory = data_dir();
    let file = directory.path().join("postgres/thesis.txt");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "all of it").unwrap();
    let error = start(&directory).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::NotACluster(_)), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "all of it");
}

#[tokio::test]
async fn the_error_names_the_directory_that_postgres_may_not_enter() {
    if !geteuid().is_root() {
        return;
    }
    let closed = data_dir();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let error = EmbeddedPostgres::start(&closed.path().join("data"), TEST).await.unwrap_err().to_string();
    assert!(error.contains(&format!("may not enter {}. ", closed.path().display())), "{error}");
    assert!(error.contains("RIDEWIRE_DATA_DIR"), "{error}");
}

#[tokio::test]
async fn the_owner_of_a_cluster_that_root_restored_is_changed() {
    if !geteuid().is_root() {
        return;
    }
    let directory = data_dir();
    start(&directory).await.unwrap().stop(StopMode::Fast).await.unwrap();
    let copied = data_dir();
    let copy = Command::new("cp").arg("-r").arg(directory.path().join("postgres")).arg(copied.path()).status();
    assert!(copy.await.unwrap().success());
    let postgres = start(&copied).await.unwrap();
    assert_eq!(add_row(&postgres.url()).await, 1);
    postgres.stop(StopMode::Immediate).await.unwrap();
}
