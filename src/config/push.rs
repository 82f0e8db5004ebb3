//! The settings of Web Push, besides `RIDEWIRE_PUSH_AFTER`.

use clap::Args;

use super::PLATFORM;

/// The sender of Web Push.
#[derive(Debug, Clone, Args)]
pub struct PushSettings {
    /// The private key that identifies the sender of Web Push (VAPID): 32 bytes in base64url. After a change all browsers must
    /// subscribe again [default: the database has one].
    #[arg(long, env = "RIDEWIRE_VAPID_KEY", help_heading = PLATFORM, hide_env_values = true)]
    pub vapid_key: Option<String>,

    /// The contact of the sender of Web Push for push services, such as `mailto:operations@example.com`. Apple's requires one
    /// [default: `RIDEWIRE_PUBLIC_URL`, if it is https].
    #[arg(long, env = "RIDEWIRE_VAPID_SUBJECT", help_heading = PLATFORM)]
    pub vapid_subject: Option<String>,
}
