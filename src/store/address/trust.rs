//! Whom to believe that they are the database.

use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::AddressError;

/// Whom to believe.
pub(super) enum Trust<'a> {
    /// Whoever answers: nobody can listen, but somebody may answer in the database's place.
    Anybody,
    /// Who was certified by one of those in this file, whatever their name.
    Chain(&'a str),
    /// Who was certified by one of those in this file, for the name that we have asked for.
    Name(&'a str),
    /// The same by those whom this system believes.
    System,
}

/// The same, as rustls asks.
#[derive(Debug)]
pub(super) struct Believing {
    certifiers: Option<Arc<WebPkiServerVerifier>>,
    by_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Believing {
    pub(super) fn new(trust: &Trust<'_>) -> Result<Self, AddressError> {
        let provider = ring::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let mut roots = RootCertStore::empty();
        match trust {
            Trust::Anybody => return Ok(Self { certifiers: None, by_name: false, algorithms }),
            Trust::Chain(path) | Trust::Name(path) => {
                let wrong = |error| AddressError::Roots { path: (*path).to_owned(), error };
                for certificate in CertificateDer::pem_file_iter(path).map_err(wrong)? {
                    roots.add(certificate.map_err(wrong)?)?;
                }
            }
            Trust::System => {
                // Some may be of a kind that is not known here; without any the builder below fails.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::<CryptoProvider>::new(provider);
        let certifiers = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { certifiers: Some(certifiers), by_name: !matches!(trust, Trust::Chain(_)), algorithms })
    }
}

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(certifiers) = &self.certifiers else { return Ok(ServerCertVerified::assertion()) };
        match certifiers.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.by_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    // That the key of the certificate is there is always looked at: binding a password to it (SCRAM) relies on that.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
