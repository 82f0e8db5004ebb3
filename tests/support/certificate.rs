//! A self-signed certificate for `localhost` and its key.

use std::path::PathBuf;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

/// A certificate and its key, in files of a temporary directory.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
    pub settings: [(&'static str, String); 2],
}

impl Certificate {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let settings = [("RIDEWIRE_TLS_CERTIFICATE", path("cert.pem")), ("RIDEWIRE_TLS_KEY", path("key.pem"))];
        let certificate = Self { directory, settings };
        certificate.generate();
        certificate
    }

    /// Generates a certificate and a key. Replaces the ones that are there.
    pub fn generate(&self) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.path("cert.pem"), cert.pem()).unwrap();
        std::fs::write(self.path("key.pem"), signing_key.serialize_pem()).unwrap();
        std::fs::write(self.path("ca.pem"), cert.pem()).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the settings of a server that uses the certificate.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}
