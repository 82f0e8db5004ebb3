//! The configuration: each setting is an environment variable and a flag.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

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
    /// Where Postgres is. Without one, a private Postgres is started in the data directory and stopped with the
    /// server.
    #[arg(long, env = "DATABASE_URL", global = true, hide_env_values = true)]
    pub database_url: Option<String>,

    /// A direct connection for LISTEN, where `DATABASE_URL` leads through a pooler.
    #[arg(long, env = "RIDEWIRE_LISTEN_DATABASE_URL", global = true, hide_env_values = true)]
    pub listen_database_url: Option<String>,

    /// Where the private Postgres and the development secret are kept [default: .ridewire; as root
    /// /var/lib/ridewire].
    #[arg(long, env = "RIDEWIRE_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// The address to serve.
    #[arg(long, env = "RIDEWIRE_LISTEN", global = true, default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// An address for operators alone: `/metrics` is served there, and no longer where everything else is.
    #[arg(long, env = "RIDEWIRE_ADMIN_LISTEN", global = true)]
    pub admin_listen: Option<String>,

    /// Whether the console, a page to try the interface with, is served at `/`, and the reference at `/docs`: where the
    /// operators' address is, if there is one, and the interface with them [default: off; on in a demo].
    #[arg(long, env = "RIDEWIRE_CONSOLE", global = true, value_enum)]
    pub console: Option<Console>,

    /// The certificate of the server, with its chain: a PEM file. With it, TLS is spoken, HTTP/2 where the client can; it is
    /// read again when it changes.
    #[arg(long, env = "RIDEWIRE_TLS_CERTIFICATE", global = true)]
    pub tls_certificate: Option<PathBuf>,

    /// The certificate's private key: a PEM file.
    #[arg(long, env = "RIDEWIRE_TLS_KEY", global = true)]
    pub tls_key: Option<PathBuf>,

    /// The secret of HS256 tokens: at least 32 bytes. With the private Postgres one is made.
    #[arg(long, env = "RIDEWIRE_JWT_SECRET", global = true, hide_env_values = true)]
    pub jwt_secret: Option<String>,

    /// A public key of RS256, ES256 or `EdDSA` tokens: PEM, or a file that holds it.
    #[arg(long, env = "RIDEWIRE_JWT_PUBLIC_KEY", global = true)]
    pub jwt_public_key: Option<String>,

    /// The issuer's set of keys (JWKS): an `https://` address, or a file.
    #[arg(long, env = "RIDEWIRE_JWKS", global = true)]
    pub jwks: Option<String>,

    /// How often the issuer's set of keys is looked at.
    #[arg(long, env = "RIDEWIRE_JWKS_PERIOD", global = true, default_value = "5m", value_parser = duration)]
    pub jwks_period: Duration,

    /// What a token's `iss` must be.
    #[arg(long, env = "RIDEWIRE_JWT_ISSUER", global = true)]
    pub jwt_issuer: Option<String>,

    /// What a token's `aud` must contain.
    #[arg(long, env = "RIDEWIRE_JWT_AUDIENCE", global = true)]
    pub jwt_audience: Option<String>,

    /// How long a chat stays open after its ride's end, where the ride has no policy of its own.
    #[arg(long, env = "RIDEWIRE_CHAT_GRACE", global = true, default_value = "24h", value_parser = duration)]
    pub chat_grace: Duration,

    /// How long after their last connection somebody still shows online.
    #[arg(long, env = "RIDEWIRE_PRESENCE_GRACE", global = true, default_value = "15s", value_parser = duration)]
    pub presence_grace: Duration,

    /// After how much silence a stream sends a comment, where its reader does not choose.
    #[arg(long, env = "RIDEWIRE_HEARTBEAT", global = true, default_value = "15s", value_parser = duration)]
    pub heartbeat: Duration,

    /// How often the log is looked at for what no hint has told.
    #[arg(long, env = "RIDEWIRE_FALLBACK_POLL", global = true, default_value = "3s", value_parser = duration)]
    pub fallback_poll: Duration,

    /// Whether replicas tell each other of commits by LISTEN and NOTIFY.
    #[arg(long, env = "RIDEWIRE_NOTIFY", global = true, value_enum, default_value = "on")]
    pub notify: Notify,

    /// Whether statements are prepared; `off` for `DATABASE_URL` leading through a pooler of transactions.
    #[arg(long, env = "RIDEWIRE_PREPARED_STATEMENTS", global = true, value_enum, default_value = "on")]
    pub prepared_statements: PreparedStatements,

    /// The most connections to Postgres, that of LISTEN not counted.
    #[arg(long, env = "RIDEWIRE_DATABASE_CONNECTIONS", global = true, default_value_t = 8)]
    pub database_connections: usize,

    /// How long a request may wait for Postgres before it is told to try again.
    #[arg(long, env = "RIDEWIRE_DATABASE_TIMEOUT", global = true, default_value = "2s", value_parser = duration)]
    pub database_timeout: Duration,

    /// How long open streams have to leave one by one when the server stops.
    #[arg(long, env = "RIDEWIRE_DRAIN_WINDOW", global = true, default_value = "20s", value_parser = duration)]
    pub drain_window: Duration,

    /// How long logs are kept after their ride's end, and what users were told after that.
    #[arg(long, env = "RIDEWIRE_LOG_RETENTION", global = true, default_value = "72h", value_parser = duration)]
    pub log_retention: Duration,

    /// How long messages are kept after their ride's end, and the ride with them.
    #[arg(long, env = "RIDEWIRE_MESSAGE_RETENTION", global = true, default_value = "365d", value_parser = duration)]
    pub message_retention: Duration,

    /// Whether there is a feed of all events for the platform. It has what is committed while it is on.
    #[arg(long, env = "RIDEWIRE_FEED", global = true, value_enum, default_value = "on")]
    pub feed: Feed,

    /// How long the feed keeps events, from the time of each.
    #[arg(long, env = "RIDEWIRE_FEED_RETENTION", global = true, default_value = "72h", value_parser = duration)]
    pub feed_retention: Duration,

    /// How long a message may stay undelivered to a participant before `message:undelivered` is put on the feed; `0s`: never. Also
    /// reports messages from before it was set, as far as the feed retains them.
    #[arg(long, env = "RIDEWIRE_PUSH_AFTER", global = true, default_value = "5s", value_parser = duration)]
    pub push_after: Duration,

    /// Hosts, by name or address, that webhooks may reach over `http` and at private addresses, with commas between them
    /// [default: none].
    #[arg(long, env = "RIDEWIRE_WEBHOOK_ALLOW_HOSTS", global = true, value_delimiter = ',')]
    pub webhook_allow_hosts: Vec<String>,

    /// How long to wait after each failed attempt to deliver an event to a webhook, with commas between them; about so long. The last
    /// one is used again and again.
    #[arg(long, env = "RIDEWIRE_WEBHOOK_RETRIES", global = true, default_value = "5s,5m,30m,2h,5h,10h,12h",
        value_delimiter = ',', value_parser = duration)]
    pub webhook_retries: Vec<Duration>,

    /// How long after its first attempt an event is given up; and how long a webhook may fail before it is disabled.
    #[arg(long, env = "RIDEWIRE_WEBHOOK_GIVE_UP", global = true, default_value = "72h", value_parser = duration)]
    pub webhook_give_up: Duration,

    /// How long it is kept when messages were handed to connections, for the trace of a message; `0s`: it is not recorded.
    #[arg(long, env = "RIDEWIRE_MESSAGE_TRACE_RETENTION", global = true, default_value = "72h", value_parser = duration)]
    pub message_trace_retention: Duration,

    /// How long the audit log keeps what support and service users have viewed and done.
    #[arg(long, env = "RIDEWIRE_AUDIT_RETENTION", global = true, default_value = "90d", value_parser = duration)]
    pub audit_retention: Duration,

    /// How often it is looked for what retention no longer keeps.
    #[arg(long, env = "RIDEWIRE_RETENTION_PERIOD", global = true, default_value = "1m", value_parser = duration)]
    pub retention_period: Duration,

    /// How much may be asked of the server.
    #[command(flatten)]
    pub limits: LimitSettings,

    /// Who is asked before a message is stored.
    #[command(flatten)]
    pub moderation: ModerationSettings,

    /// Sites whose scripts may use the interface, such as `https://app.example.com`, with commas between them; `*` for all
    /// [default: none].
    #[arg(long, env = "RIDEWIRE_CORS_ORIGINS", global = true, value_delimiter = ',')]
    pub cors_origins: Vec<String>,

    /// The address that clients use, such as `https://chat.example.com`: the URLs of error pages begin with it [default: the
    /// request's own scheme and host].
    #[arg(long, env = "RIDEWIRE_PUBLIC_URL", global = true, value_parser = web_address)]
    pub public_url: Option<String>,

    /// A collector of traces that speaks OTLP over HTTP, such as `http://collector:4318`.
    #[arg(long, env = "RIDEWIRE_OTLP_ENDPOINT", global = true)]
    pub otlp_endpoint: Option<String>,

    /// What part of the requests is traced, from 0 to 1, besides those whose `traceparent` says so.
    #[arg(long, env = "RIDEWIRE_TRACE_RATIO", global = true, default_value_t = 1.0)]
    pub trace_ratio: f64,

    /// What is logged: a filter such as `info` or `ridewire=debug`.
    #[arg(long, env = "RIDEWIRE_LOG", global = true, default_value = "info")]
    pub log: String,

    /// How log lines look.
    #[arg(long, env = "RIDEWIRE_LOG_FORMAT", global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// How much may be asked of the server.
#[derive(Debug, Clone, Args)]
pub struct LimitSettings {
    /// The most connections; more wait to be accepted.
    #[arg(long, env = "RIDEWIRE_MAX_CONNECTIONS", global = true, default_value_t = 100_000)]
    pub max_connections: usize,

    /// The most streams and polls.
    #[arg(long, env = "RIDEWIRE_MAX_STREAMS", global = true, default_value_t = 100_000)]
    pub max_streams: usize,

    /// The most streams and polls of one user.
    #[arg(long, env = "RIDEWIRE_STREAMS_PER_USER", global = true, default_value_t = 1_000)]
    pub streams_per_user: usize,

    /// The most writes a second of one user on this replica, five seconds' worth at once: every request but `GET` and `HEAD`;
    /// of the service, messages alone. 0: any number.
    #[arg(long, env = "RIDEWIRE_SENDS_PER_SECOND", global = true, default_value_t = 1_000)]
    pub sends_per_second: u32,

    /// About how much memory the server may use, such as 512MiB. A quarter of it may be held by requests and responses that are
    /// on their way; beyond that, clients that do not read are cut off, and requests rejected.
    #[arg(long, env = "RIDEWIRE_MEMORY", global = true, default_value = "1GiB", value_parser = memory)]
    pub memory: usize,

    /// The most bytes of a request's head, 8192 at least.
    #[arg(long, env = "RIDEWIRE_MAX_HEAD", global = true, default_value_t = 32 * 1024,
        value_parser = clap::value_parser!(u64).range(8_192..=1_048_576))]
    pub max_head: u64,

    /// How long a request's head may take to arrive; and how long a kept connection may be idle.
    #[arg(long, env = "RIDEWIRE_HEAD_TIMEOUT", global = true, default_value = "30s", value_parser = duration)]
    pub head_timeout: Duration,

    /// How long a request's body may be silent.
    #[arg(long, env = "RIDEWIRE_BODY_TIMEOUT", global = true, default_value = "10s", value_parser = duration)]
    pub body_timeout: Duration,

    /// How long a request's body may take in all.
    #[arg(long, env = "RIDEWIRE_BODY_DEADLINE", global = true, default_value = "30s", value_parser = duration)]
    pub body_deadline: Duration,

    /// How long a client may take no bytes of an answer or stream that is there for it.
    #[arg(long, env = "RIDEWIRE_WRITE_TIMEOUT", global = true, default_value = "30s", value_parser = duration)]
    pub write_timeout: Duration,
}

/// The least memory: a quarter of it is a few responses.
const LEAST_MEMORY: usize = 16 << 20;

/// An amount of memory: bytes, or with a unit of 1,024 to the power of 1, 2 or 3.
fn memory(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => Some(0),
        "K" | "KiB" => Some(10),
        "M" | "MiB" => Some(20),
        "G" | "GiB" => Some(30),
        _ => None,
    };
    let bytes = shift.zip(digits.trim().parse::<usize>().ok()).and_then(|(shift, count)| count.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes >= LEAST_MEMORY).ok_or_else(|| "write it as 512MiB or 2GiB; 16MiB at least".to_owned())
}

fn web_address(text: &str) -> Result<String, String> {
    let rest = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let is_plain = |rest: &str| {
        !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'@'))
    };
    match rest {
        Some(rest) if is_plain(rest) => Ok(text.to_owned()),
        _ => Err("write it as https://chat.example.com, without a query".to_owned()),
    }
}

/// Who is asked before a message is stored.
#[derive(Debug, Clone, Args)]
pub struct ModerationSettings {
    /// The platform's moderation, which each new or edited message is sent to before it is stored [default: none].
    #[arg(long, env = "RIDEWIRE_MODERATION_URL", global = true, hide_env_values = true)]
    pub moderation_url: Option<String>,

    /// What requests to moderation are signed with: `whsec_` and base64, as in Standard Webhooks. Required with the URL.
    #[arg(long, env = "RIDEWIRE_MODERATION_SECRET", global = true, hide_env_values = true)]
    pub moderation_secret: Option<String>,

    /// How long a check by moderation may take.
    #[arg(long, env = "RIDEWIRE_MODERATION_TIMEOUT", global = true, default_value = "300ms", value_parser = duration)]
    pub moderation_timeout: Duration,

    /// What becomes of a message that moderation could not check: it is stored, or rejected with 503.
    #[arg(long, env = "RIDEWIRE_MODERATION_ON_FAILURE", global = true, value_enum, default_value = "allow")]
    pub moderation_on_failure: OnModerationFailure,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 15s, 3m or 24h"))
}

impl Settings {
    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(crate::embedded::default_data_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bytes_or_has_a_unit() {
        assert_eq!(["16777216", "16MiB", "16384K", "1G"].map(|text| memory(text).unwrap() >> 20), [16, 16, 16, 1_024]);
        for wrong in ["", "MiB", "1", "15MiB", "1TB", "-1G", "1.5G", "99999999999999G"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }
}
