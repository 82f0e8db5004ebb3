//! Splits an address with several hosts into one address for each host.
//!
//! `tokio_postgres` tries several hosts one after the other: each may use its whole connect timeout, and one that
//! accepts the connection and then stays silent is never given up.

use std::net::IpAddr;

use tokio::net::lookup_host;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::AddressError;

/// The port of Postgres, unless the address sets one.
pub(super) const DEFAULT_PORT: u16 = 5432;

/// Returns one configuration for each host, in their order.
pub(super) fn split(config: &Config) -> Result<Vec<Config>, AddressError> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    if hosts.is_empty() {
        return Err(AddressError::Setting("host is missing: the server's name, or the directory of its socket"));
    }
    if !addresses.is_empty() && addresses.len() != hosts.len() {
        return Err(AddressError::Setting("hostaddr must have as many addresses as host has names"));
    }
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err(AddressError::Setting("port must be one number, or one for each host"));
    }
    let port = |at: usize| ports.get(at).or(ports.first()).copied();
    Ok(hosts.iter().enumerate().map(|(at, host)| with_host(config, host, addresses.get(at), port(at))).collect())
}

/// Returns one configuration for each IP address of a host name.
pub(super) async fn resolve(config: &Config) -> Vec<Config> {
    let ([host @ Host::Tcp(name)], []) = (config.get_hosts(), config.get_hostaddrs()) else {
        return vec![config.clone()];
    };
    let port = config.get_ports().first().copied();
    match lookup_host((name.as_str(), port.unwrap_or(DEFAULT_PORT))).await {
        Ok(found) => found.map(|address| with_host(config, host, Some(&address.ip()), port)).collect(),
        // The connection repeats the lookup, and reports its error.
        Err(_) => vec![config.clone()],
    }
}

/// Returns a copy of a configuration with this host alone. `Config` itself cannot remove a host.
fn with_host(config: &Config, host: &Host, address: Option<&IpAddr>, port: Option<u16>) -> Config {
    let mut copy = Config::new();
    match host {
        Host::Tcp(name) => copy.host(name),
        Host::Unix(path) => copy.host_path(path),
    };
    copy.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    address.map(|address| copy.hostaddr(*address));
    port.map(|port| copy.port(port));
    config.get_user().map(|user| copy.user(user));
    config.get_password().map(|password| copy.password(password));
    config.get_dbname().map(|name| copy.dbname(name));
    config.get_options().map(|options| copy.options(options));
    config.get_application_name().map(|name| copy.application_name(name));
    config.get_connect_timeout().map(|timeout| copy.connect_timeout(*timeout));
    config.get_tcp_user_timeout().map(|timeout| copy.tcp_user_timeout(*timeout));
    config.get_keepalives_interval().map(|interval| copy.keepalives_interval(interval));
    config.get_keepalives_retries().map(|retries| copy.keepalives_retries(retries));
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_keeps_all_settings() {
        let settings = "user=u password=p dbname=d options='-c geqo=off' application_name=a sslmode=require \
            sslnegotiation=direct connect_timeout=3 tcp_user_timeout=4 keepalives=1 keepalives_idle=5 \
            keepalives_interval=6 keepalives_retries=7 target_session_attrs=read-write channel_binding=require \
            load_balance_hosts=random";
        let config = |hosts: &str| format!("{hosts} {settings}").parse::<Config>().unwrap();
        let both = config("host=a,/run/pg hostaddr=10.0.0.1,10.0.0.2 port=1,2");
        let expected = [config("host=a hostaddr=10.0.0.1 port=1"), config("host=/run/pg hostaddr=10.0.0.2 port=2")];
        assert_eq!(split(&both).unwrap(), expected);
        assert_eq!(split(&config("host=a,b port=1")).unwrap(), [config("host=a port=1"), config("host=b port=1")]);
        assert_eq!(split(&config("host=a,b")).unwrap(), [config("host=a"), config("host=b")]);
    }

    #[test]
    fn hosts_addresses_and_ports_must_match() {
        for (wrong, expected) in [
            ("user=u", "host is missing"),
            ("host=a,b hostaddr=10.0.0.1 user=u", "hostaddr must have"),
            ("host=a,b port=1,2,3 user=u", "port must be"),
        ] {
            let error = split(&wrong.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }

    #[tokio::test]
    async fn a_host_name_has_a_configuration_for_each_of_its_addresses() {
        let resolved = resolve(&"host=127.0.0.1 port=1 user=u".parse().unwrap()).await;
        assert_eq!(resolved, ["host=127.0.0.1 hostaddr=127.0.0.1 port=1 user=u".parse().unwrap()]);
        let socket: Config = "host=/run/pg user=u".parse().unwrap();
        assert_eq!(resolve(&socket).await, [socket]);
    }
}
