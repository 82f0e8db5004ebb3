//! TLS between the server and Postgres.

use crate::support::{Server, TlsPostgres, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_postgres_are_encrypted_and_the_server_name_is_verified() {
    let postgres = TlsPostgres::start().await;
    let verified = format!("sslmode=verify-full&sslrootcert={}", postgres.file("ca.pem"));
    let server = Server::start(&postgres.database("localhost", &verified)).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    rider.send("ride", "in private").await;
    assert_eq!(stream.find("message:new").await.data["content"], "in private");

    let client = postgres.connect("localhost", &verified).await.unwrap();
    let connections =
        "select count(*), count(*) filter (where ssl), count(*) filter (where query ilike 'begin; %; listen %')
        from pg_stat_activity join pg_stat_ssl using (pid) where application_name = 'ridewire'";
    eventually("the listener is connected", async || {
        let row = client.query_one(connections, &[]).await.unwrap();
        let [all, encrypted, listening] = [0, 1, 2].map(|column| row.get::<_, i64>(column));
        assert_eq!(all, encrypted);
        (all > 2 && listening == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslmode_decides_how_the_database_is_verified() {
    let postgres = TlsPostgres::start().await;
    let [ca, other] = ["ca.pem", "other.pem"].map(|name| format!("sslrootcert={}", postgres.file(name)));
    for (host, settings) in [
        ("localhost", format!("sslmode=verify-full&{ca}")),
        ("127.0.0.1", format!("sslmode=verify-ca&{ca}")),
        ("127.0.0.1", format!("sslmode=require&{ca}")),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", "sslmode=prefer".to_owned()),
        ("127.0.0.1", String::new()),
    ] {
        let connected = postgres.connect(host, &settings).await;
        assert!(connected.is_ok(), "{host} {settings}: {connected:?}");
    }
    for (host, settings, expected) in [
        ("127.0.0.1", format!("sslmode=verify-full&{ca}"), "NotValidForName"),
        ("localhost", format!("sslmode=verify-full&{other}"), "InvalidCertificate"),
        ("localhost", format!("sslmode=verify-ca&{other}"), "InvalidCertificate"),
        ("localhost", format!("sslmode=require&{other}"), "InvalidCertificate"),
        ("localhost", "sslmode=verify-full".to_owned(), "InvalidCertificate"),
        ("localhost", "sslmode=disable".to_owned(), "pg_hba"),
    ] {
        let rejected = postgres.connect(host, &settings).await.expect_err(&settings);
        assert!(rejected.contains(expected), "{host} {settings}: {rejected}");
    }
}
