//! Checks the server's certificate: its key, its validity and its names.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Uri;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::{CheckOptions, Level, Report};
use crate::app::validated;
use crate::config::Settings;

/// The remaining validity below which a certificate should be renewed.
const RENEWAL_WINDOW: Duration = Duration::from_secs(14 * 24 * 60 * 60);

const CHECK: &str = "certificate";

/// Loads the certificate with the server's code, and checks its contents.
pub(super) fn check(settings: &Settings, options: &CheckOptions, report: &mut Report) {
    let certificate = match validated::certificate(settings) {
        Ok(Some(certificate)) => certificate,
        Ok(None) => return report.ok(CHECK, "none; clients use TLS only if a load balancer terminates it"),
        Err(error) => return report.error(CHECK, error),
    };
    let Some(Ok(info)) = certificate.own().map(|der| CertificateInfo::parse(&der)) else {
        return report.error(CHECK, "RIDEWIRE_TLS_CERTIFICATE: not a valid X.509 certificate; reissue it");
    };
    let hosts = [options.url.as_deref(), settings.public_url.as_deref()];
    let hosts = hosts.into_iter().flatten().filter(|url| url.starts_with("https://")).filter_map(host);
    let (level, text) = info.finding(SystemTime::now(), hosts);
    report.add(level, CHECK, text);
}

fn host(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase())
}

/// The checked parts of a certificate.
struct CertificateInfo {
    not_before: SystemTime,
    not_after: SystemTime,
    names: Vec<String>,
}

impl CertificateInfo {
    fn parse(certificate: &[u8]) -> Result<Self, x509_cert::der::Error> {
        let certificate = Certificate::from_der(certificate)?.tbs_certificate;
        let names = certificate.get::<SubjectAltName>()?.map(|(_, names)| names.0).unwrap_or_default();
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
            GeneralName::IpAddress(address) => address_of(address.as_bytes()).map(|address| address.to_string()),
            _ => None,
        });
        let validity = certificate.validity;
        Ok(Self {
            not_before: UNIX_EPOCH + validity.not_before.to_unix_duration(),
            not_after: UNIX_EPOCH + validity.not_after.to_unix_duration(),
            names: names.collect(),
        })
    }

    fn finding(&self, now: SystemTime, mut hosts: impl Iterator<Item = String>) -> (Level, String) {
        let day = |at: SystemTime| {
            let text = humantime::format_rfc3339_seconds(at).to_string();
            text.split('T').next().unwrap_or_default().to_owned()
        };
        let missing = hosts.find(|host| !self.names.iter().any(|name| matches(name, host)));
        if self.not_after <= now {
            (Level::Error, format!("it expired on {}; renew it", day(self.not_after)))
        } else if self.not_before > now {
            (Level::Error, format!("it is not valid before {}; check the clock, or reissue it", day(self.not_before)))
        } else if let Some(host) = missing {
            let names = self.names.join(", ");
            let unless = "unless a load balancer terminates TLS";
            (Level::Warning, format!("clients use {host}, but it is for {names}; reissue it for {host}, {unless}"))
        } else if self.not_after < now + RENEWAL_WINDOW {
            (Level::Warning, format!("it expires on {}; renew it: the server reloads the files", day(self.not_after)))
        } else {
            (Level::Ok, format!("valid until {} for {}", day(self.not_after), self.names.join(", ")))
        }
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Whether a certificate's name matches a host (RFC 6125, section 6.4.3): `*` matches the first label.
fn matches(name: &str, host: &str) -> bool {
    let rest = name.strip_prefix("*.").zip(host.split_once('.'));
    name == host || rest.is_some_and(|(name, (_, host))| name == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_the_host_or_as_a_wildcard_of_its_domain() {
        assert!(matches("chat.example.com", "chat.example.com") && matches("*.example.com", "chat.example.com"));
        assert!(!matches("*.example.com", "example.com") && !matches("*.example.com", "a.chat.example.com"));
        assert_eq!(host("https://Chat.example.com:8443/x").as_deref(), Some("chat.example.com"));
        assert_eq!(host("https://[::1]/").as_deref(), Some("::1"));
    }
}
