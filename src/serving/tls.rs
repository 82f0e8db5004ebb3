//! TLS by a certificate and its key, which are read again when their files change.

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

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// HTTP/2 as ALPN names it (RFC 9113, section 3.1).
pub(super) const HTTP2: &[u8] = b"h2";

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {error}; name a PEM file that the server's user may read", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A file that does not hold what it should.
    #[error("{path}: {error}; it must be PEM", path = .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: pem::Error,
    },
    /// A certificate and a key that cannot be used, or not together.
    #[error("the certificate and its key: {0}; the key must be that of the first certificate in the file")]
    Unusable(#[from] rustls::Error),
}

/// A certificate with its chain, and its key.
pub struct Certificate {
    files: [PathBuf; 2],
    /// What the files held, and what was made of it.
    current: RwLock<(Files, TlsAcceptor)>,
}

#[derive(PartialEq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Reads both files: PEM, the server's own certificate first.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = [certificate.to_owned(), key.to_owned()];
        let held = Files::read(&files)?;
        let acceptor = held.acceptor(&files)?;
        Ok(Self { files, current: RwLock::new((held, acceptor)) })
    }

    /// The server's own certificate, as it is used now, in DER.
    pub fn own(&self) -> Option<CertificateDer<'static>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        CertificateDer::pem_slice_iter(&current.0.certificate).next().and_then(Result::ok)
    }

    /// What connections are accepted with from now on.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Looks at the files now and then. Connections that are open stay as they are; and where the new files cannot be used,
    /// as when only one of them is there yet, so does everything.
    pub(super) async fn keep_current(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused = None;
        loop {
            ticks.tick().await;
            match self.renew() {
                Ok(true) => {
                    refused = None;
                    tracing::info!(certificate = %self.files[0].display(), "a new certificate is used");
                }
                Ok(false) => refused = None,
                Err(error) => {
                    let said = error.to_string();
                    // Once, however long it lasts.
                    if refused.as_ref() != Some(&said) {
                        tracing::warn!(%error, "the new certificate cannot be used; the old one stays");
                        refused = Some(said);
                    }
                }
            }
        }
    }

    /// When it expires, or the first of its chain does, in seconds of the Unix clock; `None` where that cannot be read.
    pub fn expires_at(&self) -> Option<u64> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let chain = CertificateDer::pem_slice_iter(&current.0.certificate);
        let expires_at = |der: CertificateDer<'_>| {
            let certificate = x509_cert::Certificate::from_der(&der).ok()?;
            Some(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
        };
        chain.filter_map(|certificate| expires_at(certificate.ok()?)).min()
    }

    fn renew(&self) -> Result<bool, TlsError> {
        let held = Files::read(&self.files)?;
        if held == self.current.read().unwrap_or_else(PoisonError::into_inner).0 {
            return Ok(false);
        }
        let acceptor = held.acceptor(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (held, acceptor);
        Ok(true)
    }
}

impl Files {
    fn read([certificate, key]: &[PathBuf; 2]) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| TlsError::File { path: path.clone(), error });
        Ok(Self { certificate: read(certificate)?, key: read(key)? })
    }

    fn acceptor(&self, [certificate, key]: &[PathBuf; 2]) -> Result<TlsAcceptor, TlsError> {
        let wrong = |path: &PathBuf| {
            let path = path.clone();
            move |error| TlsError::Pem { path, error }
        };
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<_, _>>().map_err(wrong(certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(wrong(key))?;
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
