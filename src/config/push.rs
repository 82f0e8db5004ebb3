//! The settings of Web Push, besides `RIDEWIRE_PUSH_AFTER`.

use clap::Args;

/// Who sends Web Push.
#[derive(Debug, Clone, Args)]
pub struct PushSettings {
    /// The private key by which push services know the sender of Web Push (VAPID): 32 bytes in base64url. With another one all browsers
    /// must subscribe again [default: the database has one].
    #[arg(long, env = "RIDEWIRE_VAPID_KEY", global = true, hide_env_values = true)]
    pub vapid_key: Option<String>,

    /// Whom a push service can ask about the sender of Web Push, such as `mailto:operations@example.com`; Apple's requires one
    /// [default: `RIDEWIRE_PUBLIC_URL`, where it is https].
    #[arg(long, env = "RIDEWIRE_VAPID_SUBJECT", global = true)]
    pub vapid_subject: Option<String>,
}
