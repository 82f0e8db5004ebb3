//! How a server starts, what it rejects, and when it is ready: read as a person or a load balancer reads it.

use std::process::Output;

use serde_json::json;
use tokio::time::timeout;

use crate::jwks::{EC, Issuer, set};
use crate::support::{Answer, Database, PATIENCE, SECRET, Server, eventually, ridewire};

async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = ridewire().args(arguments).envs(environment.iter().copied()).output();
    timeout(PATIENCE, output).await.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap()
}

async fn ready(server: &Server) -> Answer {
    let url = format!("{}/readyz", server.base);
    Answer::of(url.clone(), reqwest::get(&url).await.unwrap()).await
}

/// An address with a further parameter.
fn with(url: &str, parameter: &str) -> String {
    format!("{url}{}{parameter}", if url.contains('?') { '&' } else { '?' })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_of_a_setting_has_the_secret_in_it() {
    for (name, value) in [
        ("DATABASE_URL", "postgres:/u:hunter2@h/db"),
        ("DATABASE_URL", "postgres//u:hunter2@h/db"),
        ("DATABASE_URL", "postgres://u:x@h:hunter2/db"),
        ("DATABASE_URL", "host=h user=u password=a hunter2"),
        ("DATABASE_URL", "host=h user=u password=a port=hunter2"),
        ("DATABASE_URL", "hunter2"),
        ("RIDEWIRE_LISTEN_DATABASE_URL", "postgres:/u:hunter2@h/db"),
        ("RIDEWIRE_JWT_PUBLIC_KEY", "hunter2"),
        ("RIDEWIRE_JWT_SECRET", "hunter2"),
    ] {
        let environment =
            [("DATABASE_URL", "postgres://u@127.0.0.1:1/d"), ("RIDEWIRE_JWT_SECRET", SECRET), (name, value)];
        let output = run(&[], &environment).await;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && !said.contains("hunter2"), "{name}={value}: {said}");
        assert!(said.contains(name), "{name}={value}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_can_verify_no_token_is_not_ready() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(None).await;
    let keys = [("RIDEWIRE_JWKS", issuer.url.as_str()), ("RIDEWIRE_JWKS_PERIOD", "100ms"), ("RIDEWIRE_JWT_SECRET", "")];
    let server = Server::with(&database, &keys).await;
    assert_eq!(ready(&server).await.problem(503, "not_ready")["keys"], false);
    issuer.publish(Some(set(&[EC]))).await;
    eventually("it is ready with the first key", async || (ready(&server).await.status == 200).then_some(())).await;
    // An issuer that is away takes no login with it.
    issuer.publish(None).await;
    assert_eq!(ready(&server).await.expect(200).json()["keys"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_write_starts_and_serves_reads_and_is_not_ready() {
    let database = Database::create().await;
    let first = Server::start(&database).await;
    let (rider, _) = first.open_ride("ride_1").await;
    ready(&first).await.expect(200);
    let client = database.client().await;
    let read_only =
        "do $$ begin execute format('alter database %I set default_transaction_read_only = ', current_database()) ||";
    client.batch_execute(&format!("{read_only} 'on'; end $$")).await.unwrap();
    // As a standby is: every session of it only reads.
    let server = Server::with(&database, &[]).await;
    let answer = ready(&server).await.problem(503, "not_ready");
    assert_eq!((&answer["database"], &answer["writable"]), (&json!(true), &json!(false)), "{answer}");
    let rider = rider.on(&server);
    rider.get("rides/ride_1").await.expect(200);
    rider.send_named("ride_1", "Hello", "m-1").await.problem(503, "unavailable");
    // Schema gone: also what has been there at the start.
    client.batch_execute("set default_transaction_read_only = off; alter schema public rename to gone").await.unwrap();
    eventually("it is not ready without its schema", async || (ready(&first).await.status == 503).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_in_two_schemas_of_a_database_hear_nothing_of_each_other() {
    let database = Database::create().await;
    database.client().await.batch_execute("create schema one; create schema two").await.unwrap();
    let start = async |schema: &str| {
        let url = with(&database.url, &format!("options=-csearch_path%3D{schema}"));
        let server = Server::with(&database, &[("DATABASE_URL", &url), ("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
        eventually("the listener hears", async || (ready(&server).await.json()["listen"] == "listening").then_some(()))
            .await;
        server
    };
    let (one, other, two) = (start("one").await, start("one").await, start("two").await);
    let (rider, driver) = one.open_ride("ride_1").await;
    two.open_ride("ride_1").await;
    let mut own = other.live(&rider.on(&other), "ride_1").await;
    let mut foreign = two.live(&rider.on(&two), "ride_1").await;
    let typing = json!({ "typing": true });
    driver.post("messages/rides/ride_1/typing", typing.clone()).await.expect(202);
    assert_eq!(own.next_of("typing:indicator").await.data["userId"], "driver_1");
    // Whatever came from there has come by now: what follows takes the same way.
    driver.on(&two).send("ride_1", "Hello").await;
    let next = foreign.next_event().await;
    assert_eq!(next.kind, "message:new", "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_one_line_as_compose_files_have_it_is_a_key() {
    let database = Database::create().await;
    let pem = std::str::from_utf8(EC.public).unwrap().replace('\n', "\\n");
    let server = Server::with(&database, &[("RIDEWIRE_JWT_PUBLIC_KEY", &pem)]).await;
    EC.service(&server).get("rides").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_not_read_without_tls_from_another_machine() {
    let database = Database::create().await;
    let environment = [("DATABASE_URL", database.url.as_str()), ("RIDEWIRE_LISTEN", "127.0.0.1:0")];
    for url in ["http://192.0.2.1/jwks.json", "http://localhost.evil.example/", "http://127.0.0.1@192.0.2.1/jwks"] {
        let output = run(&[], &[&environment[..], &[("RIDEWIRE_JWKS", url)]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("RIDEWIRE_JWKS") && said.contains("https://"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_signed_with_the_secret_of_a_server_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let key = directory.path().join("key.pem");
    std::fs::write(&key, EC.public).unwrap();
    let (data_dir, key) = (data.to_str().unwrap(), key.to_str().unwrap());
    let token = async |environment: &[(&str, &str)]| {
        let output = run(&["token", "--sub", "u", "--role", "rider"], environment).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), said)
    };
    // No server has made one here.
    let (done, printed, said) = token(&[("RIDEWIRE_DATA_DIR", data_dir)]).await;
    assert!(!done && printed.is_empty() && said.contains(data_dir) && said.contains("RIDEWIRE_DATA_DIR"), "{said}");
    assert!(!data.exists(), "nothing is made up");
    // With these keys a server does not accept what a secret signs.
    for (name, value) in [("RIDEWIRE_JWT_PUBLIC_KEY", key), ("RIDEWIRE_JWKS", "https://issuer.example/jwks.json")] {
        let (done, printed, said) = token(&[("RIDEWIRE_DATA_DIR", data_dir), (name, value)]).await;
        assert!(!done && printed.is_empty() && said.contains(name), "{said}");
    }
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("jwt-secret"), SECRET).unwrap();
    std::fs::set_permissions(data.join("jwt-secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (done, printed, said) = token(&[("RIDEWIRE_DATA_DIR", data_dir)]).await;
    assert!(done && printed.starts_with("ey") && said.contains("jwt-secret"), "{said}");
}
