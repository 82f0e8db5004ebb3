//! Clients that write and read raw bytes over TLS, for traffic that an HTTP library does not produce.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{Server, TIMEOUT};

pub(super) type Connection = TlsStream<TcpStream>;

/// A server and the tokens of its clients.
#[derive(Clone)]
pub(super) struct Target {
    address: String,
    roots: Arc<RootCertStore>,
    pub(super) rider: String,
    pub(super) driver: String,
    pub(super) service: String,
    /// The origin of the timestamps in messages.
    pub(super) began: Instant,
}

impl Target {
    pub(super) fn new(server: &Server, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        Self {
            address: server.base.trim_start_matches("https://").to_owned(),
            roots: Arc::new(roots),
            rider: server.rider("hostile_rider").token,
            driver: server.driver("hostile_driver").token,
            service: server.service().token,
            began: Instant::now(),
        }
    }

    /// Opens a connection with a small receive buffer, and with this ALPN protocol if one is given.
    pub(super) async fn connect(&self, protocol: Option<&str>) -> io::Result<Connection> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        config.alpn_protocols = protocol.map(|name| name.as_bytes().to_vec()).into_iter().collect();
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(16 * 1024)?;
        let socket = socket.connect(self.address.parse().unwrap()).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, socket);
        timeout(TIMEOUT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    pub(super) async fn write(&self, connection: &mut Connection, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        connection.write_all(bytes.as_ref()).await?;
        connection.flush().await
    }

    /// Sends a request and reads its whole response. Returns the status.
    pub(super) async fn exchange(&self, connection: &mut Connection, request: &str) -> io::Result<u16> {
        self.write(connection, request).await?;
        Ok(response(connection).await?.0)
    }

    /// Sends a request on a new connection. Returns the status and the body.
    pub(super) async fn execute(&self, request: &str) -> (u16, String) {
        let asking = async {
            let mut connection = self.connect(None).await?;
            self.write(&mut connection, request).await?;
            response(&mut connection).await
        };
        timeout(TIMEOUT, asking).await.expect("a response").unwrap()
    }

    /// Returns all samples of `/metrics`.
    pub(super) async fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.execute("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(status, 200);
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }
}

/// Reads a response with a `Content-Length`.
async fn response(connection: &mut Connection) -> io::Result<(u16, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            let status: u16 = status.ok_or(io::ErrorKind::InvalidData)?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            while bytes.len() < end + 4 + length {
                if connection.read_buf(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            return Ok((status, String::from_utf8_lossy(&bytes[end + 4..]).into_owned()));
        }
        if connection.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads the frames of an event stream while `goes_on` returns true.
pub(super) async fn frames(connection: &mut Connection, rest: &mut Vec<u8>, mut continues: impl FnMut(&str) -> bool) {
    loop {
        while let Some(end) = rest.windows(2).position(|window| window == b"\n\n") {
            let frame: Vec<u8> = rest.drain(..end + 2).collect();
            if !continues(&String::from_utf8_lossy(&frame)) {
                return;
            }
        }
        if !matches!(connection.read_buf(rest).await, Ok(1..)) {
            return;
        }
    }
}

pub(super) fn get(path: &str, token: &str) -> String {
    format!("GET /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
}

pub(super) fn post(path: &str, token: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Encodes the header fields of an HTTP/2 `GET` as literals without indexing (RFC 7541, section 6.2.2).
pub(super) fn header_block(path: &str, token: &str) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("authorization", &format!("Bearer {token}")),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // An integer with a 7-bit prefix (section 5.1).
            let mut length = text.len();
            if length < 127 {
                block.push(u8::try_from(length).unwrap());
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push(u8::try_from(length % 128).unwrap() | 0x80);
                    length /= 128;
                }
                block.push(u8::try_from(length).unwrap());
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Returns the start of a connection with windows of 0 and this many requests (RFC 9113, sections 3.4, 4.1, 6.2 and 6.5).
pub(super) fn http2(block: &[u8], requests: u32) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE.
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for number in 0..requests {
        // END_STREAM and END_HEADERS.
        bytes.extend(frame(1, 0x05, 2 * number + 1, block));
    }
    bytes
}
