//! Settings that are more than a value: a start and `ridewire check` read them in the same way.

use std::sync::Arc;

use super::AppError;
use crate::config::Settings;
use crate::http::guard::Origin;
use crate::serving::Certificate;
use crate::store::Address;
use crate::traces::Traces;

/// The certificate of the server, if it has one.
pub(crate) fn certificate(settings: &Settings) -> Result<Option<Arc<Certificate>>, AppError> {
    match (&settings.addresses.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => Ok(Some(Arc::new(Certificate::read(certificate, key)?))),
        (None, None) => Ok(None),
        _ => {
            Err(AppError::Setting("set both RIDEWIRE_TLS_CERTIFICATE and RIDEWIRE_TLS_KEY, or none of them".to_owned()))
        }
    }
}

/// The sites whose scripts may use the API.
pub(crate) fn origins(settings: &Settings) -> Result<Vec<Origin>, AppError> {
    let origins = settings.cors_origins.iter().map(|origin| origin.trim().parse());
    let origins: Result<_, String> = origins.collect();
    origins.map_err(|error| AppError::Setting(format!("RIDEWIRE_CORS_ORIGINS: {error}")))
}

/// The collector of traces, if there is one.
pub(crate) fn traces(settings: &Settings) -> Result<Traces, AppError> {
    let Some(endpoint) = &settings.otlp_endpoint else { return Ok(Traces::default()) };
    Traces::to(endpoint, settings.trace_ratio).map_err(|error| {
        AppError::Setting(format!("RIDEWIRE_OTLP_ENDPOINT: {error}; write it as http://collector:4318"))
    })
}

/// An address of Postgres.
pub(crate) fn postgres(url: &str, setting: &str) -> Result<Address, AppError> {
    url.parse()
        .map_err(|error| AppError::Setting(format!("{setting} must be a Postgres URL or a list of key=value: {error}")))
}
