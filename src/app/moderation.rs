//! Builds the moderation hook's client from the settings.

use super::AppError;
use crate::config::{ModerationSettings, OnModerationFailure};
use crate::moderation::{Moderation, ModerationConfig, OnFailure};

/// Returns the client of the moderation hook; `None` if no hook is configured.
pub(crate) fn of(settings: &ModerationSettings) -> Result<Option<Moderation>, AppError> {
    let Some(url) = settings.moderation_url.clone().filter(|url| !url.is_empty()) else { return Ok(None) };
    let secret = settings.moderation_secret.clone().ok_or_else(|| {
        AppError::Setting("RIDEWIRE_MODERATION_URL needs RIDEWIRE_MODERATION_SECRET as well".to_owned())
    })?;
    let on_failure = match settings.moderation_on_failure {
        OnModerationFailure::Allow => OnFailure::Allow,
        OnModerationFailure::Reject => OnFailure::Reject,
    };
    let timeout = settings.moderation_timeout;
    Ok(Some(Moderation::new(&ModerationConfig { url, secret, timeout, on_failure })?))
}
