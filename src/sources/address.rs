//! The addresses that a source may have. A name is looked up anew for each connection, and each lookup is judged, because the
//! owner of a name can change its addresses at any time (DNS rebinding).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::client_tls::is_loopback;

/// The length of the prefix `::ffff:`, after which an IPv6 address is an IPv4 address.
const MAPPED_PREFIX_BITS: u32 = 96;
/// The most addresses of one name that are looked at. No service has more.
const ADDRESSES_MAX: usize = 64;

/// Says which addresses a source may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressRules {
    place: Place,
    /// The private networks that are allowed.
    listed: Vec<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The URL names this machine, so no other one is meant.
    Loopback,
    Elsewhere,
}

/// A network, `address/bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    bits: u32,
}

/// The error of a lookup whose result must not be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name leads to an address that a source must not have")]
struct RefusedAddress;

impl AddressRules {
    /// Reads the rules of a source at this URL.
    ///
    /// # Errors
    /// Returns the text that is no address and no network.
    pub(super) fn new(url: &Url, listed: &[String]) -> Result<Self, String> {
        let network = |text: &String| Network::parse(text).ok_or_else(|| text.clone());
        let listed: Vec<Network> = listed.iter().map(network).collect::<Result<_, _>>()?;
        Ok(Self { place: if is_loopback(url) { Place::Loopback } else { Place::Elsewhere }, listed })
    }

    /// Returns whether the host of a URL may be called as far as that is known without a lookup. A host that is an address
    /// is never looked up.
    pub(super) fn admits_host(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(address)) => self.admits(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => self.admits(IpAddr::V6(address)),
            Some(Host::Domain(_)) => true,
            None => false,
        }
    }

    /// Returns whether an address may be called.
    pub(super) fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.listed.iter().any(|network| network.contains(address)) {
            return true;
        }
        match self.place {
            Place::Loopback => address.is_loopback(),
            Place::Elsewhere => is_public(address),
        }
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base.parse::<IpAddr>().ok()?, Some(bits.parse::<u32>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let bits = bits.unwrap_or(width(base));
        if bits > width(base) {
            return None;
        }
        let is_mapped = base.is_ipv6() && base.to_canonical().is_ipv4() && bits >= MAPPED_PREFIX_BITS;
        let (base, bits) = if is_mapped { (base.to_canonical(), bits - MAPPED_PREFIX_BITS) } else { (base, bits) };
        Some(Self { base, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(u32::BITS.saturating_sub(self.bits)).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(u128::BITS.saturating_sub(self.bits)).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

const fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => u32::BITS,
        IpAddr::V6(_) => u128::BITS,
    }
}

/// Returns whether an address is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        // "This network", with the address that means every one.
        || first == 0
        // Shared by the customers of a provider (RFC 6598).
        || (first == 100 && (64..128).contains(&second))
        // The protocols of the IETF (RFC 6890), and the relays of 6to4.
        || (first == 192 && second == 0 && third == 0)
        || (first == 192 && second == 88 && third == 99)
        // Measurements of networks (RFC 2544).
        || (first == 198 && (18..20).contains(&second))
        // Reserved.
        || first >= 240;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = address.segments();
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match first {
        // NAT64 (RFC 6052): the IPv4 address behind it is the one that is called.
        0x64 if second == 0xff9b && [third, fourth, fifth, sixth] == [0; 4] => embedded(seventh, eighth),
        // 6to4 (RFC 3056).
        0x2002 => embedded(second, third),
        // Teredo, benchmarks, ORCHID and documentation.
        0x2001 if second < 0x200 || second == 0xdb8 => false,
        0x3fff if second < 0x1000 => false,
        // All other addresses of the internet are in here (RFC 4291). The rest is private, link-local, multicast or reserved.
        _ => first & 0xe000 == 0x2000,
    }
}

/// Looks up the addresses of a name.
type LookUp = Arc<dyn Fn(String) -> LookingUp + Send + Sync>;

type LookingUp = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Looks names up, and refuses those that lead to an address that is not allowed.
pub(super) struct VettedNames {
    rules: AddressRules,
    look_up: LookUp,
}

impl VettedNames {
    /// Asks the system for the addresses of names.
    pub(super) fn of_system(rules: AddressRules) -> Self {
        let look_up: LookUp = Arc::new(|name: String| -> LookingUp {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                Ok(found.take(ADDRESSES_MAX).collect())
            })
        });
        Self { rules, look_up }
    }
}

impl Resolve for VettedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (rules, looking_up) = (self.rules.clone(), (self.look_up)(name.as_str().to_owned()));
        Box::pin(async move {
            let found = looking_up.await?;
            // One wrong address is enough: which of them is called is a matter of chance.
            if found.is_empty() || found.iter().any(|address| !rules.admits(address.ip())) {
                return Err(RefusedAddress.into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn rules(url: &str, listed: &[&str]) -> AddressRules {
        let listed: Vec<String> = listed.iter().map(|network| (*network).to_owned()).collect();
        AddressRules::new(&Url::parse(url).unwrap(), &listed).unwrap()
    }

    #[test]
    fn private_addresses_are_refused_unless_listed() {
        const WIKI: &str = "https://wiki.example/";
        let rows: [(&str, &str, &[&str], &str, bool); 38] = [
            ("public", WIKI, &[], "93.184.216.34", true),
            ("public, IPv6", WIKI, &[], "2606:2800:220:1::1", true),
            ("loopback", WIKI, &[], "127.0.0.1", false),
            ("loopback, IPv6", WIKI, &[], "::1", false),
            ("loopback as IPv6", WIKI, &[], "::ffff:127.0.0.1", false),
            ("the metadata of a cloud", WIKI, &[], "169.254.169.254", false),
            ("the metadata of a cloud as IPv6", WIKI, &[], "::ffff:169.254.169.254", false),
            ("the metadata of a cloud, IPv6", WIKI, &[], "fd00:ec2::254", false),
            ("private, 10", WIKI, &[], "10.0.0.1", false),
            ("private, 172.16", WIKI, &[], "172.31.255.255", false),
            ("beside private", WIKI, &[], "172.32.0.1", true),
            ("private, 192.168", WIKI, &[], "192.168.1.1", false),
            ("shared", WIKI, &[], "100.64.0.1", false),
            ("beside shared", WIKI, &[], "100.128.0.1", true),
            ("every address", WIKI, &[], "0.0.0.0", false),
            ("every address, IPv6", WIKI, &[], "::", false),
            ("link-local, IPv6", WIKI, &[], "fe80::1", false),
            ("site-local, IPv6", WIKI, &[], "fec0::1", false),
            ("unique local, IPv6", WIKI, &[], "fc00::1", false),
            ("multicast", WIKI, &[], "224.0.0.1", false),
            ("multicast, IPv6", WIKI, &[], "ff02::1", false),
            ("broadcast", WIKI, &[], "255.255.255.255", false),
            ("reserved", WIKI, &[], "240.0.0.1", false),
            ("documentation", WIKI, &[], "192.0.2.1", false),
            ("documentation, IPv6", WIKI, &[], "2001:db8::1", false),
            ("loopback behind NAT64", WIKI, &[], "64:ff9b::7f00:1", false),
            ("public behind NAT64", WIKI, &[], "64:ff9b::5db8:d822", true),
            ("private behind 6to4", WIKI, &[], "2002:a00:1::", false),
            ("an old form of IPv4 in IPv6", WIKI, &[], "::127.0.0.1", false),
            ("listed", WIKI, &["10.1.0.0/16"], "10.1.2.3", true),
            ("beside listed", WIKI, &["10.1.0.0/16"], "10.2.0.1", false),
            ("listed alone", WIKI, &["10.1.2.3"], "10.1.2.3", true),
            ("beside listed alone", WIKI, &["10.1.2.3"], "10.1.2.4", false),
            ("listed, IPv6", WIKI, &["fd00:1::/32"], "fd00:1::5", true),
            ("listed as IPv6", WIKI, &["::ffff:10.1.0.0/112"], "10.1.2.3", true),
            ("loopback by its name", "http://localhost:1/", &[], "127.0.0.1", true),
            ("elsewhere by the name of loopback", "http://localhost:1/", &[], "93.184.216.34", false),
            ("private by the name of loopback", "http://localhost:1/", &[], "10.0.0.1", false),
        ];
        for (row, url, listed, address, expected) in rows {
            assert_eq!(rules(url, listed).admits(address.parse().unwrap()), expected, "{row}");
        }
    }

    #[test]
    fn a_host_that_is_an_address_is_judged_at_the_start() {
        let rows: [(&str, &str, &[&str], bool); 6] = [
            ("public", "https://93.184.216.34/", &[], true),
            ("private", "https://10.0.0.1/", &[], false),
            ("listed", "https://10.0.0.1/", &["10.0.0.0/8"], true),
            ("a cloud's metadata", "https://169.254.169.254/", &[], false),
            ("loopback", "http://127.0.0.1:1/", &[], true),
            ("a name", "https://wiki.example/", &[], true),
        ];
        for (row, url, listed, expected) in rows {
            assert_eq!(rules(url, listed).admits_host(&Url::parse(url).unwrap()), expected, "{row}");
        }
        let url = Url::parse("https://wiki.example/").unwrap();
        for wrong in ["", "wiki.example", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "fd00::/129", "10.0.0.0/-1"] {
            assert!(AddressRules::new(&url, &[wrong.to_owned()]).is_err(), "`{wrong}`");
        }
    }

    #[tokio::test]
    async fn each_lookup_is_judged_anew() {
        let rows: [(&str, &[&str], bool); 5] = [
            ("first", &["93.184.216.34"], true),
            ("rebound to a cloud's metadata", &["169.254.169.254"], false),
            ("back again", &["93.184.216.34", "2606:2800:220:1::1"], true),
            ("one of two is private", &["93.184.216.34", "10.0.0.1"], false),
            ("nothing", &[], false),
        ];
        let answers: Mutex<Vec<Vec<SocketAddr>>> = Mutex::default();
        for (_, addresses, _) in rows.iter().rev() {
            let of = |address: &&str| SocketAddr::new(address.parse().unwrap(), 0);
            answers.lock().unwrap().push(addresses.iter().map(of).collect());
        }
        let look_up: LookUp = Arc::new(move |_name: String| -> LookingUp {
            let next = answers.lock().unwrap().pop().unwrap_or_default();
            Box::pin(async move { Ok(next) })
        });
        let names = VettedNames { rules: rules("https://wiki.example/", &[]), look_up };
        for (row, addresses, expected) in rows {
            let resolved = names.resolve("wiki.example".parse::<Name>().unwrap()).await;
            assert_eq!(resolved.map(Iterator::count).ok(), expected.then_some(addresses.len()), "{row}");
        }
    }
}
