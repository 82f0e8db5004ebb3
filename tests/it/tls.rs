//! TLS, by the program that everybody has.

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

use crate::support::{Certificate, Database, PATIENCE, SECRET, Server, User, eventually, ridewire};

/// A curl that believes this certificate alone.
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
    timeout(PATIENCE, command.output()).await.expect("curl ends").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_ride_is_followed_by_http_2_and_by_http_1() {
    let database = Database::create().await;
    let certificate = Certificate::new();
    let server = Server::with(&database, &certificate.settings()).await;
    assert!(server.base.starts_with("https://"), "{}", server.base);
    let (service, rider, driver) = (server.service(), server.rider("rider_1"), server.driver("driver_1"));
    let ca = certificate.path("ca.pem");
    let body = r#"{"riderId": "rider_1", "driverId": "driver_1"}"#;
    let made = run(curl(&ca, &service, "/rides/ride", &["-X", "PUT", "-d", body, "-w", " %{http_version}"])).await;
    assert!(String::from_utf8_lossy(&made.stdout).ends_with(" 2"), "{made:?}");
    for (version, said) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200 OK")] {
        let mut stream = curl(&ca, &driver, "/messages/rides/ride/events", &["-N", "-i", version]).spawn().unwrap();
        let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
        let until = async |what: &str, lines: &mut tokio::io::Lines<_>| {
            let mut read = Vec::new();
            let reading = async {
                while read.last().is_none_or(|line: &String| !line.starts_with(what)) {
                    read.push(lines.next_line().await.unwrap().expect("the stream goes on"));
                }
            };
            timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {what}"));
            read
        };
        let head = until("event: stream:sync", &mut lines).await;
        assert_eq!(head[0].trim(), said);
        // RFC 9113, section 8.2.2.
        assert!(version == "--http1.1" || !head.iter().any(|line| line.to_lowercase().starts_with("connection:")));
        let send = [version, "-d", r#"{"rideId": "ride", "content": "in private"}"#];
        let sent = run(curl(&ca, &rider, "/messages", &send)).await;
        assert!(String::from_utf8_lossy(&sent.stdout).contains("in private"), "{sent:?}");
        until("event: message:new", &mut lines).await;
        assert!(until("data: ", &mut lines).await.last().unwrap().contains("in private"));
    }
    // Refusals of HTTP/2 have no `Connection` header either.
    let said = run(curl(&ca, &rider, "/messages", &["-i", "-d", &"x".repeat(70_000)])).await;
    let refused = String::from_utf8_lossy(&said.stdout).to_lowercase();
    assert!(refused.starts_with("http/2 413") && !refused.contains("\nconnection:"), "{refused} {said:?}");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_not() {
    let database = Database::create().await;
    let certificate = Certificate::new();
    let server = Server::with(&database, &certificate.settings()).await;
    let rider = server.rider("rider_1");
    let is_believed = async |ca: &Path| run(curl(ca, &rider, "/rides", &["-f"])).await.status.success();
    let old = certificate.path("old.pem");
    std::fs::copy(certificate.path("ca.pem"), &old).unwrap();
    assert!(is_believed(&old).await);

    std::fs::write(certificate.path("key.pem"), "not a key").unwrap();
    eventually("the bad one is noticed", async || server.log().contains("cannot be used").then_some(())).await;
    assert!(is_believed(&old).await, "the old one stays");

    certificate.make();
    eventually("the new one is used", async || is_believed(&certificate.path("ca.pem")).await.then_some(())).await;
    assert!(!is_believed(&old).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_speak_tls_is_let_go_and_the_server_is_healthy() {
    let database = Database::create().await;
    let certificate = Certificate::new();
    let settings = [&certificate.settings()[..], &[("RIDEWIRE_HEAD_TIMEOUT", "3s")]].concat();
    let server = Server::with(&database, &settings).await;
    let address = server.base.trim_start_matches("https://");
    let said = ["", "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    join_all(said.map(async |said| {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, connection.read_to_end(&mut answer)).await.expect("it is let go");
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "{said:?}");
    }))
    .await;
    let environment = [&settings[..], &[("RIDEWIRE_LISTEN", address)]].concat();
    let healthy = ridewire().arg("healthcheck").envs(environment).output().await.unwrap();
    assert!(healthy.status.success(), "{healthy:?}");
}

/// A connection on which HTTP/2 was agreed on.
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

/// Frames of HTTP/2 (RFC 9113, section 4.1), after its preface.
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

/// A request's head (RFC 7541): GET and https by their numbers, the rest as literals that are not kept.
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

/// Reads to the end of a connection, and says meanwhile that somebody is there (RFC 9113, section 6.7).
async fn answer_pings(connection: &mut TlsStream<TcpStream>) {
    let mut head = [0; 9];
    while connection.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        let is_read = connection.read_exact(&mut payload).await.is_ok();
        if is_read && (head[3], head[4]) == (6, 0) {
            head[4] = 1;
            // It may be at its end.
            let _ = connection.write_all(&[&head[..], &payload].concat()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_nothing_by_http_2_or_takes_nothing_is_let_go_and_who_follows_a_ride_is_not() {
    let database = Database::create().await;
    let certificate = Certificate::new();
    // Short enough to be waited for, and long enough for whoever does ask.
    let hasty = [("RIDEWIRE_HEAD_TIMEOUT", "3s"), ("RIDEWIRE_WRITE_TIMEOUT", "3s")];
    let server = Server::with(&database, &[&certificate.settings()[..], &hasty].concat()).await;
    let (service, rider, driver) = (server.service(), server.rider("rider_1"), server.driver("driver_1"));
    let ca = certificate.path("ca.pem");
    let body = r#"{"riderId": "rider_1", "driverId": "driver_1"}"#;
    run(curl(&ca, &service, "/rides/ride", &["-X", "PUT", "-d", body])).await;
    let mut stream = curl(&ca, &driver, "/messages/rides/ride/events", &["-N", "--http2"]).spawn().unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();

    let (settings, no_window) = ((4, 0, 0, Vec::new()), (4, 0, 0, vec![0, 4, 0, 0, 0, 0]));
    let head = head("/api/v1/messages/rides/ride/events", &rider.token);
    let (half, whole) = ((1, 0, 1, head[..9].to_vec()), (1, 5, 1, head));
    // One that follows a ride, and takes one byte of a poll beside that.
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
    join_all(all.iter().map(async |said| {
        let mut connection = http2(&server, &ca).await;
        connection.write_all(said).await.unwrap();
        let ended = timeout(PATIENCE, answer_pings(&mut connection)).await;
        ended.unwrap_or_else(|_| panic!("it is let go: {said:?}"));
    }))
    .await;

    run(curl(&ca, &rider, "/messages", &["-d", r#"{"rideId": "ride", "content": "still there"}"#])).await;
    let following =
        async { while !lines.next_line().await.unwrap().expect("the stream goes on").contains("still there") {} };
    timeout(PATIENCE, following).await.expect("the message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_cannot_be_used_is_refused_at_the_start() {
    let database = Database::create().await;
    let (one, another) = (Certificate::new(), Certificate::new());
    let (certificate, key) = (one.settings[0].1.as_str(), one.settings[1].1.as_str());
    for (certificate, key, said) in [
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
        let refused = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains(said), "{certificate} {key}: {error}");
    }
}
