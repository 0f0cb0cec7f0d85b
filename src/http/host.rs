//! The names under which the service is reached: what `Host` may hold.
//!
//! A page of an attacker can give its own name the address of this machine (DNS rebinding), and its browser then takes our
//! answers for that page's own. So a name is answered only when public DNS cannot give it to an attacker, or when
//! `ALLOWED_HOSTS` lists it. Never an attacker's are: IP addresses, which are no names; names of one label, which only a
//! search list or a container network resolves; and the domains that are reserved for local use.

use std::str::FromStr;

/// Domains that no public registry gives out: `localhost` and `test` (RFC 6761; RFC 2606), `local` (RFC 6762), `internal`
/// (reserved by ICANN's board on 29 July 2024), and `svc`, the end of a Service's short name in a Kubernetes cluster.
const LOCAL_DOMAINS: [&str; 5] = ["localhost", "test", "local", "internal", "svc"];
/// The same of more than one label: home networks (RFC 8375), and Kubernetes' default cluster domain.
const LOCAL_SUFFIXES: [&str; 2] = [".home.arpa", ".svc.cluster.local"];

/// Where Linux tells this machine's own name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The names that are answered besides the local ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// All of them.
    any: bool,
    names: Vec<String>,
    /// Each with its leading dot.
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
    /// Adds this machine's own name.
    pub fn with_own_name(mut self) -> Self {
        // Where it cannot be read there is one name less.
        let own = std::fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_ascii_lowercase();
        if is_name(&own) {
            self.names.push(own);
        }
        self
    }

    /// Whether requests for this host, with or without a port, are answered.
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
        // The colons inside brackets are an IPv6 address's.
        Some(colon) if authority.as_bytes()[colon] == b':' => {
            (&authority[..colon], Some(&authority[colon + 1..]).filter(|port| !port.is_empty()))
        }
        _ => (authority, None),
    }
}

/// Whether nobody can be given this name by public DNS.
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

/// Whether this is labels of letters, digits, `-` and `_`, none of them empty.
fn is_name(text: &str) -> bool {
    last_label(text).is_some()
}

/// The last label of a name. One pass over its bytes, because every request pays for it.
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

/// Whether something stands in front of this suffix.
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
    fn names_that_public_dns_gives_to_nobody_are_answered_without_a_setting() {
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
    fn names_that_are_set_are_answered_and_wildcards_stand_for_what_is_below() {
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
    fn the_machines_own_name_is_answered() {
        let own = std::fs::read_to_string(HOST_NAME).expect("Linux tells it");
        assert!(Hosts::default().with_own_name().names.contains(&own.trim().to_ascii_lowercase()));
    }

    proptest! {
        #[test]
        fn a_registered_name_is_answered_only_when_it_is_set(label in "[a-z0-9-]{1,8}", domain in "com|org|example|dev") {
            let host = format!("{label}.{domain}");
            prop_assert!(!Hosts::default().allow(&host));
            prop_assert!(hosts(&host).allow(&host.to_uppercase()));
        }

        #[test]
        fn no_text_is_too_odd_to_be_read(text in ".*") {
            let _ = text.parse::<Hosts>();
            let _ = Hosts::default().allow(&text);
        }
    }
}
