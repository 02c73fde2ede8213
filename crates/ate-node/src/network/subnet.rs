//! Which addresses a worker gets: the n-th link of a machine has the n-th /30 of the node's range.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// Each worker has four addresses: network, host end, worker end, broadcast.
pub(crate) const WORKER_PREFIX: u8 = 30;

/// A range of IPv4 addresses, as `a.b.c.d/prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

/// Not an IPv4 range with room for at least one worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IPv4 range a.b.c.d/prefix with a prefix between 8 and 30")]
pub struct CidrError(String);

impl Cidr {
    /// Shared address space (RFC 6598): not used by private networks, so it rarely collides with one.
    pub const DEFAULT: Cidr = Cidr { network: 0x6440_0000, prefix: 10 };

    /// How many workers fit.
    pub(crate) fn subnets(self) -> u32 {
        1 << (WORKER_PREFIX - self.prefix)
    }

    /// The host's and the worker's address in the n-th subnet; none beyond the last.
    pub(crate) fn addresses(self, n: u32) -> Option<(Ipv4Addr, Ipv4Addr)> {
        (n < self.subnets()).then(|| {
            let base = self.network + 4 * n;
            (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2))
        })
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(s: &str) -> Result<Self, CidrError> {
        let error = || CidrError(s.to_owned());
        let (address, prefix) = s.split_once('/').ok_or_else(error)?;
        let network = u32::from(address.parse::<Ipv4Addr>().map_err(|_| error())?);
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        let whole = (8..=WORKER_PREFIX).contains(&prefix) && network & (u32::MAX >> prefix) == 0;
        if whole { Ok(Cidr { network, prefix }) } else { Err(error()) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_a_subnet_of_its_own() {
        let cidr: Cidr = "100.64.0.0/10".parse().unwrap();
        assert_eq!(cidr, Cidr::DEFAULT);
        assert_eq!(cidr.addresses(0), Some(([100, 64, 0, 1].into(), [100, 64, 0, 2].into())));
        assert_eq!(cidr.addresses(64), Some(([100, 64, 1, 1].into(), [100, 64, 1, 2].into())));
        assert_eq!(
            cidr.addresses(cidr.subnets() - 1),
            Some(([100, 127, 255, 253].into(), [100, 127, 255, 254].into()))
        );
        assert_eq!(cidr.addresses(cidr.subnets()), None);
    }

    #[test]
    fn the_smallest_range_holds_one_worker() {
        let cidr: Cidr = "10.0.0.4/30".parse().unwrap();
        assert_eq!((cidr.subnets(), cidr.addresses(1)), (1, None));
        assert_eq!(cidr.to_string(), "10.0.0.4/30");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for s in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/7", "10.0.0.1/24", "10.0.0.0/x", "fe80::/10"] {
            assert!(s.parse::<Cidr>().is_err(), "{s}");
        }
    }
}
