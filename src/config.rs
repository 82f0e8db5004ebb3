//! The configuration: each setting is an environment variable and a flag.

mod explicit;
mod postgres;
mod push;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub(crate) use self::explicit::explicit_settings;
pub use self::postgres::{PostgresSettings, ShardDatabase};
pub use self::push::PushSettings;
pub(crate) use self::values::{at_least_one, duration, web_address};
use self::values::{head_bytes, log_filter, memory, number, period, ratio};

// The headings in `--help`. A test rejects a setting without a heading.
const ADDRESSES: &str = "Addresses and TLS";
const DATABASE: &str = "Database";
const KEYS: &str = "Keys and tokens";
const STREAMS: &str = "Chats, streams and replicas";
const RETENTION: &str = "Retention";
const PLATFORM: &str = "Feed, webhooks and moderation";
const LIMITS: &str = "Limits";
const BROWSERS: &str = "Browsers";
const LOGS: &str = "Logs and traces";

/// Whether replicas notify each other of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Notify {
    /// By LISTEN and NOTIFY.
    On,
    /// Replicas only poll: for databases without LISTEN and NOTIFY.
    Off,
}

/// Whether statements are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PreparedStatements {
    /// Once per connection.
    On,
    /// Each statement is sent as text: for transaction poolers such as `PgBouncer`.
    Off,
}

/// Whether the feed is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Feed {
    /// The feed is on.
    On,
    /// No feed, and none of the features that depend on it.
    Off,
}

/// The handling of a message whose moderation check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnModerationFailure {
    /// Store it.
    Allow,
    /// Reject it with 503.
    Reject,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether the console is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Console {
    /// Served at `/`.
    On,
    /// Not served.
    Off,
}

/// All settings.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseSettings,

    /// The connection to Postgres, or its programs.
    #[command(flatten)]
    pub postgres: PostgresSettings,

    /// The addresses to listen on.
    #[command(flatten)]
    pub addresses: AddressSettings,

    /// The certificate's private key: a PEM file.
    #[arg(long, env = "RIDEWIRE_TLS_KEY", help_heading = ADDRESSES)]
    pub tls_key: Option<PathBuf>,

    /// The keys that verify tokens.
    #[command(flatten)]
    pub keys: KeySettings,

    /// Whether to serve the console at `/` and the API reference at `/docs`. With an admin listener they are served there,
    /// together with the API [default: off; on in a demo].
    #[arg(long, env = "RIDEWIRE_CONSOLE", help_heading = BROWSERS, value_enum)]
    pub console: Option<Console>,

    /// How often the issuer's key set is read.
    #[arg(long, env = "RIDEWIRE_JWKS_PERIOD", help_heading = KEYS, default_value = "5m", value_parser = period)]
    pub jwks_period: Duration,

    /// How long a chat stays open after its ride's end, unless the ride has a policy of its own.
    #[arg(long, env = "RIDEWIRE_CHAT_GRACE", help_heading = STREAMS, default_value = "24h", value_parser = duration)]
    pub chat_grace: Duration,

    /// How long a user stays online after their last connection has closed.
    #[arg(long, env = "RIDEWIRE_PRESENCE_GRACE", help_heading = STREAMS, default_value = "15s", value_parser = duration)]
    pub presence_grace: Duration,

    /// How long a stream is silent before it sends a heartbeat comment, unless its client sets another time.
    #[arg(long, env = "RIDEWIRE_HEARTBEAT", help_heading = STREAMS, default_value = "15s", value_parser = period)]
    pub heartbeat: Duration,

    /// How often a replica polls the log for events without a notification.
    #[arg(long, env = "RIDEWIRE_FALLBACK_POLL", help_heading = STREAMS, default_value = "3s", value_parser = period)]
    pub fallback_poll: Duration,

    /// Whether replicas notify each other of commits by LISTEN and NOTIFY.
    #[arg(long, env = "RIDEWIRE_NOTIFY", help_heading = DATABASE, value_enum, default_value = "on")]
    pub notify: Notify,

    /// Whether statements are prepared. Set it to `off` if `DATABASE_URL` leads through a transaction pooler.
    #[arg(long, env = "RIDEWIRE_PREPARED_STATEMENTS", help_heading = DATABASE, value_enum, default_value = "on")]
    pub prepared_statements: PreparedStatements,

    /// The most connections to Postgres, without the one for LISTEN.
    #[arg(long, env = "RIDEWIRE_DATABASE_CONNECTIONS", help_heading = DATABASE, default_value_t = 8, value_parser = at_least_one)]
    pub database_connections: usize,

    /// How long a request may wait for Postgres. After it the request gets 503 with `Retry-After`.
    #[arg(long, env = "RIDEWIRE_DATABASE_TIMEOUT", help_heading = DATABASE, default_value = "2s", value_parser = period)]
    pub database_timeout: Duration,

    /// The time over which a stopping server closes its open streams, one by one.
    #[arg(long, env = "RIDEWIRE_DRAIN_WINDOW", help_heading = STREAMS, default_value = "20s", value_parser = duration)]
    pub drain_window: Duration,

    /// How long a ride's log is kept after the ride's end, and how long user events are kept.
    #[arg(long, env = "RIDEWIRE_LOG_RETENTION", help_heading = RETENTION, default_value = "72h", value_parser = duration)]
    pub log_retention: Duration,

    /// How long messages and the ride itself are kept after the ride's end.
    #[arg(long, env = "RIDEWIRE_MESSAGE_RETENTION", help_heading = RETENTION, default_value = "365d", value_parser = duration)]
    pub message_retention: Duration,

    /// Whether the platform's feed of all events is on. The feed has the events that are committed while it is on.
    #[arg(long, env = "RIDEWIRE_FEED", help_heading = PLATFORM, value_enum, default_value = "on")]
    pub feed: Feed,

    /// How long the feed keeps an event, from the event's time.
    #[arg(long, env = "RIDEWIRE_FEED_RETENTION", help_heading = PLATFORM, default_value = "72h", value_parser = duration)]
    pub feed_retention: Duration,

    /// How long a message may stay undelivered before `message:undelivered` is put on the feed. `0s`: never. It also applies to
    /// messages from before it was set, as far as the feed retains them.
    #[arg(long, env = "RIDEWIRE_PUSH_AFTER", help_heading = PLATFORM, default_value = "5s", value_parser = duration)]
    pub push_after: Duration,

    /// Comma-separated names or addresses of hosts that webhooks and Web Push may reach over `http` and at private addresses
    /// [default: none].
    #[arg(long, env = "RIDEWIRE_WEBHOOK_ALLOW_HOSTS", help_heading = PLATFORM, value_delimiter = ',')]
    pub webhook_allow_hosts: Vec<String>,

    /// Comma-separated delays after each failed attempt to deliver an event to a webhook. They are jittered. The last one applies
    /// to all further attempts.
    #[arg(long, env = "RIDEWIRE_WEBHOOK_RETRIES", help_heading = PLATFORM, default_value = "5s,5m,30m,2h,5h,10h,12h",
        value_delimiter = ',', value_parser = period)]
    pub webhook_retries: Vec<Duration>,

    /// How long after its first attempt a delivery is given up, and how long a webhook may fail before it is disabled.
    #[arg(long, env = "RIDEWIRE_WEBHOOK_GIVE_UP", help_heading = PLATFORM, default_value = "72h", value_parser = period)]
    pub webhook_give_up: Duration,

    /// The sender of Web Push.
    #[command(flatten)]
    pub push: PushSettings,

    /// How long the handovers of messages to connections are kept, for message traces. `0s`: they are not recorded.
    #[arg(long, env = "RIDEWIRE_MESSAGE_TRACE_RETENTION", help_heading = RETENTION, default_value = "72h", value_parser = duration)]
    pub message_trace_retention: Duration,

    /// How long the audit log keeps the actions of support and service users.
    #[arg(long, env = "RIDEWIRE_AUDIT_RETENTION", help_heading = RETENTION, default_value = "90d", value_parser = duration)]
    pub audit_retention: Duration,

    /// How often expired data is deleted.
    #[arg(long, env = "RIDEWIRE_RETENTION_PERIOD", help_heading = RETENTION, default_value = "1m", value_parser = period)]
    pub retention_period: Duration,

    /// The limits of the server.
    #[command(flatten)]
    pub limits: LimitSettings,

    /// The moderation hook.
    #[command(flatten)]
    pub moderation: ModerationSettings,

    /// Comma-separated origins whose scripts may use the API, such as `https://app.example.com`. `*` allows all
    /// [default: none].
    #[arg(long, env = "RIDEWIRE_CORS_ORIGINS", help_heading = BROWSERS, value_delimiter = ',')]
    pub cors_origins: Vec<String>,

    /// The URL that clients use, such as `https://chat.example.com`. The URLs of error pages begin with it [default: the
    /// request's own scheme and host].
    #[arg(long, env = "RIDEWIRE_PUBLIC_URL", help_heading = ADDRESSES, value_parser = web_address)]
    pub public_url: Option<String>,

    /// The collector of traces, which must support OTLP over HTTP, such as `http://collector:4318`.
    #[arg(long, env = "RIDEWIRE_OTLP_ENDPOINT", help_heading = LOGS)]
    pub otlp_endpoint: Option<String>,

    /// The sampled fraction of requests, from 0 to 1. A request with a sampled `traceparent` is always sampled.
    #[arg(long, env = "RIDEWIRE_TRACE_RATIO", help_heading = LOGS, default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,

    /// The logs.
    #[command(flatten)]
    pub logs: LogSettings,
}

/// The settings of subcommands that use the database, or the secret in the data directory.
#[derive(Debug, Clone, Args)]
pub struct DatabaseSettings {
    /// The address of Postgres: a URL, or `key=value` pairs. Without it the server starts a private Postgres in the data
    /// directory, and stops it at its own end.
    #[arg(long, env = "DATABASE_URL", help_heading = DATABASE, hide_env_values = true)]
    pub database_url: Option<String>,

    /// The directory of the private Postgres and the development secret [default: .ridewire; as root
    /// /var/lib/ridewire].
    #[arg(long, env = "RIDEWIRE_DATA_DIR", help_heading = DATABASE)]
    pub data_dir: Option<PathBuf>,
}

impl DatabaseSettings {
    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(crate::embedded::default_data_dir)
    }
}

/// The settings of subcommands that listen, or that send a request to the server.
#[derive(Debug, Clone, Args)]
pub struct AddressSettings {
    /// The address to listen on.
    #[arg(long, env = "RIDEWIRE_LISTEN", help_heading = ADDRESSES, default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// The address of the admin listener. `/metrics` is then served there only.
    #[arg(long, env = "RIDEWIRE_ADMIN_LISTEN", help_heading = ADDRESSES)]
    pub admin_listen: Option<String>,

    /// The certificate of the server with its chain: a PEM file. It enables TLS, and HTTP/2 for clients that support it. The
    /// server reloads a changed file.
    #[arg(long, env = "RIDEWIRE_TLS_CERTIFICATE", help_heading = ADDRESSES)]
    pub tls_certificate: Option<PathBuf>,
}

impl AddressSettings {
    /// The URL of the readiness probe of a server with these settings, as seen from this machine.
    pub fn readiness_url(&self) -> String {
        match (&self.admin_listen, &self.tls_certificate) {
            (Some(address), _) => format!("http://{address}/readyz"),
            (None, Some(_)) => format!("https://{}/readyz", self.listen),
            (None, None) => format!("http://{}/readyz", self.listen),
        }
    }
}

/// The settings of subcommands that verify or sign tokens.
#[derive(Debug, Clone, Args)]
pub struct KeySettings {
    /// The secret of HS256 tokens: at least 32 bytes. With a private Postgres the server creates one.
    #[arg(long, env = "RIDEWIRE_JWT_SECRET", help_heading = KEYS, hide_env_values = true)]
    pub jwt_secret: Option<String>,

    /// The public key of RS256, ES256 or `EdDSA` tokens: PEM, or the path of a PEM file.
    #[arg(long, env = "RIDEWIRE_JWT_PUBLIC_KEY", help_heading = KEYS)]
    pub jwt_public_key: Option<String>,

    /// The issuer's key set (JWKS): an `https://` URL, or the path of a file.
    #[arg(long, env = "RIDEWIRE_JWKS", help_heading = KEYS)]
    pub jwks: Option<String>,

    /// The required `iss` of a token.
    #[arg(long, env = "RIDEWIRE_JWT_ISSUER", help_heading = KEYS)]
    pub jwt_issuer: Option<String>,

    /// The required value in the `aud` of a token.
    #[arg(long, env = "RIDEWIRE_JWT_AUDIENCE", help_heading = KEYS)]
    pub jwt_audience: Option<String>,
}

/// The settings of subcommands that log.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// The log filter, such as `info` or `info,ridewire=debug`.
    #[arg(long, env = "RIDEWIRE_LOG", help_heading = LOGS, default_value = "info", value_parser = log_filter)]
    pub log: String,

    /// The format of log lines.
    #[arg(long, env = "RIDEWIRE_LOG_FORMAT", help_heading = LOGS, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// The limits of the server.
#[derive(Debug, Clone, Args)]
pub struct LimitSettings {
    /// The most client connections. Further connections wait to be accepted.
    #[arg(long, env = "RIDEWIRE_MAX_CONNECTIONS", help_heading = LIMITS, default_value_t = 100_000, value_parser = at_least_one)]
    pub max_connections: usize,

    /// The most open streams and polls.
    #[arg(long, env = "RIDEWIRE_MAX_STREAMS", help_heading = LIMITS, default_value_t = 100_000, value_parser = number::<usize>)]
    pub max_streams: usize,

    /// The most open streams and polls of one user.
    #[arg(long, env = "RIDEWIRE_STREAMS_PER_USER", help_heading = LIMITS, default_value_t = 1_000, value_parser = number::<usize>)]
    pub streams_per_user: usize,

    /// The most writes per second of one user on this replica, with bursts of five seconds' worth. All requests except `GET` and
    /// `HEAD` count; of the `service` role only messages. 0: unlimited.
    #[arg(long, env = "RIDEWIRE_SENDS_PER_SECOND", help_heading = LIMITS, default_value_t = 1_000, value_parser = number::<u32>)]
    pub sends_per_second: u32,

    /// The approximate memory of the server, such as 512MiB. Requests and responses in progress may use a quarter of it. Beyond
    /// that, the server disconnects clients that do not read, and rejects requests.
    #[arg(long, env = "RIDEWIRE_MEMORY", help_heading = LIMITS, default_value = "1GiB", value_parser = memory)]
    pub memory: usize,

    /// The most bytes of a request's head, at least 8192.
    #[arg(long, env = "RIDEWIRE_MAX_HEAD", help_heading = LIMITS, default_value_t = 32 * 1024,
        value_parser = head_bytes)]
    pub max_head: u64,

    /// How long a request's head may take to arrive, and how long a keep-alive connection may be idle.
    #[arg(long, env = "RIDEWIRE_HEAD_TIMEOUT", help_heading = LIMITS, default_value = "30s", value_parser = period)]
    pub head_timeout: Duration,

    /// How long a request's body may make no progress.
    #[arg(long, env = "RIDEWIRE_BODY_TIMEOUT", help_heading = LIMITS, default_value = "10s", value_parser = period)]
    pub body_timeout: Duration,

    /// How long a request's body may take in total.
    #[arg(long, env = "RIDEWIRE_BODY_DEADLINE", help_heading = LIMITS, default_value = "30s", value_parser = period)]
    pub body_deadline: Duration,

    /// How long a client may read no bytes of a response or stream while bytes are pending.
    #[arg(long, env = "RIDEWIRE_WRITE_TIMEOUT", help_heading = LIMITS, default_value = "30s", value_parser = period)]
    pub write_timeout: Duration,
}

/// The moderation hook.
#[derive(Debug, Clone, Args)]
pub struct ModerationSettings {
    /// The URL of the moderation hook, which gets each new or edited message before it is stored [default: none].
    #[arg(long, env = "RIDEWIRE_MODERATION_URL", help_heading = PLATFORM, hide_env_values = true)]
    pub moderation_url: Option<String>,

    /// The secret that signs requests to the hook: `whsec_` and base64, as in Standard Webhooks. Required with the URL.
    #[arg(long, env = "RIDEWIRE_MODERATION_SECRET", help_heading = PLATFORM, hide_env_values = true)]
    pub moderation_secret: Option<String>,

    /// The timeout of a moderation check.
    #[arg(long, env = "RIDEWIRE_MODERATION_TIMEOUT", help_heading = PLATFORM, default_value = "300ms", value_parser = duration)]
    pub moderation_timeout: Duration,

    /// The handling of a message whose check failed: store it (`allow`), or reject it with 503 (`reject`).
    #[arg(long, env = "RIDEWIRE_MODERATION_ON_FAILURE", help_heading = PLATFORM, value_enum, default_value = "allow")]
    pub moderation_on_failure: OnModerationFailure,
}
