//! The start of a server: what it rejects, and when it is ready, as a user or a load balancer sees it.

use std::process::Output;

use serde_json::json;
use tokio::time::timeout;

use crate::jwks::{EC, Issuer, set};
use crate::support::{Database, Response, SECRET, Server, TIMEOUT, eventually, ridewire};

async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = ridewire().args(arguments).envs(environment.iter().copied()).output();
    timeout(TIMEOUT, output).await.unwrap_or_else(|_| panic!("{arguments:?} does not exit")).unwrap()
}

async fn ready(server: &Server) -> Response {
    let url = format!("{}/readyz", server.base);
    Response::of(url.clone(), reqwest::get(&url).await.unwrap()).await
}

/// Appends a query parameter to a URL.
fn with(url: &str, parameter: &str) -> String {
    format!("{url}{}{parameter}", if url.contains('?') { '&' } else { '?' })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_configuration_error_contains_the_secret() {
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
        let stderr = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && !stderr.contains("hunter2"), "{name}={value}: {stderr}");
        assert!(stderr.contains(name), "{name}={value}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_verification_keys_is_not_ready() {
    let database = Database::create().await;
    let issuer = Issuer::publishing(None).await;
    let keys = [("RIDEWIRE_JWKS", issuer.url.as_str()), ("RIDEWIRE_JWKS_PERIOD", "100ms"), ("RIDEWIRE_JWT_SECRET", "")];
    let server = Server::start_with(&database, &keys).await;
    assert_eq!(ready(&server).await.problem(503, "not_ready")["keys"], false);
    issuer.publish(Some(set(&[EC]))).await;
    eventually("the server is ready with the first key", async || (ready(&server).await.status == 200).then_some(()))
        .await;
    // While the issuer is unavailable, cached keys stay valid.
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
    // Like a standby, on which every session is read-only.
    let server = Server::start_with(&database, &[]).await;
    let response = ready(&server).await.problem(503, "not_ready");
    assert_eq!((&response["database"], &response["writable"]), (&json!(true), &json!(false)), "{response}");
    let rider = rider.on(&server);
    rider.get("rides/ride_1").await.expect(200);
    rider.send_with_id("ride_1", "Hello", "m-1").await.problem(503, "unavailable");
    // Readiness fails if the schema disappears, also after the start.
    client.batch_execute("set default_transaction_read_only = off; alter schema public rename to gone").await.unwrap();
    eventually("the server is not ready without its schema", async || {
        (ready(&first).await.status == 503).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_in_two_schemas_of_one_database_are_isolated() {
    let database = Database::create().await;
    database.client().await.batch_execute("create schema one; create schema two").await.unwrap();
    let start = async |schema: &str| {
        let url = with(&database.url, &format!("options=-csearch_path%3D{schema}"));
        let server = Server::start_with(&database, &[("DATABASE_URL", &url), ("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
        eventually("the listener is connected", async || {
            (ready(&server).await.json()["listen"] == "listening").then_some(())
        })
        .await;
        server
    };
    let (one, other, two) = (start("one").await, start("one").await, start("two").await);
    let (rider, driver) = one.open_ride("ride_1").await;
    two.open_ride("ride_1").await;
    let mut own = other.live_stream(&rider.on(&other), "ride_1").await;
    let mut foreign = two.live_stream(&rider.on(&two), "ride_1").await;
    let typing = json!({ "typing": true });
    driver.post("messages/rides/ride_1/typing", typing.clone()).await.expect(202);
    assert_eq!(own.next_of_type("typing:indicator").await.data["userId"], "driver_1");
    // Notifications arrive in order, so any from the other schema would have arrived by now.
    driver.on(&two).send("ride_1", "Hello").await;
    let next = foreign.next_event().await;
    assert_eq!(next.kind, "message:new", "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pem_key_in_one_line_is_accepted() {
    let database = Database::create().await;
    let pem = std::str::from_utf8(EC.public).unwrap().replace('\n', "\\n");
    let server = Server::start_with(&database, &[("RIDEWIRE_JWT_PUBLIC_KEY", &pem)]).await;
    EC.service(&server).get("rides").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_fetched_without_tls_only_from_loopback() {
    let database = Database::create().await;
    let environment = [("DATABASE_URL", database.url.as_str()), ("RIDEWIRE_LISTEN", "127.0.0.1:0")];
    for url in ["http://192.0.2.1/jwks.json", "http://localhost.evil.example/", "http://127.0.0.1@192.0.2.1/jwks"] {
        let output = run(&[], &[&environment[..], &[("RIDEWIRE_JWKS", url)]].concat()).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && stderr.contains("RIDEWIRE_JWKS") && stderr.contains("https://"),
            "{stderr}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_command_signs_only_with_the_secret_of_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let key = directory.path().join("key.pem");
    std::fs::write(&key, EC.public).unwrap();
    let (data_dir, key) = (data.to_str().unwrap(), key.to_str().unwrap());
    let token = async |environment: &[(&str, &str)]| {
        let output = run(&["token", "--sub", "u", "--role", "rider"], environment).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), stderr)
    };
    // No server has created a secret in this directory.
    let (done, printed, stderr) = token(&[("RIDEWIRE_DATA_DIR", data_dir)]).await;
    assert!(
        !done && printed.is_empty() && stderr.contains(data_dir) && stderr.contains("RIDEWIRE_DATA_DIR"),
        "{stderr}"
    );
    assert!(!data.exists(), "no secret is created");
    // With these keys, the server does not accept tokens signed with a secret.
    for (name, value) in [("RIDEWIRE_JWT_PUBLIC_KEY", key), ("RIDEWIRE_JWKS", "https://issuer.example/jwks.json")] {
        let (done, printed, stderr) = token(&[("RIDEWIRE_DATA_DIR", data_dir), (name, value)]).await;
        assert!(!done && printed.is_empty() && stderr.contains(name), "{stderr}");
    }
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("jwt-secret"), SECRET).unwrap();
    std::fs::set_permissions(data.join("jwt-secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (done, printed, stderr) = token(&[("RIDEWIRE_DATA_DIR", data_dir)]).await;
    assert!(done && printed.starts_with("ey") && stderr.contains("jwt-secret"), "{stderr}");
}
