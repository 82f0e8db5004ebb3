//! The configuration: each setting is an environment variable and a flag.

mod push;
mod shown;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub use self::push::PushSettings;
pub(crate) use self::shown::shown;
pub(crate) use self::values::{at_least_one, duration, web_address};
use self::values::{head_bytes, log_filter, memory, number, period, ratio};

// What `--help` groups the settings under. A test finds a setting that has no heading.
const ADDRESSES: &str = "Addresses and TLS";
const DATABASE: &str = "Database";
const KEYS: &str = "Keys and tokens";
const STREAMS: &str = "Chats, streams and replicas";
const RETENTION: &str = "Retention";
const PLATFORM: &str = "Feed, webhooks and moderation";
const LIMITS: &str = "Limits";
const BROWSERS: &str = "Browsers";
const LOGS: &str = "Logs and traces";

/// Whether the other replicas are told of each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Notify {
    /// By LISTEN and NOTIFY.
    On,
    /// They find out by looking: for databases without LISTEN and NOTIFY.
    Off,
}

/// Whether statements are prepared on their connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PreparedStatements {
    /// They are, once for each connection.
    On,
    /// Each is sent whole: for poolers of transactions, such as `PgBouncer`.
    Off,
}

/// Whether there is a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Feed {
    /// There is.
    On,
    /// There is none, and nothing that builds on it.
    Off,
}

/// What becomes of a message that moderation could not check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnModerationFailure {
    /// It is stored.
    Allow,
    /// It is rejected with 503.
    Reject,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether the console is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Console {
    /// At `/`.
    On,
    /// It is not.
    Off,
}

/// All settings.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where the data is.
    #[command(flatten)]
    pub database: DatabaseSettings,

    /// How Postgres is reached, or started.
    #[command(flatten)]
    pub postgres: PostgresSettings,

    /// Where requests are answered.
    #[command(flatten)]
    pub addresses: AddressSettings,

    /// The certificate's private key: a PEM file.
    #[arg(long, env = "RIDEWIRE_TLS_KEY", help_heading = ADDRESSES)]
    pub tls_key: Option<PathBuf>,

    /// Which tokens are accepted.
    #[command(flatten)]
    pub keys: KeySettings,

    /// Whether the console, a page to try the interface with, is served at `/`, and the reference at `/docs`: where the
    /// operators' address is, if there is one, and the interface with them [default: off; on in a demo].
    #[arg(long, env = "RIDEWIRE_CONSOLE", help_heading = BROWSERS, value_enum)]
    pub console: Option<Console>,

    /// How often the issuer's set of keys is looked at.
    #[arg(long, env = "RIDEWIRE_JWKS_PERIOD", help_heading = KEYS, default_value = "5m", value_parser = period)]
    pub jwks_period: Duration,

    /// How long a chat stays open after its ride's end, where the ride has no policy of its own.
    #[arg(long, env = "RIDEWIRE_CHAT_GRACE", help_heading = STREAMS, default_value = "24h", value_parser = duration)]
    pub chat_grace: Duration,

    /// How long after their last connection somebody still shows online.
    #[arg(long, env = "RIDEWIRE_PRESENCE_GRACE", help_heading = STREAMS, default_value = "15s", value_parser = duration)]
    pub presence_grace: Duration,

    /// After how much silence a stream sends a comment, where its reader does not choose.
    #[arg(long, env = "RIDEWIRE_HEARTBEAT", help_heading = STREAMS, default_value = "15s", value_parser = period)]
    pub heartbeat: Duration,

    /// How often the log is looked at for what no hint has told.
    #[arg(long, env = "RIDEWIRE_FALLBACK_POLL", help_heading = STREAMS, default_value = "3s", value_parser = period)]
    pub fallback_poll: Duration,

    /// Whether replicas tell each other of commits by LISTEN and NOTIFY.
    #[arg(long, env = "RIDEWIRE_NOTIFY", help_heading = DATABASE, value_enum, default_value = "on")]
    pub notify: Notify,

    /// Whether statements are prepared; `off` for `DATABASE_URL` leading through a pooler of transactions.
    #[arg(long, env = "RIDEWIRE_PREPARED_STATEMENTS", help_heading = DATABASE, value_enum, default_value = "on")]
    pub prepared_statements: PreparedStatements,

    /// The most connections to Postgres, that of LISTEN not counted.
    #[arg(long, env = "RIDEWIRE_DATABASE_CONNECTIONS", help_heading = DATABASE, default_value_t = 8, value_parser = at_least_one)]
    pub database_connections: usize,

    /// How long a request may wait for Postgres before it is told to try again.
    #[arg(long, env = "RIDEWIRE_DATABASE_TIMEOUT", help_heading = DATABASE, default_value = "2s", value_parser = period)]
    pub database_timeout: Duration,

    /// How long open streams have to leave one by one when the server stops.
    #[arg(long, env = "RIDEWIRE_DRAIN_WINDOW", help_heading = STREAMS, default_value = "20s", value_parser = duration)]
    pub drain_window: Duration,

    /// How long logs are kept after their ride's end, and what users were told after that.
    #[arg(long, env = "RIDEWIRE_LOG_RETENTION", help_heading = RETENTION, default_value = "72h", value_parser = duration)]
    pub log_retention: Duration,

    /// How long messages are kept after their ride's end, and the ride with them.
    #[arg(long, env = "RIDEWIRE_MESSAGE_RETENTION", help_heading = RETENTION, default_value = "365d", value_parser = duration)]
    pub message_retention: Duration,

    /// Whether there is a feed of all events for the platform. It has what is committed while it is on.
    #[arg(long, env = "RIDEWIRE_FEED", help_heading = PLATFORM, value_enum, default_value = "on")]
    pub feed: Feed,

    /// How long the feed keeps events, from the time of each.
    #[arg(long, env = "RIDEWIRE_FEED_RETENTION", help_heading = PLATFORM, default_value = "72h", value_parser = duration)]
    pub feed_retention: Duration,

    /// How long a message may stay undelivered to a participant before `message:undelivered` is put on the feed; `0s`: never. Also
    /// reports messages from before it was set, as far as the feed retains them.
    #[arg(long, env = "RIDEWIRE_PUSH_AFTER", help_heading = PLATFORM, default_value = "5s", value_parser = duration)]
    pub push_after: Duration,

    /// Hosts, by name or address, that webhooks and Web Push may reach over `http` and at private addresses, with commas between
    /// them [default: none].
    #[arg(long, env = "RIDEWIRE_WEBHOOK_ALLOW_HOSTS", help_heading = PLATFORM, value_delimiter = ',')]
    pub webhook_allow_hosts: Vec<String>,

    /// How long to wait after each failed attempt to deliver an event to a webhook, with commas between them; about so long. The last
    /// one is used again and again.
    #[arg(long, env = "RIDEWIRE_WEBHOOK_RETRIES", help_heading = PLATFORM, default_value = "5s,5m,30m,2h,5h,10h,12h",
        value_delimiter = ',', value_parser = period)]
    pub webhook_retries: Vec<Duration>,

    /// How long after its first attempt an event is given up; and how long a webhook may fail before it is disabled.
    #[arg(long, env = "RIDEWIRE_WEBHOOK_GIVE_UP", help_heading = PLATFORM, default_value = "72h", value_parser = period)]
    pub webhook_give_up: Duration,

    /// The sender of Web Push.
    #[command(flatten)]
    pub push: PushSettings,

    /// How long it is kept when messages were handed to connections, for the trace of a message; `0s`: it is not recorded.
    #[arg(long, env = "RIDEWIRE_MESSAGE_TRACE_RETENTION", help_heading = RETENTION, default_value = "72h", value_parser = duration)]
    pub message_trace_retention: Duration,

    /// How long the audit log keeps what support and service users have viewed and done.
    #[arg(long, env = "RIDEWIRE_AUDIT_RETENTION", help_heading = RETENTION, default_value = "90d", value_parser = duration)]
    pub audit_retention: Duration,

    /// How often it is looked for what retention no longer keeps.
    #[arg(long, env = "RIDEWIRE_RETENTION_PERIOD", help_heading = RETENTION, default_value = "1m", value_parser = period)]
    pub retention_period: Duration,

    /// How much may be asked of the server.
    #[command(flatten)]
    pub limits: LimitSettings,

    /// Who is asked before a message is stored.
    #[command(flatten)]
    pub moderation: ModerationSettings,

    /// Sites whose scripts may use the interface, such as `https://app.example.com`, with commas between them; `*` for all
    /// [default: none].
    #[arg(long, env = "RIDEWIRE_CORS_ORIGINS", help_heading = BROWSERS, value_delimiter = ',')]
    pub cors_origins: Vec<String>,

    /// The address that clients use, such as `https://chat.example.com`: the URLs of error pages begin with it [default: the
    /// request's own scheme and host].
    #[arg(long, env = "RIDEWIRE_PUBLIC_URL", help_heading = ADDRESSES, value_parser = web_address)]
    pub public_url: Option<String>,

    /// A collector of traces that speaks OTLP over HTTP, such as `http://collector:4318`.
    #[arg(long, env = "RIDEWIRE_OTLP_ENDPOINT", help_heading = LOGS)]
    pub otlp_endpoint: Option<String>,

    /// What part of the requests is traced, from 0 to 1, besides those whose `traceparent` says so.
    #[arg(long, env = "RIDEWIRE_TRACE_RATIO", help_heading = LOGS, default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,

    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogSettings,
}

/// Where the data is: what a subcommand needs that uses the database, or the secret in the data directory.
#[derive(Debug, Clone, Args)]
pub struct DatabaseSettings {
    /// Where Postgres is. Without one, a private Postgres is started in the data directory and stopped with the
    /// server.
    #[arg(long, env = "DATABASE_URL", help_heading = DATABASE, hide_env_values = true)]
    pub database_url: Option<String>,

    /// Where the private Postgres and the development secret are kept [default: .ridewire; as root
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

/// How Postgres is reached, or started: what a subcommand needs besides that migrates.
#[derive(Debug, Clone, Args)]
pub struct PostgresSettings {
    /// A direct connection for LISTEN, where `DATABASE_URL` leads through a pooler.
    #[arg(long, env = "RIDEWIRE_LISTEN_DATABASE_URL", help_heading = DATABASE, hide_env_values = true)]
    pub listen_database_url: Option<String>,

    /// The directory of the PostgreSQL programs for the private Postgres [default: the newest version found].
    #[arg(long, env = "RIDEWIRE_PG_BIN", help_heading = DATABASE)]
    pub pg_bin: Option<PathBuf>,
}

/// Where requests are answered: what a subcommand needs that serves, or asks a server.
#[derive(Debug, Clone, Args)]
pub struct AddressSettings {
    /// The address to serve.
    #[arg(long, env = "RIDEWIRE_LISTEN", help_heading = ADDRESSES, default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// An address for operators alone: `/metrics` is served there, and no longer where everything else is.
    #[arg(long, env = "RIDEWIRE_ADMIN_LISTEN", help_heading = ADDRESSES)]
    pub admin_listen: Option<String>,

    /// The certificate of the server, with its chain: a PEM file. With it, TLS is spoken, HTTP/2 where the client can; it is
    /// read again when it changes.
    #[arg(long, env = "RIDEWIRE_TLS_CERTIFICATE", help_heading = ADDRESSES)]
    pub tls_certificate: Option<PathBuf>,
}

impl AddressSettings {
    /// Where a server of these settings says whether it is ready, for this machine.
    pub fn readiness_url(&self) -> String {
        match (&self.admin_listen, &self.tls_certificate) {
            (Some(address), _) => format!("http://{address}/readyz"),
            (None, Some(_)) => format!("https://{}/readyz", self.listen),
            (None, None) => format!("http://{}/readyz", self.listen),
        }
    }
}

/// Which tokens are accepted: what a subcommand needs that verifies or signs them.
#[derive(Debug, Clone, Args)]
pub struct KeySettings {
    /// The secret of HS256 tokens: at least 32 bytes. With the private Postgres one is made.
    #[arg(long, env = "RIDEWIRE_JWT_SECRET", help_heading = KEYS, hide_env_values = true)]
    pub jwt_secret: Option<String>,

    /// A public key of RS256, ES256 or `EdDSA` tokens: PEM, or a file that holds it.
    #[arg(long, env = "RIDEWIRE_JWT_PUBLIC_KEY", help_heading = KEYS)]
    pub jwt_public_key: Option<String>,

    /// The issuer's set of keys (JWKS): an `https://` address, or a file.
    #[arg(long, env = "RIDEWIRE_JWKS", help_heading = KEYS)]
    pub jwks: Option<String>,

    /// What a token's `iss` must be.
    #[arg(long, env = "RIDEWIRE_JWT_ISSUER", help_heading = KEYS)]
    pub jwt_issuer: Option<String>,

    /// What a token's `aud` must contain.
    #[arg(long, env = "RIDEWIRE_JWT_AUDIENCE", help_heading = KEYS)]
    pub jwt_audience: Option<String>,
}

/// What is logged, and how: what a subcommand needs that logs.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// What is logged: a filter such as `info` or `ridewire=debug`.
    #[arg(long, env = "RIDEWIRE_LOG", help_heading = LOGS, default_value = "info", value_parser = log_filter)]
    pub log: String,

    /// How log lines look.
    #[arg(long, env = "RIDEWIRE_LOG_FORMAT", help_heading = LOGS, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// How much may be asked of the server.
#[derive(Debug, Clone, Args)]
pub struct LimitSettings {
    /// The most connections; more wait to be accepted.
    #[arg(long, env = "RIDEWIRE_MAX_CONNECTIONS", help_heading = LIMITS, default_value_t = 100_000, value_parser = at_least_one)]
    pub max_connections: usize,

    /// The most streams and polls.
    #[arg(long, env = "RIDEWIRE_MAX_STREAMS", help_heading = LIMITS, default_value_t = 100_000, value_parser = number::<usize>)]
    pub max_streams: usize,

    /// The most streams and polls of one user.
    #[arg(long, env = "RIDEWIRE_STREAMS_PER_USER", help_heading = LIMITS, default_value_t = 1_000, value_parser = number::<usize>)]
    pub streams_per_user: usize,

    /// The most writes a second of one user on this replica, five seconds' worth at once: every request but `GET` and `HEAD`;
    /// of the service, messages alone. 0: any number.
    #[arg(long, env = "RIDEWIRE_SENDS_PER_SECOND", help_heading = LIMITS, default_value_t = 1_000, value_parser = number::<u32>)]
    pub sends_per_second: u32,

    /// About how much memory the server may use, such as 512MiB. A quarter of it may be held by requests and responses that are
    /// on their way; beyond that, clients that do not read are cut off, and requests rejected.
    #[arg(long, env = "RIDEWIRE_MEMORY", help_heading = LIMITS, default_value = "1GiB", value_parser = memory)]
    pub memory: usize,

    /// The most bytes of a request's head, 8192 at least.
    #[arg(long, env = "RIDEWIRE_MAX_HEAD", help_heading = LIMITS, default_value_t = 32 * 1024,
        value_parser = head_bytes)]
    pub max_head: u64,

    /// How long a request's head may take to arrive; and how long a kept connection may be idle.
    #[arg(long, env = "RIDEWIRE_HEAD_TIMEOUT", help_heading = LIMITS, default_value = "30s", value_parser = period)]
    pub head_timeout: Duration,

    /// How long a request's body may be silent.
    #[arg(long, env = "RIDEWIRE_BODY_TIMEOUT", help_heading = LIMITS, default_value = "10s", value_parser = period)]
    pub body_timeout: Duration,

    /// How long a request's body may take in all.
    #[arg(long, env = "RIDEWIRE_BODY_DEADLINE", help_heading = LIMITS, default_value = "30s", value_parser = period)]
    pub body_deadline: Duration,

    /// How long a client may take no bytes of an answer or stream that is there for it.
    #[arg(long, env = "RIDEWIRE_WRITE_TIMEOUT", help_heading = LIMITS, default_value = "30s", value_parser = period)]
    pub write_timeout: Duration,
}

/// Who is asked before a message is stored.
#[derive(Debug, Clone, Args)]
pub struct ModerationSettings {
    /// The platform's moderation, which each new or edited message is sent to before it is stored [default: none].
    #[arg(long, env = "RIDEWIRE_MODERATION_URL", help_heading = PLATFORM, hide_env_values = true)]
    pub moderation_url: Option<String>,

    /// What requests to moderation are signed with: `whsec_` and base64, as in Standard Webhooks. Required with the URL.
    #[arg(long, env = "RIDEWIRE_MODERATION_SECRET", help_heading = PLATFORM, hide_env_values = true)]
    pub moderation_secret: Option<String>,

    /// How long a check by moderation may take.
    #[arg(long, env = "RIDEWIRE_MODERATION_TIMEOUT", help_heading = PLATFORM, default_value = "300ms", value_parser = duration)]
    pub moderation_timeout: Duration,

    /// What becomes of a message that moderation could not check: it is stored, or rejected with 503.
    #[arg(long, env = "RIDEWIRE_MODERATION_ON_FAILURE", help_heading = PLATFORM, value_enum, default_value = "allow")]
    pub moderation_on_failure: OnModerationFailure,
}
