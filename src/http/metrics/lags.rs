//! Gauges of lag, age and expiry. Each scrape sets them.
//!
//! A server without the measured thing (an issuer's keys, a certificate, a feed) exports no sample for it.

use prometheus::{Gauge, GaugeVec, Opts, Registry};

use super::ScrapedValues;
use crate::store::Retention;

/// The gauges.
#[derive(Debug)]
pub(super) struct Lags {
    jwks: GaugeVec,
    certificate: GaugeVec,
    relay: GaugeVec,
    retention: GaugeVec,
    outbox: GaugeVec,
}

impl Lags {
    /// Adds the gauges to a registry.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        Ok(Self {
            jwks: gauges(
                "ridewire_jwks_age_seconds",
                "Time since the issuer's key set (JWKS) was last read successfully, or since the start if it never was, in seconds.",
                &[],
            )?,
            certificate: gauges(
                "ridewire_tls_certificate_expiry_timestamp_seconds",
                "Expiry of the server's certificate, or of the first to expire in its chain, in Unix seconds.",
                &[],
            )?,
            relay: gauges(
                "ridewire_feed_relay_lag_seconds",
                "Age of the oldest committed event that has no position in the feed yet, in seconds.",
                &[],
            )?,
            retention: gauges(
                "ridewire_retention_lag_seconds",
                "How long the oldest expired data is overdue for deletion, by kind of data, in seconds.",
                &["data"],
            )?,
            outbox: gauges(
                "ridewire_outbox_lag_seconds",
                "Age of the oldest update that has not reached its shard, in seconds.",
                &[],
            )?,
        })
    }

    /// Sets the gauges.
    pub(super) fn update(&self, values: &ScrapedValues) {
        let only = |gauges: &GaugeVec| -> Gauge { gauges.with_label_values::<&str>(&[]) };
        if let Some(age) = values.jwks_age {
            only(&self.jwks).set(age.as_secs_f64());
        }
        if let Some(expiry) = values.certificate_expiry {
            only(&self.certificate).set(expiry as f64);
        }
        if let Some(lag) = values.relay_lag {
            only(&self.relay).set(lag);
        }
        only(&self.outbox).set(values.shards.outbox_lag);
        if let Some(lags) = values.shards.retention_lags {
            for (data, lag) in Retention::KINDS.into_iter().zip(lags) {
                self.retention.with_label_values(&[data]).set(lag);
            }
        }
    }
}
