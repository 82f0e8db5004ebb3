//! TLS to Postgres.

use crate::support::{SecurePostgres, Server, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_goes_to_a_postgres_with_tls_is_encrypted_and_its_name_is_checked() {
    let postgres = SecurePostgres::start().await;
    let verified = format!("sslmode=verify-full&sslrootcert={}", postgres.file("ca.pem"));
    let server = Server::start(&postgres.database("localhost", &verified)).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    rider.send("ride", "in private").await;
    assert_eq!(stream.find("message:new").await.data["content"], "in private");

    let client = postgres.connect("localhost", &verified).await.unwrap();
    let connections =
        "select count(*), count(*) filter (where ssl), count(*) filter (where query ilike 'begin; %; listen %')
        from pg_stat_activity join pg_stat_ssl using (pid) where application_name = 'ridewire'";
    eventually("the listener is there", async || {
        let row = client.query_one(connections, &[]).await.unwrap();
        let [all, encrypted, listening] = [0, 1, 2].map(|column| row.get::<_, i64>(column));
        assert_eq!(all, encrypted);
        (all > 2 && listening == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_believed_to_be_the_database_is_what_sslmode_says() {
    let postgres = SecurePostgres::start().await;
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
    for (host, settings, said) in [
        ("127.0.0.1", format!("sslmode=verify-full&{ca}"), "NotValidForName"),
        ("localhost", format!("sslmode=verify-full&{other}"), "InvalidCertificate"),
        ("localhost", format!("sslmode=verify-ca&{other}"), "InvalidCertificate"),
        ("localhost", format!("sslmode=require&{other}"), "InvalidCertificate"),
        ("localhost", "sslmode=verify-full".to_owned(), "InvalidCertificate"),
        ("localhost", "sslmode=disable".to_owned(), "pg_hba"),
    ] {
        let refused = postgres.connect(host, &settings).await.expect_err(&settings);
        assert!(refused.contains(said), "{host} {settings}: {refused}");
    }
}
