//! Which events a watcher wants: query parameters of the event stream, `reason`, `rule` and `prefix`, each as
//! often as wanted. Values of one name are alternatives; an event must match every name that is used.
//!
//! The agent filters and not the watcher, so that events nobody asked for take no place in its queue.

use std::fmt::Write as _;

use gateway_common::verdict::Reason;
use gateway_kernel::{Event, feed};
use ipnet::IpNet;
use thiserror::Error;

/// Values in one filter: more than anybody types, and few enough to try for every event. The longest of them,
/// percent-encoded, fit into the head of a request.
pub const MAX_TERMS: usize = 64;

/// A filter that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct BadFilter(String);

/// What a watcher wants; the default is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    reasons: Vec<Reason>,
    rules: Vec<String>,
    prefixes: Vec<IpNet>,
}

impl Filter {
    /// A filter of these values.
    ///
    /// # Errors
    /// A reason there is not, a rule that cannot be a label, or too many of all.
    pub fn new(reasons: &[String], rules: &[String], prefixes: &[IpNet]) -> Result<Self, BadFilter> {
        let mut filter = Self::default();
        reasons.iter().try_for_each(|reason| filter.add("reason", reason))?;
        rules.iter().try_for_each(|rule| filter.add("rule", rule))?;
        prefixes.iter().try_for_each(|prefix| filter.add("prefix", &prefix.to_string()))?;
        Ok(filter)
    }

    /// Reads the query of a request's target.
    ///
    /// # Errors
    /// As [`Filter::new`], an unknown parameter, or a value that is not percent-encoded UTF-8.
    pub fn from_query(query: &str) -> Result<Self, BadFilter> {
        let mut filter = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).ok_or_else(|| {
                BadFilter(format!("the value of {} is not percent-encoded UTF-8", feed::shown(name)))
            })?;
            filter.add(name, &value)?;
        }
        Ok(filter)
    }

    /// The same as a query, without the question mark; empty for everything.
    #[must_use]
    pub fn to_query(&self) -> String {
        let reasons = self.reasons.iter().map(|reason| ("reason", reason.name().to_owned()));
        let rules = self.rules.iter().map(|rule| ("rule", rule.clone()));
        let prefixes = self.prefixes.iter().map(|prefix| ("prefix", prefix.to_string()));
        let pairs = reasons.chain(rules).chain(prefixes);
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", encode(&value))).collect();
        pairs.join("&")
    }

    /// Whether the watcher wants this event.
    #[must_use]
    pub fn accepts(&self, event: &Event) -> bool {
        let covers = |source| self.prefixes.iter().any(|prefix| prefix.contains(&source));
        (self.reasons.is_empty() || self.reasons.iter().any(|reason| reason.name() == event.reason))
            && (self.rules.is_empty() || event.rule.as_ref().is_some_and(|rule| self.rules.contains(rule)))
            && (self.prefixes.is_empty() || event.source.is_some_and(covers))
    }

    /// Whether an event of this reason, of which nothing else is known, may have been wanted.
    #[must_use]
    pub fn concerns(&self, reason: Reason) -> bool {
        self.reasons.is_empty() || self.reasons.contains(&reason)
    }

    /// Whether counts by this reason are wanted: they are, unless only rules are named.
    #[must_use]
    pub fn counts_reason(&self, name: &str) -> bool {
        match self.reasons.as_slice() {
            [] => self.rules.is_empty(),
            reasons => reasons.iter().any(|reason| reason.name() == name),
        }
    }

    /// Whether counts by this rule are wanted: they are, unless only reasons are named.
    #[must_use]
    pub fn counts_rule(&self, label: &str) -> bool {
        match self.rules.as_slice() {
            [] => self.reasons.is_empty(),
            rules => rules.iter().any(|rule| rule == label),
        }
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), BadFilter> {
        if self.reasons.len() + self.rules.len() + self.prefixes.len() >= MAX_TERMS {
            return Err(BadFilter(format!("a filter has at most {MAX_TERMS} values")));
        }
        match name {
            "reason" => self.reasons.push(reason_named(value)?),
            "rule" => {
                feed::check_label(value)
                    .map_err(|why| BadFilter(format!("{} is no rule: {why}", feed::shown(value))))?;
                self.rules.push(value.to_owned());
            }
            "prefix" => self.prefixes.push(feed::parse_prefix(value).map_err(BadFilter)?),
            _ => {
                let why = format!(
                    "{} is not a parameter of events; there are reason, rule and prefix",
                    feed::shown(name)
                );
                return Err(BadFilter(why));
            }
        }
        Ok(())
    }
}

fn reason_named(name: &str) -> Result<Reason, BadFilter> {
    Reason::ALL.iter().find(|reason| reason.name() == name).copied().ok_or_else(|| {
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        BadFilter(format!("there is no reason {}; the reasons are {}", feed::shown(name), names.join(", ")))
    })
}

/// Unreserved characters stay as they are (RFC 3986); everything else is encoded, whatever it would mean.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::events::tests::event;
    use super::*;

    #[test]
    fn events_match_every_name_and_any_value() {
        let of = |reason: &str, rule: Option<&str>, source: Option<&str>| Event {
            reason: reason.to_owned(),
            rule: rule.map(str::to_owned),
            source: source.map(|source| source.parse().expect("an address")),
            ..event(60)
        };
        let denied = of("deny_list", Some("a b"), Some("192.0.2.1"));
        let v6 = of("ban_list", Some("scan"), Some("2001:db8::1"));
        let broken = of("bad_tcp", None, None);
        let table = [
            ("", [true, true, true]),
            ("reason=deny_list", [true, false, false]),
            ("reason=deny_list&reason=bad_tcp", [true, false, true]),
            ("rule=a%20b", [true, false, false]),
            ("rule=a%20b&rule=scan", [true, true, false]),
            ("prefix=192.0.2.0/24", [true, false, false]),
            ("prefix=192.0.2.0%2F24&prefix=2001%3adb8::/32", [true, true, false]),
            ("prefix=192.0.2.2", [false, false, false]),
            ("reason=deny_list&rule=scan", [false, false, false]),
            ("reason=ban_list&rule=scan&prefix=2001:db8::/64", [false, true, false]),
        ];
        for (query, expected) in table {
            let filter = Filter::from_query(query).expect("a filter");
            assert_eq!([&denied, &v6, &broken].map(|event| filter.accepts(event)), expected, "{query}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let many = "reason=deny_list&".repeat(MAX_TERMS + 1);
        let table = [
            ("reason=denylist", "there is no reason denylist; the reasons are no_match, not_ip, allow_list"),
            ("reason=", "there is no reason ;"),
            ("rule=", "a label has 1 to 63 bytes"),
            ("rule=a%0ab", "no control characters"),
            ("prefix=192.0.2.1/24", "did you mean 192.0.2.0/24?"),
            ("source=192.0.2.1", "source is not a parameter of events; there are reason, rule and prefix"),
            ("rule=%4", "the value of rule is not percent-encoded UTF-8"),
            ("rule=%ff", "the value of rule is not percent-encoded UTF-8"),
            (many.as_str(), "at most 64 values"),
        ];
        for (query, expected) in table {
            let refused = Filter::from_query(query).expect_err(query).to_string();
            assert!(refused.contains(expected), "{query}: {refused}");
        }
    }

    #[test]
    fn counts_show_what_is_named() {
        let table = [("", true, true), ("reason=bad_tcp", true, false), ("rule=spam", false, true)];
        for (query, reason, rule) in table {
            let filter = Filter::from_query(query).expect("a filter");
            assert_eq!(
                (filter.counts_reason("bad_tcp"), filter.counts_rule("spam")),
                (reason, rule),
                "{query}"
            );
        }
    }

    proptest! {
        #[test]
        fn filters_survive_the_socket(
            reasons in proptest::collection::vec(proptest::sample::select(Reason::ALL), 0..4),
            rules in proptest::collection::vec("[ -~éß]{1,31}", 0..4),
            v4: u32,
        ) {
            let prefixes = vec![IpNet::from(std::net::IpAddr::from(v4.to_be_bytes()))];
            let filter = Filter { reasons, rules, prefixes };
            prop_assert_eq!(Filter::from_query(&filter.to_query()), Ok(filter));
        }

        #[test]
        fn no_query_panics(query in "(reason|rule|prefix|%|=|&|[a-f0-9%/.:é]){0,40}") {
            let _ = Filter::from_query(&query);
        }
    }
}
