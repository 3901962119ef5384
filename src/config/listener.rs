//! Where clients connect, and what they are told to connect to.
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::given::{Given, Layers};
use super::problem::Origin;

/// The keys of one item of `listeners`.
pub(super) const FIELDS: [&str; 4] = ["name", "address", "advertised", "zone"];

/// A host and a port. The host is a name or an IP address, IPv6 without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port` or `[ipv6]:port`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port"))?;
        let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(inner) => return Err(format!("{inner:?} is not an IPv6 address")),
            None if host.is_empty() => return Err(format!("{text:?} has no host")),
            None if host.contains([':', '/', '[', ']', ' ']) => return Err(format!("{host:?} is not a host")),
            None => host,
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// Nobody but this machine can connect to it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// It means "all addresses of this machine", which nobody can connect to.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    /// What to listen on; port 0 takes any free one.
    pub address: HostPort,
    /// What clients are told to connect to; `None` is `address`.
    pub advertised: Option<HostPort>,
    /// Where clients are that come by it.
    pub zone: Option<String>,
}

impl Listener {
    /// What clients are told, once the listener is bound to `port`.
    #[must_use]
    pub fn advertised_at(&self, port: u16) -> HostPort {
        self.advertised.clone().unwrap_or_else(|| HostPort { host: self.address.host.clone(), port })
    }
}

/// What a client's way to this broker says: by which listener it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// The listener's name.
    pub listener: String,
    /// What clients of this listener are told to connect to.
    pub advertised: HostPort,
    /// Where they are, if all are in one zone.
    pub zone: Option<String>,
}

impl Default for Listener {
    fn default() -> Self {
        let address = HostPort { host: "127.0.0.1".to_owned(), port: 9092 };
        Self { name: "plain".to_owned(), address, advertised: None, zone: None }
    }
}

/// Reads the listeners of all layers and checks each by itself; together they are checked in `check.rs`.
pub(super) fn read(layers: &mut Layers) -> Vec<(Listener, Origin)> {
    let given = std::mem::take(&mut layers.listeners);
    if given.is_empty() {
        return vec![(Listener::default(), Origin::Default)];
    }
    given.iter().enumerate().filter_map(|(i, fields)| read_one(layers, i, fields)).collect()
}

fn read_one(layers: &mut Layers, index: usize, fields: &BTreeMap<&'static str, Given>) -> Option<(Listener, Origin)> {
    let text = |field: &str| fields.get(field).and_then(|g| g.text.clone());
    let mut host_port = |field: &str| {
        let given = fields.get(field)?;
        match HostPort::parse(given.text.as_deref()?) {
            Ok(found) => Some(found),
            Err(what) => {
                let remedy = "right is host:port, with an IPv6 host in brackets";
                layers.problem(given.origin.clone(), format!("listeners.{index}.{field}"), what, remedy);
                None
            }
        }
    };
    let (address, advertised) = (host_port("address"), host_port("advertised"));
    let origin = fields.values().next().map_or(Origin::Default, |g| g.origin.clone());
    if text("address").is_none() {
        layers.problem(origin.clone(), format!("listeners.{index}.address"), "is missing", "write host:port");
    }
    let name = text("name").unwrap_or_else(|| if index == 0 { "plain".to_owned() } else { format!("plain{index}") });
    let origin = fields.get("address").map_or(origin, |g| g.origin.clone());
    Some((Listener { name, address: address?, advertised, zone: text("zone") }, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_read_as_people_write_them() {
        let parse = |text| HostPort::parse(text).map(|a| (a.host, a.port));
        assert_eq!(parse("localhost:9092"), Ok(("localhost".to_owned(), 9092)));
        assert_eq!(parse("[::1]:0"), Ok(("::1".to_owned(), 0)));
        assert_eq!(HostPort::parse("[::1]:1").unwrap().to_string(), "[::1]:1");
        for bad in ["", "9092", ":9092", "h:", "h:70000", "::1:9092", "http://h:1", "[x]:1"] {
            assert!(HostPort::parse(bad).is_err(), "{bad}");
        }
        assert!(HostPort::parse("127.9.9.9:1").unwrap().is_loopback());
        assert!(HostPort::parse("[::]:1").unwrap().is_wildcard());
    }
}
