//! The zones of clients by their addresses.
use std::net::IpAddr;

/// Zones by the addresses of their clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressZones(Vec<(IpAddr, u8, String)>);

impl AddressZones {
    /// Reads items like `10.1.0.0/16=zone-a`.
    ///
    /// # Errors
    /// What is wrong with the first bad one.
    pub fn parse(items: &[String]) -> Result<Self, String> {
        items.iter().map(|item| parse(item)).collect::<Result<_, _>>().map(Self)
    }

    /// The zone of the narrowest network that `address` is in.
    #[must_use]
    pub fn zone_of(&self, address: IpAddr) -> Option<&str> {
        // A listener on IPv6 shows IPv4 clients in their mapped form.
        let address = address.to_canonical();
        let within = self.0.iter().filter(|(network, bits, _)| covers(*network, *bits, address));
        within.max_by_key(|(_, bits, _)| *bits).map(|(_, _, zone)| zone.as_str())
    }
}

fn parse(item: &str) -> Result<(IpAddr, u8, String), String> {
    let right = || format!("{item:?} is not like 10.1.0.0/16=zone");
    let (network, zone) = item.split_once('=').ok_or_else(right)?;
    let (address, bits) = network.trim().split_once('/').ok_or_else(right)?;
    let address: IpAddr = address.parse().map_err(|_| right())?;
    let bits: u8 = bits.parse().map_err(|_| right())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let zone = zone.trim();
    if bits > most || zone.is_empty() { Err(right()) } else { Ok((address, bits, zone.to_owned())) }
}

fn covers(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, true),
        IpAddr::V6(ip) => (u128::from(ip), false),
    };
    let ((network, is_v4), (address, same)) = (number(network), number(address));
    is_v4 == same && (bits == 0 || (network ^ address) >> (128 - u32::from(bits)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_network_decides() {
        let items = ["10.0.0.0/8=a", "10.1.0.0/16=b", "fd00::/8=c", "0.0.0.0/0=d"].map(str::to_owned);
        let zones = AddressZones::parse(&items).unwrap();
        let of = |ip: &str| zones.zone_of(ip.parse().unwrap());
        assert_eq!(of("10.2.3.4"), Some("a"));
        assert_eq!(of("10.1.3.4"), Some("b"));
        assert_eq!(of("::ffff:10.1.3.4"), Some("b"));
        assert_eq!(of("fdff::1"), Some("c"));
        assert_eq!(of("192.168.1.1"), Some("d"));
        assert_eq!(of("fe80::1"), None);
        for bad in ["10.0.0.0/8", "10.0.0.0=a", "10.0.0.0/33=a", "10.0.0/8=a", "10.0.0.0/8="] {
            assert!(AddressZones::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
