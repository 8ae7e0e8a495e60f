//! Who may call: addresses of back ends, and sites whose pages may read our answers.
//!
//! Both are lists as an operator writes them, separated by commas or line breaks; both only answer
//! yes or no.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An entry of a list that is not what its list holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} has no place in this list")]
pub struct BadEntry(pub String);

/// Addresses and networks that back ends may call from; an empty one allows nobody.
///
/// Reads from addresses (`127.0.0.1`, `::1`), networks (`10.0.0.0/8`) and `0.0.0.0`, which stands
/// for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// Whether a request may pass whose TCP connection comes from `peer`.
    ///
    /// An IPv6 address that stands for an IPv4 one (`::ffff:127.0.0.1`) counts as that one.
    pub fn allows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }
}

impl FromStr for AllowList {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Self, BadEntry> {
        let mut networks = Vec::new();
        for entry in entries(text) {
            if entry == "0.0.0.0" {
                networks.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]);
            } else {
                networks.push(network(entry).ok_or_else(|| BadEntry(entry.to_owned()))?);
            }
        }
        Ok(Self(networks))
    }
}

fn network(entry: &str) -> Option<IpNet> {
    let network = match entry.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => entry.parse::<IpNet>().ok()?,
    };
    Some(match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 => match mapped.addr().to_ipv4_mapped() {
            Some(address) => IpNet::V4(Ipv4Net::new(address, mapped.prefix_len() - 96).ok()?),
            None => network,
        },
        _ => network,
    })
}

/// Sites whose pages may read our answers; an empty one allows all.
///
/// Reads from host names, each of which allows its sub-domains too, with or without scheme and
/// port: `example.com`, `https://example.com`, `localhost:3000`. A leading dot or a
/// trailing one makes no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<Origin>);

impl AllowedOrigins {
    /// Whether a page may read our answer, by the `Origin` header of its request.
    ///
    /// Where there is a list, a request without that header or with the origin `null` is not
    /// allowed.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let origin = origin.and_then(Origin::parse).filter(|origin| origin.scheme.is_some());
        origin.is_some_and(|origin| self.0.iter().any(|allowed| allowed.covers(&origin)))
    }
}

impl FromStr for AllowedOrigins {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Self, BadEntry> {
        let origin =
            |entry: &str| Origin::parse(entry.trim_start_matches('.')).ok_or_else(|| BadEntry(entry.to_owned()));
        entries(text).map(origin).collect::<Result<_, _>>().map(Self)
    }
}

/// `https://example.com:8443` in its parts, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text.as_str()),
        };
        let scheme_fits = |scheme: &str| {
            scheme.starts_with(|first: char| first.is_ascii_lowercase())
                && scheme.chars().all(|other| other.is_ascii_alphanumeric() || "+-.".contains(other))
        };
        if !scheme.is_none_or(scheme_fits) {
            return None;
        }
        // The last colon, unless it is one of those in a bracketed IPv6 address.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            Some(digits) if digits.starts_with('+') => return None,
            Some(digits) => Some(digits.parse().ok()?),
            None => None,
        };
        Some(Self { scheme: scheme.map(str::to_owned), host: host_name(host)?, port })
    }

    /// Whether `origin` is of this host or a sub-domain, and agrees with scheme and port where they
    /// were written.
    fn covers(&self, origin: &Self) -> bool {
        let host_fits = origin
            .host
            .strip_suffix(&self.host)
            .is_some_and(|sub_domain| sub_domain.is_empty() || sub_domain.ends_with('.'));
        host_fits
            && (self.scheme.is_none() || self.scheme == origin.scheme)
            && (self.port.is_none() || self.port == origin.port.or(origin.usual_port()))
    }

    /// The port that browsers leave out of an origin.
    fn usual_port(&self) -> Option<u16> {
        match self.scheme.as_deref() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        }
    }
}

/// A host name without its trailing dot, or an IPv6 address in brackets in its usual form.
fn host_name(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return Some(format!("[{}]", address.parse::<Ipv6Addr>().ok()?));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_fits = |label: &str| {
        !label.is_empty() && label.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
    };
    name.split('.').all(label_fits).then(|| name.to_owned())
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn callers(list: &str, peer: &str) -> bool {
        list.parse::<AllowList>().unwrap().allows(peer.parse().unwrap())
    }

    fn sites(list: &str, origin: &str) -> bool {
        list.parse::<AllowedOrigins>().unwrap().allows(Some(origin))
    }

    #[test]
    fn addresses_are_compared_whole() {
        assert!(callers("127.0.0.1", "127.0.0.1"));
        assert!(!callers("127.0.0.1", "127.0.0.10"));
        assert!(!callers("127.0.0.1", "::1"));
        assert!(callers("127.0.0.1, ::1", "::1"));
        assert!(!callers("", "127.0.0.1"));
    }

    #[test]
    fn a_list_may_span_lines() {
        let list = "127.0.0.1,\n10.9.0.1,\n\n 10.9.0.2";
        assert!(callers(list, "127.0.0.1") && callers(list, "10.9.0.1") && callers(list, "10.9.0.2"));
        assert!(!callers(list, "10.9.0.3"));
    }

    #[test]
    fn networks_hold_their_addresses() {
        assert!(callers("10.0.0.0/8", "10.200.3.4") && callers("10.1.2.3/8", "10.200.3.4"));
        assert!(!callers("10.0.0.0/8", "11.0.0.1"));
        assert!(callers("fd00::/8", "fd12::1") && !callers("fd00::/8", "fe80::1"));
        assert!(callers("0.0.0.0/0", "1.2.3.4") && !callers("0.0.0.0/0", "::1"));
    }

    #[test]
    fn four_zeros_are_everybody() {
        assert!(callers("0.0.0.0", "1.2.3.4") && callers("0.0.0.0", "2001:db8::1"));
    }

    #[test]
    fn a_mapped_address_counts_as_the_old_one() {
        assert!(callers("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(callers("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(callers("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(callers("::ffff:10.0.0.0/104", "10.1.1.1") && !callers("::ffff:10.0.0.0/104", "11.1.1.1"));
        assert!(!callers("::/0", "::ffff:10.0.0.1"));
    }

    #[test]
    fn what_is_no_address_is_named() {
        for entry in ["localhost", "10.0.0", "10.0.0.0/33", "10.0.0.1 10.0.0.2", "*", "010.0.0.1"] {
            let list = format!("127.0.0.1, {entry}");
            assert_eq!(list.parse::<AllowList>(), Err(BadEntry(entry.to_owned())));
        }
    }

    #[test]
    fn without_a_list_every_site_is_allowed() {
        let everybody = AllowedOrigins::default();
        assert!(everybody.allows(None) && everybody.allows(Some("null")) && everybody.allows(Some("https://a.test")));
        assert_eq!(" , ".parse::<AllowedOrigins>(), Ok(everybody));
    }

    #[test]
    fn with_a_list_an_origin_has_to_be_told() {
        let list: AllowedOrigins = "example.com".parse().unwrap();
        for origin in [None, Some(""), Some("null"), Some("example.com"), Some("://example.com"), Some("https://")] {
            assert!(!list.allows(origin), "{origin:?}");
        }
    }

    #[test]
    fn host_names_are_compared_whole() {
        for origin in
            ["http://example.com", "https://EXAMPLE.com:8443", "https://a.b.example.com", "https://example.com."]
        {
            assert!(sites("foo.test, Example.com", origin), "{origin}");
            assert!(sites(".example.com", origin), "{origin}");
        }
        for origin in [
            "http://example.com.evil.org",
            "http://evilexample.com",
            "http://example.com@evil.org",
            "http://evil.org/example.com",
            "http://evil.org/.example.com",
            "http://evil.org#.example.com",
            "http://evil.org:80.example.com",
            "http://com",
        ] {
            assert!(!sites("foo.test, example.com", origin), "{origin}");
        }
    }

    #[test]
    fn scheme_and_port_count_where_they_are_written() {
        assert!(sites("https://example.com", "https://a.example.com:8443"));
        assert!(!sites("https://example.com", "http://example.com"));
        assert!(sites("localhost:3000", "http://localhost:3000"));
        assert!(!sites("localhost:3000", "http://localhost:3001") && !sites("localhost:3000", "http://localhost"));
        assert!(
            sites("https://example.com:443", "https://example.com") && sites("example.com:80", "http://example.com")
        );
        assert!(!sites("example.com:80", "https://example.com"));
        assert!(sites("[::1]:8080", "http://[0::1]:8080") && !sites("[::1]", "http://[::2]"));
        assert!(sites("capacitor://localhost", "capacitor://localhost"));
    }

    #[test]
    fn what_is_no_site_is_named() {
        for entry in [
            "*",
            "*.example.com",
            "https://example.com/",
            "a b",
            "a:port",
            "a:+80",
            "a:65536",
            "a..b",
            "://a",
            "[::1",
            "żółw.pl",
        ] {
            assert_eq!(entry.parse::<AllowedOrigins>(), Err(BadEntry(entry.to_owned())));
        }
    }

    const ORIGIN: &str = "(http|https)://[a-z.:/@#?]{0,6}example\\.com[a-z.:/0-9]{0,4}";

    proptest! {
        #[test]
        fn no_text_panics(list in any::<String>(), origin in any::<String>()) {
            let _ = list.parse::<AllowList>();
            if let Ok(origins) = list.parse::<AllowedOrigins>() {
                origins.allows(Some(&origin));
            }
            sites("example.com", &origin);
        }

        #[test]
        fn only_the_host_and_what_is_below_it_pass(origin in ORIGIN) {
            let host = origin.split_once("://").unwrap().1;
            let host = host.split_once(':').map_or(host, |(host, _)| host);
            let host = host.strip_suffix('.').unwrap_or(host);
            if sites("example.com", &origin) {
                prop_assert!(host == "example.com" || host.ends_with(".example.com"));
            }
        }
    }
}
