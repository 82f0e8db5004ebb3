//! How far behind things are, and how old what must not become old. They are read when Prometheus asks for them.
//!
//! What this server does not have (an issuer's keys, a certificate, a feed) has no sample.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Histogram, Opts, Registry};
use tokio::time::timeout;

use crate::http::context::Api;
use crate::store::Retention;

/// How long Postgres may take to answer: a scrape does not wait as long as a request may.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What is watched besides the [`Api`].
pub struct Watched {
    /// How long a connection was waited for.
    pub pool_wait: Histogram,
    /// How long things are kept.
    pub retention: Retention,
    /// When the certificate expires, in seconds of the Unix clock, where there is one.
    pub certificate_expiry: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("retention", &self.retention).finish_non_exhaustive()
    }
}

/// The gauges.
#[derive(Debug)]
pub(super) struct Lags {
    jwks: GaugeVec,
    certificate: GaugeVec,
    relay: GaugeVec,
    retention: GaugeVec,
    watched: OnceLock<Watched>,
}

impl Lags {
    /// Adds them to a registry.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        Ok(Self {
            jwks: gauges("ridewire_jwks_age_seconds", "Time since the issuer's set of keys was last read.", &[])?,
            certificate: gauges(
                "ridewire_tls_certificate_expiry_timestamp_seconds",
                "When the certificate, or one of its chain, expires, since unix epoch in seconds.",
                &[],
            )?,
            relay: gauges(
                "ridewire_feed_relay_lag_seconds",
                "Age of the oldest committed event that has no position in the feed yet.",
                &[],
            )?,
            retention: gauges(
                "ridewire_retention_lag_seconds",
                "How long the oldest data is overdue that retention is to delete, by kind.",
                &["data"],
            )?,
            watched: OnceLock::new(),
        })
    }

    /// Watches this from now on.
    pub(super) fn watch(&self, watched: Watched) {
        // Once, at the start.
        drop(self.watched.set(watched));
    }

    /// Reads all of them; where Postgres does not answer, what it knows is not a number.
    pub(super) async fn read(&self, api: &Api, has_database: bool) {
        let only = |gauges: &GaugeVec| -> Gauge { gauges.with_label_values::<&str>(&[]) };
        if let Some(jwks) = &api.jwks {
            only(&self.jwks).set(jwks.age().as_secs_f64());
        }
        let Some(watched) = self.watched.get() else { return };
        if let Some(expiry) = (watched.certificate_expiry)() {
            only(&self.certificate).set(expiry as f64);
        }
        if api.relay.is_some() {
            let lag = async { timeout(TIMEOUT, api.store.relay_lag()).await.ok()?.ok() };
            let lag = if has_database { lag.await } else { None };
            only(&self.relay).set(seconds(lag));
        }
        let lags = async { timeout(TIMEOUT, api.store.retention_lag(watched.retention)).await.ok()?.ok() };
        let lags = if has_database { lags.await } else { None };
        for (place, data) in Retention::KINDS.into_iter().enumerate() {
            let lag = lags.and_then(|lags| lags.get(place).copied());
            self.retention.with_label_values(&[data]).set(seconds(lag));
        }
    }
}

fn seconds(duration: Option<Duration>) -> f64 {
    duration.map_or(f64::NAN, |duration| duration.as_secs_f64())
}
