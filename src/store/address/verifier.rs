//! Verification of the certificate of the database server.

use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::AddressError;
use crate::trust::{AnyCertificate, system_roots};

/// Which server certificates are accepted.
pub(super) enum TrustAnchors<'a> {
    /// Any certificate. The connection is encrypted, but another server may answer in place of the database.
    Unverified,
    /// A certificate signed by an authority of this file, for any name (`verify-ca`).
    VerifyCa(&'a str),
    /// A certificate signed by an authority of this file, for the name of the host (`verify-full`).
    VerifyFull(&'a str),
    /// A certificate signed by an authority that the operating system trusts, for the name of the host.
    System,
}

/// The verifier that rustls calls for [`TrustAnchors`].
#[derive(Debug)]
pub(super) struct PgServerCertVerifier {
    verifier: Arc<dyn ServerCertVerifier>,
    verify_name: bool,
}

impl PgServerCertVerifier {
    pub(super) fn new(anchors: &TrustAnchors<'_>) -> Result<Self, AddressError> {
        let roots = match anchors {
            TrustAnchors::Unverified => return Ok(Self { verifier: AnyCertificate::new(), verify_name: false }),
            TrustAnchors::VerifyCa(path) | TrustAnchors::VerifyFull(path) => {
                let wrong = |error| AddressError::Roots { path: (*path).to_owned(), error };
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path).map_err(wrong)? {
                    roots.add(certificate.map_err(wrong)?)?;
                }
                roots
            }
            // If there is none, the builder below fails.
            TrustAnchors::System => system_roots(),
        };
        let provider = Arc::<CryptoProvider>::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { verifier, verify_name: !matches!(anchors, TrustAnchors::VerifyCa(_)) })
    }
}

impl ServerCertVerifier for PgServerCertVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // rustls verifies the name last, so the chain is valid here.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.verify_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    // The handshake signature is always verified: channel binding (SCRAM) relies on it.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
