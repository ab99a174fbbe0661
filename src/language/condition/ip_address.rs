//! The type `ipaddress` and its function `in_cidr`. An IPv4 address that is written as IPv6 (`::ffff:…`) is that IPv4
//! address, in values and in networks.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::value::{IpAddress, Value};
use crate::language::tuple::shown as shown_text;

/// The length of the prefix `::ffff:`, after which an IPv6 address is an IPv4 address.
const MAPPED_PREFIX_BITS: u32 = 96;

/// Parses an address into a CEL value.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let refused = |detail: &dyn fmt::Display| format!("`{}` is not an IP address: {detail}", shown_text(text));
    let (bare, zone) = text.split_once('%').map_or((text, None), |(bare, zone)| (bare, Some(zone)));
    let address: IpAddr = bare.parse().map_err(|e| refused(&e))?;
    if zone.is_some_and(|zone| zone.is_empty() || address.is_ipv4()) {
        return Err(refused(&"a zone follows an address of IPv6"));
    }
    let address = address.to_canonical();
    // As in Go, an IPv4 address that was written as IPv6 loses its zone.
    let zone = zone.filter(|_| address.is_ipv6()).map(str::to_owned);
    Ok(Value::IpAddress(Arc::new(IpAddress { address, zone })))
}

impl fmt::Display for IpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "{}%{zone}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Returns whether an address is in a network. No network contains an address with a zone.
pub(super) fn is_in(address: &IpAddress, network: &str) -> Result<bool, String> {
    let contains = contains(network, address.address)
        .ok_or_else(|| format!("`{}` is not a network such as `10.0.0.0/8`", shown_text(network)))?;
    Ok(contains && address.zone.is_none())
}

/// Returns whether a network (`address/bits`) contains an address, or `None` if the text is not a network.
fn contains(network: &str, address: IpAddr) -> Option<bool> {
    let (base, bits) = network.split_once('/')?;
    let well_formed =
        !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && !(bits.len() > 1 && bits.starts_with('0'));
    let bits: u32 = if well_formed { bits.parse().ok()? } else { return None };
    let base: IpAddr = base.parse().ok()?;
    let width = if base.is_ipv4() { u32::BITS } else { u128::BITS };
    if bits > width {
        return None;
    }
    let mapped = base.is_ipv6() && base.to_canonical().is_ipv4() && bits >= MAPPED_PREFIX_BITS;
    let (base, bits) = if mapped { (base.to_canonical(), bits - MAPPED_PREFIX_BITS) } else { (base, bits) };
    Some(match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(u32::BITS - bits).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(u128::BITS - bits).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    })
}
