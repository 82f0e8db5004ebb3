//! TLS, tested with curl and raw connections.

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{Certificate, Database, SECRET, Server, TIMEOUT, User, eventually, ridewire};

/// Returns a curl command that trusts only this certificate.
fn curl(ca: &Path, user: &User, path: &str, options: &[&str]) -> Command {
    let port = user.base.rsplit_once(':').unwrap().1;
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "--cacert"]).arg(ca).args(options);
    command.args(["-H", &format!("Authorization: Bearer {}", user.token)]);
    command.arg(format!("https://localhost:{port}/api/v1{path}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Output {
    timeout(TIMEOUT, command.output()).await.expect("curl ends").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_work_over_tls_with_http_2_and_http_1() {
    let database = Database::create().await;
    let certificate = Certificate::new();
    let server = Server::start_with(&database, &certificate.settings()).await;
    assert!(server.base.starts_with("https://"), "{}", server.base);
    let (service, rider, driver) = (server.service(), server.rider("rider_1"), server.driver("driver_1"));
    let ca = certificate.path("ca.pem");
    let body = r#"{"riderId": "rider_1", "driverId": "driver_1"}"#;
    let made = run(curl(&ca, &service, "/rides/ride", &["-X", "PUT", "-d", body, "-w", " %{http_version}"])).await;
    assert!(String::from_utf8_lossy(&made.stdout).ends_with(" 2"), "{made:?}");
    for (version, status_line) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200 OK")] {
        let mut stream = curl(&ca, &driver, "/messages/rides/ride/events", &["-N", "-i", version]).spawn().unwrap();
        let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
        let until = async |what: &str, lines: &mut tokio::io::Lines<_>| {
            let mut read = Vec::new();
            let reading = async {
                while read.last().is_none_or(|line: &String| !line.starts_with(what)) {
                    read.push(lines.next_line().await.unwrap().expect("the stream stays open"));
                }
            };
            timeout(TIMEOUT, reading).await.unwrap_or_else(|_| panic!("no {what}"));
            read
        };
        let head = until("event: stream:sync", &mut lines).await;
        assert_eq!(head[0].trim(), status_line);
        // RFC 9113, section 8.2.2.
        assert!(version == "--http1.1" || !head.iter().any(|line| line.to_lowercase().starts_with("connection:")));
        let send = [version, "-d", r#"{"rideId": "ride", "content": "in private"}"#];
        let sent = run(curl(&ca, &rider, "/messages", &send)).await;
        assert!(String::from_utf8_lossy(&sent.stdout).contains("in private"), "{sent:?}");
        until("event: message:new", &mut lines).await;
        assert!(until("data: ", &mut lines).await.last().unwrap().contains("in private"));
    }
    // HTTP/2 error responses have no `Connection` header either.
    let output = run(curl(&ca, &rider, "/messages", &["-i", "-d", &"x".repeat(70_000)])).await;
    let rejected = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(rejected.starts_with("http/2 413") && !rejected.contains("\nconnection:"), "{rejected} {output:?}");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_loaded_without_a_restart_and_an_invalid_one_is_not() {
    let database = Database::create().await;
    let certificate = Certificate::new();
    let server = Server::start_with(&database, &certificate.settings()).await;
    let rider = server.rider("rider_1");
    let is_trusted = async |ca: &Path| run(curl(ca, &rider, "/rides", &["-f"])).await.status.success();
    let old = certificate.path("old.pem");
    std::fs::copy(certificate.path("ca.pem"), &old).unwrap();
    assert!(is_trusted(&old).await);

    std::fs::write(certificate.path("key.pem"), "not a key").unwrap();
    eventually("the invalid certificate is logged", async || {
        server.log().contains("certificate reload failed").then_some(())
    })
    .await;
    assert!(is_trusted(&old).await, "the old certificate stays in use");

    certificate.generate();
    eventually("the new certificate is used", async || is_trusted(&certificate.path("ca.pem")).await.then_some(()))
        .await;
    assert!(!is_trusted(&old).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_a_tls_handshake_are_closed_and_the_server_stays_healthy() {
    let database = Database::create().await;
    let certificate = Certificate::new();
    let settings = [&certificate.settings()[..], &[("RIDEWIRE_HEAD_TIMEOUT", "3s")]].concat();
    let server = Server::start_with(&database, &settings).await;
    let address = server.base.trim_start_matches("https://");
    let input = ["", "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    join_all(input.map(async |input| {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(input.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        let _ = timeout(TIMEOUT, connection.read_to_end(&mut response)).await.expect("the connection is closed");
        assert!(!String::from_utf8_lossy(&response).contains("HTTP/"), "{input:?}");
    }))
    .await;
    let environment = [&settings[..], &[("RIDEWIRE_LISTEN", address)]].concat();
    let healthy = ridewire().arg("healthcheck").envs(environment).output().await.unwrap();
    assert!(healthy.status.success(), "{healthy:?}");
}

/// Opens a connection that has negotiated HTTP/2.
async fn http2(server: &Server, ca: &Path) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(server.base.trim_start_matches("https://")).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), socket).await.unwrap()
}

/// Encodes frames of HTTP/2 (RFC 9113, section 4.1), after the preface.
fn frames(frames: &[(u8, u8, u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for (kind, flags, stream, payload) in frames {
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
        bytes.extend_from_slice(&[*kind, *flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// Encodes a request (RFC 7541): GET and https as indexed fields, the others as literals without indexing.
fn head(path: &str, token: &str) -> Vec<u8> {
    let mut head = vec![0x82, 0x87];
    for (name, value) in [(&[0x01][..], "localhost"), (&[0x04], path), (&[0x0f, 0x08], &format!("Bearer {token}"))] {
        head.extend_from_slice(name);
        match value.len().checked_sub(127) {
            None => head.push(value.len() as u8),
            Some(rest) => head.extend_from_slice(&[127, (rest % 128) as u8 | 0x80, (rest / 128) as u8]),
        }
        head.extend_from_slice(value.as_bytes());
    }
    head
}

/// Reads until the connection is closed, and answers PINGs meanwhile (RFC 9113, section 6.7).
async fn answer_pings(connection: &mut TlsStream<TcpStream>) {
    let mut head = [0; 9];
    while connection.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        let is_read = connection.read_exact(&mut payload).await.is_ok();
        if is_read && (head[3], head[4]) == (6, 0) {
            head[4] = 1;
            // The connection may already be closed.
            let _ = connection.write_all(&[&head[..], &payload].concat()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_stalled_http_2_connections_are_closed_and_streams_are_not() {
    let database = Database::create().await;
    let certificate = Certificate::new();
    // Short enough for the test, and long enough for a regular request.
    let short_timeouts = [("RIDEWIRE_HEAD_TIMEOUT", "3s"), ("RIDEWIRE_WRITE_TIMEOUT", "3s")];
    let server = Server::start_with(&database, &[&certificate.settings()[..], &short_timeouts].concat()).await;
    let (service, rider, driver) = (server.service(), server.rider("rider_1"), server.driver("driver_1"));
    let ca = certificate.path("ca.pem");
    let body = r#"{"riderId": "rider_1", "driverId": "driver_1"}"#;
    run(curl(&ca, &service, "/rides/ride", &["-X", "PUT", "-d", body])).await;
    let mut stream = curl(&ca, &driver, "/messages/rides/ride/events", &["-N", "--http2"]).spawn().unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();

    let (settings, no_window) = ((4, 0, 0, Vec::new()), (4, 0, 0, vec![0, 4, 0, 0, 0, 0]));
    let head = head("/api/v1/messages/rides/ride/events", &rider.token);
    let (half, whole) = ((1, 0, 1, head[..9].to_vec()), (1, 5, 1, head));
    // A connection with a stream, which also reads a poll one byte at a time.
    let (tiny_window, more) = ((4, 0, 0, vec![0, 4, 0, 0, 0, 1]), (8, 0, 1, vec![0, 15, 0, 0]));
    let poll = (1, 5, 3, self::head("/api/v1/messages/rides/ride/poll?after=0", &rider.token));
    let all = [
        Vec::new(),
        frames(&[]),
        frames(std::slice::from_ref(&settings)),
        frames(&[settings, half]),
        frames(&[no_window, whole.clone()]),
        frames(&[tiny_window, whole, more, poll]),
    ];
    join_all(all.iter().map(async |input| {
        let mut connection = http2(&server, &ca).await;
        connection.write_all(input).await.unwrap();
        let ended = timeout(TIMEOUT, answer_pings(&mut connection)).await;
        ended.unwrap_or_else(|_| panic!("the connection stays open: {input:?}"));
    }))
    .await;

    run(curl(&ca, &rider, "/messages", &["-d", r#"{"rideId": "ride", "content": "still there"}"#])).await;
    let following =
        async { while !lines.next_line().await.unwrap().expect("the stream stays open").contains("still there") {} };
    timeout(TIMEOUT, following).await.expect("the message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_certificate_prevents_the_start() {
    let database = Database::create().await;
    let (one, another) = (Certificate::new(), Certificate::new());
    let (certificate, key) = (one.settings[0].1.as_str(), one.settings[1].1.as_str());
    for (certificate, key, expected) in [
        (certificate, "", "both"),
        ("", key, "both"),
        (certificate, "/nowhere.pem", "/nowhere.pem"),
        (key, key, "RIDEWIRE_TLS_CERTIFICATE"),
        (certificate, another.settings[1].1.as_str(), "RIDEWIRE_TLS_KEY"),
    ] {
        let mut command = ridewire();
        command.env("DATABASE_URL", &database.url).env("RIDEWIRE_JWT_SECRET", SECRET);
        for (name, value) in [("RIDEWIRE_TLS_CERTIFICATE", certificate), ("RIDEWIRE_TLS_KEY", key)] {
            if !value.is_empty() {
                command.env(name, value);
            }
        }
        let rejected = timeout(TIMEOUT, command.output()).await.expect("it ends").unwrap();
        let error = String::from_utf8_lossy(&rejected.stderr).into_owned();
        assert!(!rejected.status.success() && error.contains(expected), "{certificate} {key}: {error}");
    }
}
