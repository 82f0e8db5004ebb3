//! The hosts and addresses that a URL chosen by a user of the API may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::Uri;

/// The most characters of a URL.
const MAX_LENGTH: usize = 2_048;

/// The hosts for which `http` and addresses that are not public are allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct AllowedHosts {
    names: Vec<String>,
    /// One address and port, such as the demo's own webhook receiver.
    socket: Option<SocketAddr>,
}

impl AllowedHosts {
    /// Allows these host names and addresses, at any port.
    pub(crate) fn new(names: &[String]) -> Self {
        let names = names.iter().map(|name| normalize_host(name.trim())).filter(|name| !name.is_empty()).collect();
        Self { names, socket: None }
    }

    /// Also allows this address, at this port alone.
    pub(crate) fn with_socket(self, socket: Option<SocketAddr>) -> Self {
        Self { socket, ..self }
    }

    /// Whether a host is allowed at this port.
    pub(super) fn contains(&self, host: &str, port: u16) -> bool {
        let host = normalize_host(host);
        let is_socket = |allowed: SocketAddr| host.parse::<IpAddr>() == Ok(allowed.ip()) && port == allowed.port();
        self.names.contains(&host) || self.socket.is_some_and(is_socket)
    }

    /// Parses a URL, and applies all checks that do not need its host's addresses.
    pub(crate) fn check(&self, url: &str) -> Result<Uri, &'static str> {
        if url.len() > MAX_LENGTH {
            return Err("must have at most 2048 characters");
        }
        let uri: Uri = url.parse().map_err(|_| "must be an absolute https URL")?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("must be an absolute https URL");
        };
        if authority.as_str().contains('@') {
            return Err("must not have a user name or password");
        }
        if url.contains('#') {
            return Err("must not have a fragment");
        }
        // `port_u16` returns `None` for an invalid port as well, so compare with the text after the host.
        let after_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if authority.host().is_empty() || (!after_host.is_empty() && authority.port_u16().is_none_or(|port| port == 0))
        {
            return Err("must have a host, and a port from 1 to 65535 if any");
        }
        if self.contains(authority.host(), port_of(&uri)) {
            return if matches!(scheme, "https" | "http") { Ok(uri) } else { Err("must be an https or http URL") };
        }
        if scheme != "https" {
            return Err("must be an https URL");
        }
        let host = normalize_host(authority.host());
        let is_local = host == "localhost" || host.ends_with(".localhost");
        if is_local || host.parse().is_ok_and(|address| !is_public(address)) {
            return Err("must not lead to a private, loopback, link-local or otherwise special address");
        }
        Ok(uri)
    }
}

/// Returns the port of a URL: the explicit one, or that of the scheme.
pub(super) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

/// Returns a host in lower case, without the brackets of an IPv6 address and without the trailing dot of the DNS root.
pub(super) fn normalize_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether an address is public: not in the IANA registries of special-purpose addresses, and not a cloud's metadata service.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = match address.octets() {
        // "This network", private, loopback, multicast, reserved.
        [0 | 10 | 127 | 224..=255, ..]
        // Carrier-grade NAT (RFC 6598), which contains a cloud's metadata service; link-local, which contains most of these.
        | [100, 64..=127, ..]
        | [169, 254, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        // Protocol assignments, documentation, the 6to4 relay, benchmarks.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        // The metadata service of Azure.
        | [168, 63, 129, 16] => true,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    match address.segments() {
        // An IPv4 address through NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments (with Teredo), documentation, and 6to4, which may embed any IPv4 address.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast is 2000::/3. All other addresses are local, special or unassigned.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_addresses_are_not_public() {
        for public in
            ["8.8.8.8", "100.63.0.1", "172.32.0.1", "192.0.1.1", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        let special = [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "127.1.2.3",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.192",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "3fff::1",
        ];
        for special in special {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }

    #[test]
    fn only_valid_urls_of_allowed_hosts_pass() {
        let none = AllowedHosts::default();
        for good in
            ["https://example.com", "https://example.com:8443/a?b=c", "https://8.8.8.8/", "https://[2606:4700::1]/"]
        {
            assert!(none.check(good).is_ok(), "{good}");
        }
        let wrong = [
            "",
            "example.com",
            "/path",
            "http://example.com/",
            "ftp://example.com/",
            "https://",
            "https:///path",
            "https://user@example.com/",
            "https://user:password@example.com/",
            "https://example.com/#part",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://example.com:/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://exa mple.com/",
        ];
        for wrong in wrong {
            assert!(none.check(wrong).is_err(), "{wrong}");
        }
        assert!(none.check(&format!("https://example.com/{}", "x".repeat(MAX_LENGTH))).is_err());
        let some = AllowedHosts::new(&["Receiver.test".to_owned(), " 127.0.0.1".to_owned(), "[::1]".to_owned()]);
        for good in ["http://receiver.test/", "http://RECEIVER.test.:80/", "http://127.0.0.1:1/", "https://[::1]/"] {
            assert!(some.check(good).is_ok(), "{good}");
        }
        let one = AllowedHosts::new(&[]).with_socket(Some(SocketAddr::from(([127, 0, 0, 1], 8080))));
        assert!(one.check("http://127.0.0.1:8080/console/receiver").is_ok());
        for wrong in [
            "http://127.0.0.1/",
            "http://127.0.0.1:8081/",
            "https://127.0.0.1/",
            "http://127.0.0.2:8080/",
            "http://localhost:8080/",
        ] {
            assert!(one.check(wrong).is_err(), "{wrong}");
        }
        for wrong in ["http://127.0.0.2/", "http://other.receiver.test/", "http://example.com/", "ftp://receiver.test/"]
        {
            assert!(some.check(wrong).is_err(), "{wrong}");
        }
    }
}
