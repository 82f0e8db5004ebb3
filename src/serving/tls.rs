//! TLS with a certificate and its key, which are reloaded when their files change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use x509_cert::der::Decode;

/// How often the files are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The ALPN name of HTTP/2 (RFC 9113, section 3.1).
pub(super) const HTTP2: &[u8] = b"h2";

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}; name a PEM file that the server's user may read", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// A file is not valid PEM.
    #[error("{path}: {error}; it must be PEM", path = .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: pem::Error,
    },
    /// The certificate or the key is unusable, or they do not belong together.
    #[error("the certificate and its key: {0}; the key must be that of the first certificate in the file")]
    Unusable(#[from] rustls::Error),
}

/// A certificate with its chain and its key.
pub struct Certificate {
    files: [PathBuf; 2],
    /// The contents of the files, and the acceptor made of them.
    current: RwLock<(Files, TlsAcceptor)>,
}

#[derive(PartialEq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Reads both files. They are PEM; the server's own certificate comes first.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = [certificate.to_owned(), key.to_owned()];
        let contents = Files::read(&files)?;
        let acceptor = contents.acceptor(&files)?;
        Ok(Self { files, current: RwLock::new((contents, acceptor)) })
    }

    /// Returns the server's own certificate that is in use, in DER.
    pub fn own(&self) -> Option<CertificateDer<'static>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        CertificateDer::pem_slice_iter(&current.0.certificate).next().and_then(Result::ok)
    }

    /// Returns the acceptor for new connections.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Checks the files regularly and reloads them when they have changed. Open connections keep the previous certificate. If the new files
    /// are unusable, for example because only one of them is written yet, the previous certificate stays in use.
    pub(super) async fn watch_files(&self) {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_error = None;
        loop {
            ticks.tick().await;
            match self.reload() {
                Ok(true) => {
                    last_error = None;
                    tracing::info!(certificate = %self.files[0].display(), "certificate reloaded");
                }
                Ok(false) => last_error = None,
                Err(error) => {
                    let text = error.to_string();
                    // Logged once, however long the error lasts.
                    if last_error.as_ref() != Some(&text) {
                        tracing::warn!(%error, "certificate reload failed, previous certificate stays in use");
                        last_error = Some(text);
                    }
                }
            }
        }
    }

    /// Returns when the first certificate of the chain expires, in seconds of the Unix clock, or `None` if that cannot be read.
    pub fn expires_at(&self) -> Option<u64> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let chain = CertificateDer::pem_slice_iter(&current.0.certificate);
        let expires_at = |der: CertificateDer<'_>| {
            let certificate = x509_cert::Certificate::from_der(&der).ok()?;
            Some(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
        };
        chain.filter_map(|certificate| expires_at(certificate.ok()?)).min()
    }

    fn reload(&self) -> Result<bool, TlsError> {
        let contents = Files::read(&self.files)?;
        if contents == self.current.read().unwrap_or_else(PoisonError::into_inner).0 {
            return Ok(false);
        }
        let acceptor = contents.acceptor(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (contents, acceptor);
        Ok(true)
    }
}

impl Files {
    fn read([certificate, key]: &[PathBuf; 2]) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| TlsError::File { path: path.clone(), error });
        Ok(Self { certificate: read(certificate)?, key: read(key)? })
    }

    fn acceptor(&self, [certificate, key]: &[PathBuf; 2]) -> Result<TlsAcceptor, TlsError> {
        let invalid = |path: &PathBuf| {
            let path = path.clone();
            move |error| TlsError::Pem { path, error }
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(invalid(certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(invalid(key))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}
