//! The host names that the service accepts in `Host`.
//!
//! An attacker's page can resolve its own name to this machine's address (DNS rebinding), and the browser then treats responses
//! as that page's own. A name is therefore accepted only if an attacker cannot register it in public DNS, or if `ALLOWED_HOSTS`
//! lists it. IP addresses are safe, because they are not names; so are single-label names, which only a search list or a
//! container network resolves, and the domains reserved for local use.

use std::str::FromStr;

/// Top-level domains that no public registry assigns: `localhost` and `test` (RFC 6761; RFC 2606), `local` (RFC 6762),
/// `internal` (reserved by ICANN's board on 29 July 2024), and `svc`, the end of a Service's short name in a Kubernetes
/// cluster.
const LOCAL_DOMAINS: [&str; 5] = ["localhost", "test", "local", "internal", "svc"];
/// Reserved domains of more than one label: home networks (RFC 8375), and Kubernetes' default cluster domain.
const LOCAL_SUFFIXES: [&str; 2] = [".home.arpa", ".svc.cluster.local"];

/// The file from which Linux reports the host name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The accepted names in addition to the local ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Whether every name is accepted.
    any: bool,
    names: Vec<String>,
    /// Domains whose subdomains are accepted, each with its leading dot.
    suffixes: Vec<String>,
}

impl FromStr for Hosts {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hosts = Self::default();
        for pattern in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            let (name, wildcard) = pattern.strip_prefix("*.").map_or((pattern, false), |name| (name, true));
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            if pattern == "*" {
                hosts.any = true;
            } else if !is_name(&name) {
                return Err(
                    "expected host names separated by commas, without scheme, port and path: api.example.com, \
                     *.example.com for every name below it, or * for all",
                );
            } else if wildcard {
                hosts.suffixes.push(format!(".{name}"));
            } else {
                hosts.names.push(name);
            }
        }
        Ok(hosts)
    }
}

impl Hosts {
    /// Adds this machine's host name.
    pub fn with_own_name(mut self) -> Self {
        // Best effort: an unreadable file adds no name.
        let own = std::fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_ascii_lowercase();
        if is_name(&own) {
            self.names.push(own);
        }
        self
    }

    /// Returns true if requests for this host, with or without a port, are accepted.
    pub fn allow(&self, authority: &str) -> bool {
        let (host, _) = split_port(authority);
        let name = host.strip_suffix('.').unwrap_or(host);
        self.any || is_local(name) || self.lists(name)
    }

    fn lists(&self, name: &str) -> bool {
        self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
            || (is_name(name) && self.suffixes.iter().any(|suffix| ends_with(name, suffix)))
    }
}

/// A host without its port, and the port.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.bytes().rposition(|byte| byte == b':' || byte == b']') {
        // Colons inside brackets belong to an IPv6 address.
        Some(colon) if authority.as_bytes()[colon] == b':' => {
            (&authority[..colon], Some(&authority[colon + 1..]).filter(|port| !port.is_empty()))
        }
        _ => (authority, None),
    }
}

/// Returns true if no one can register this name in public DNS.
fn is_local(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| !address.is_empty());
    }
    let Some(domain) = last_label(host) else { return false };
    domain.len() == host.len()
        // No top-level domain is a number (RFC 3696, section 2): the host is an IPv4 address.
        || domain.bytes().all(|byte| byte.is_ascii_digit())
        || LOCAL_DOMAINS.iter().any(|local| local.eq_ignore_ascii_case(domain))
        || LOCAL_SUFFIXES.iter().any(|suffix| ends_with(host, suffix))
}

/// Returns true if the text is non-empty labels of letters, digits, `-` and `_`.
fn is_name(text: &str) -> bool {
    last_label(text).is_some()
}

/// The last label of a name, found in one pass over its bytes because this runs for every request.
fn last_label(name: &str) -> Option<&str> {
    let mut begin = 0;
    for (index, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if index > begin => begin = index + 1,
            b'-' | b'_' => {}
            byte if byte.is_ascii_alphanumeric() => {}
            _ => return None,
        }
    }
    Some(&name[begin..]).filter(|label| !label.is_empty())
}

/// Returns true if the name ends with this suffix and is longer than it.
fn ends_with(name: &str, suffix: &str) -> bool {
    let begin = name.len().checked_sub(suffix.len()).filter(|begin| *begin > 0);
    begin.and_then(|begin| name.get(begin..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(text: &str) -> Hosts {
        text.parse().expect(text)
    }

    #[test]
    fn names_that_public_dns_cannot_assign_are_accepted_without_a_setting() {
        for host in [
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "app.localhost:3000",
            "127.0.0.1:8080",
            "192.168.1.20",
            "127.1",
            "[::1]:8080",
            "[fe80::1%25eth0]",
            "pycrudapi",
            "my_service-1:80",
            "pycrudapi.python-crud-api.svc",
            "pycrudapi.python-crud-api.svc.cluster.local.",
            "printer.local",
            "db.internal",
            "nas.home.arpa:8443",
            "ci.test",
        ] {
            assert!(Hosts::default().allow(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example.:80",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "evil.localhost.com",
            "home.arpa.com",
            "home.arpa",
            "notlocalhost.com",
            "evil.xn--local-",
            "local.",
            "a..local",
            ".local",
            "ev il",
            "évil",
            "evil.com:80:80",
            "[]",
            "[::1",
            "user@localhost",
            "localhost/x",
            "*",
            ":80",
        ] {
            let answered = Hosts::default().allow(host);
            assert_eq!(answered, host == "local.", "{host}");
        }
    }

    #[test]
    fn listed_names_are_accepted_and_wildcards_match_subdomains() {
        let hosts = hosts(" api.example.com., *.Shop.example ");
        for host in ["api.example.com", "API.example.com.:8443", "a.shop.example", "a.b.shop.example:1"] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in ["example.com", "x.api.example.com", "shop.example", "evilshop.example", ".shop.example"] {
            assert!(!hosts.allow(host), "{host}");
        }
        assert!("*".parse::<Hosts>().expect("all").allow("evil.example"));
        assert_eq!("  ".parse(), Ok(Hosts::default()));
        for wrong in ["https://a.example", "a.example:80", "a.example/", "a.*", "*a.example", "a.example,", "a b", "**"]
        {
            assert!(wrong.parse::<Hosts>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_machines_host_name_is_accepted() {
        let own = std::fs::read_to_string(HOST_NAME).expect("Linux tells it");
        assert!(Hosts::default().with_own_name().names.contains(&own.trim().to_ascii_lowercase()));
    }

    proptest! {
        #[test]
        fn a_registered_name_is_accepted_only_if_it_is_listed(label in "[a-z0-9-]{1,8}", domain in "com|org|example|dev") {
            let host = format!("{label}.{domain}");
            prop_assert!(!Hosts::default().allow(&host));
            prop_assert!(hosts(&host).allow(&host.to_uppercase()));
        }

        #[test]
        fn any_text_can_be_parsed(text in ".*") {
            let _ = text.parse::<Hosts>();
            let _ = Hosts::default().allow(&text);
        }
    }
}
