//! Settings that need more than parsing. A start and `ridewire check` validate them with the same code.

use std::sync::Arc;

use super::{AppError, moderation, push};
use crate::auth::Verifier;
use crate::config::Settings;
use crate::http::security::Origin;
use crate::jwks::Jwks;
use crate::keys;
use crate::moderation::Moderation;
use crate::serving::Certificate;
use crate::store::Address;
use crate::traces::Traces;

/// The results of validating the settings. Validation runs before anything starts, so an invalid setting has no side effects.
pub(super) struct ValidatedSettings {
    pub(super) verifier: Arc<Verifier>,
    pub(super) jwks: Option<Arc<Jwks>>,
    pub(super) traces: Arc<Traces>,
    pub(super) origins: Vec<Origin>,
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) moderation: Option<Moderation>,
    pub(super) is_demo: bool,
}

impl ValidatedSettings {
    /// Validates the settings, and loads the keys.
    pub(super) async fn new(settings: &Settings, is_demo: bool) -> Result<Self, AppError> {
        push::check(settings)?;
        let origins = origins(settings)?;
        let certificate = certificate(settings)?;
        let moderation = moderation::of(&settings.moderation)?;
        let traces = traces(settings)?;
        let keys = keys::verification_keys(&settings.keys, &settings.database)?;
        let verifier = Verifier::new(keys, keys::claim_validation(&settings.keys));
        let (verifier, jwks) = match settings.keys.jwks.as_deref() {
            Some(source) => {
                let verifier = Arc::new(verifier.with_jwks());
                let jwks = Jwks::new(source.parse()?, Arc::clone(&verifier), settings.jwks_period);
                jwks.start().await?;
                (verifier, Some(Arc::new(jwks)))
            }
            None => (Arc::new(verifier), None),
        };
        Ok(Self { traces: Arc::new(traces), verifier, jwks, origins, certificate, moderation, is_demo })
    }
}

/// Loads the certificate of the server; `None` if none is configured.
pub(crate) fn certificate(settings: &Settings) -> Result<Option<Arc<Certificate>>, AppError> {
    match (&settings.addresses.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => Ok(Some(Arc::new(Certificate::read(certificate, key)?))),
        (None, None) => Ok(None),
        _ => {
            Err(AppError::Setting("set both RIDEWIRE_TLS_CERTIFICATE and RIDEWIRE_TLS_KEY, or none of them".to_owned()))
        }
    }
}

/// Parses the origins whose scripts may use the API.
pub(crate) fn origins(settings: &Settings) -> Result<Vec<Origin>, AppError> {
    let origins = settings.cors_origins.iter().map(|origin| origin.trim().parse());
    let origins: Result<_, String> = origins.collect();
    origins.map_err(|error| AppError::Setting(format!("RIDEWIRE_CORS_ORIGINS: {error}")))
}

/// Creates the exporter of traces. Without a collector it records nothing.
pub(crate) fn traces(settings: &Settings) -> Result<Traces, AppError> {
    let Some(endpoint) = &settings.otlp_endpoint else { return Ok(Traces::default()) };
    Traces::export_to(endpoint, settings.trace_ratio).map_err(|error| {
        AppError::Setting(format!("RIDEWIRE_OTLP_ENDPOINT: {error}; write it as http://collector:4318"))
    })
}

/// Parses an address of Postgres. `setting` is named in the error.
pub(crate) fn postgres(url: &str, setting: &str) -> Result<Address, AppError> {
    url.parse()
        .map_err(|error| AppError::Setting(format!("{setting} must be a Postgres URL or a list of key=value: {error}")))
}
