//! Determines which clients have more than their share of connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::kernel::CLIENT_V6_BITS;
use crate::config::nginx::Network;

/// Addresses with at most this many connections are never refused; browsers open that many.
const FEW: u64 = 8;
/// A filter may have 4096 instructions; five are needed per address.
const REFUSED_MAX: usize = 800;

/// The clients at or above the share at which all clients together stay within the limit.
pub fn over(held: &BTreeMap<IpAddr, u64>, limit: u64, trusted: &[Network]) -> BTreeSet<IpAddr> {
    if held.values().sum::<u64>() <= limit {
        return BTreeSet::new();
    }
    let mut sorted: Vec<(u64, IpAddr)> = held.iter().map(|(client, number)| (*number, *client)).collect();
    sorted.sort_unstable();
    let (mut left, mut share) = (limit, 0);
    for (clients, (number, _)) in (1..=sorted.len() as u64).rev().zip(&sorted) {
        share = left / clients;
        if *number >= share {
            break;
        }
        left -= number;
    }
    let most = sorted.into_iter().rev().take(REFUSED_MAX);
    most.filter(|(number, client)| *number >= share.max(FEW) && !is_trusted(*client, trusted))
        .map(|(_, client)| client)
        .collect()
}

/// Returns true if this is a trusted proxy, which represents many clients.
fn is_trusted(client: IpAddr, trusted: &[Network]) -> bool {
    trusted
        .iter()
        .any(|network| network.contains(client) || (client.is_ipv6() && network.is_within(client, CLIENT_V6_BITS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(numbers: &[(&str, u64)]) -> BTreeMap<IpAddr, u64> {
        numbers.iter().map(|(address, number)| (address.parse().expect("an address"), *number)).collect()
    }

    fn addresses(over: &BTreeSet<IpAddr>) -> Vec<String> {
        over.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_client_is_over_its_share_while_the_total_is_within_the_limit() {
        assert!(over(&held(&[("10.0.0.1", 100)]), 100, &[]).is_empty());
    }

    #[test]
    fn clients_above_the_remaining_share_are_over_it() {
        let all = held(&[("10.0.0.1", 90), ("10.0.0.2", 60), ("10.0.0.3", 10), ("10.0.0.4", 7)]);
        assert_eq!(addresses(&over(&all, 100, &[])), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(addresses(&over(&all, 150, &[])), ["10.0.0.1"]);
    }

    #[test]
    fn few_connections_and_trusted_networks_are_never_over() {
        let many: Vec<String> = (0..100).map(|number| format!("10.0.1.{number}")).collect();
        let few = held(&many.iter().map(|address| (address.as_str(), 7)).collect::<Vec<_>>());
        assert!(over(&few, 100, &[]).is_empty());
        let all = held(&[("10.0.0.1", 90), ("fd00:1::", 90)]);
        let trusted = |text: &str| over(&all, 100, &[text.parse().expect("a network")]);
        assert_eq!(addresses(&trusted("10.0.0.0/24")), ["fd00:1::"]);
        assert_eq!(addresses(&trusted("fd00::/16")), ["10.0.0.1"]);
        assert_eq!(addresses(&trusted("fd00:1::17")), ["10.0.0.1"], "a client is its /64");
    }

    #[test]
    fn no_more_are_refused_than_a_filter_takes() {
        let many: Vec<String> = (0..1000).map(|number| format!("10.0.{}.{}", number / 250, number % 250)).collect();
        let all = held(&many.iter().map(|address| (address.as_str(), 20)).collect::<Vec<_>>());
        assert_eq!(over(&all, 10_000, &[]).len(), REFUSED_MAX);
    }
}
