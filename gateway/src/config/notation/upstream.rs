//! What the keys of upstreams are written in.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use gateway_kernel::feed::shown;
use http::uri::{Authority, PathAndQuery};
use serde_json::{Value as Json, json};

use crate::config::reader::{Wrong, closest};
use crate::config::shape::Notation;

use super::proxy::is_dns_name;

/// A path with perhaps a query, as it stands in a request.
pub(crate) struct Target;

impl Notation for Target {
    type Out = PathAndQuery;

    fn parse(&self, text: &str) -> Result<PathAndQuery, Wrong> {
        let target = text.starts_with('/').then(|| text.parse::<PathAndQuery>().ok()).flatten();
        target.ok_or_else(|| format!("{} is not a path such as /healthz", shown(text)).into())
    }

    fn noun(&self) -> String {
        "a path such as /healthz".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^/" })
    }
}

/// A host with perhaps a port, as it stands in a request.
pub(crate) struct HostField;

impl Notation for HostField {
    type Out = String;

    fn parse(&self, text: &str) -> Result<String, Wrong> {
        let is_host = !text.contains('@') && text.parse::<Authority>().is_ok();
        if is_host { Ok(text.to_owned()) } else { Err(format!("{} is not a host", shown(text)).into()) }
    }

    fn noun(&self) -> String {
        "a host, perhaps with a port".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A status or a range of them.
pub(crate) struct Statuses;

impl Notation for Statuses {
    type Out = RangeInclusive<u16>;

    fn parse(&self, text: &str) -> Result<RangeInclusive<u16>, Wrong> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            _ => Err(format!("{} is not a status or a range such as 200-299", shown(text)).into()),
        }
    }

    fn noun(&self) -> String {
        "a status or a range such as 200-299".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": ["integer", "string"], "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" })
    }
}

/// The name of SRV records, and whether their targets are spoken to under TLS.
pub(crate) struct Service;

impl Notation for Service {
    type Out = (String, bool);

    fn parse(&self, text: &str) -> Result<(String, bool), Wrong> {
        let of_scheme = |(scheme, is_secure)| Some((text.strip_prefix(scheme)?, is_secure));
        let schemes = [("http://", false), ("https://", true)];
        let (name, is_secure) = schemes.into_iter().find_map(of_scheme).ok_or_else(|| {
            let message = format!("{} does not begin with http:// or https://", shown(text));
            if is_dns_name(text) { Wrong::suggest(message, format!("http://{text}")) } else { message.into() }
        })?;
        if let Some((name, _)) = name.split_once(':')
            && is_dns_name(name)
        {
            return Err(format!("{} has a port, which is for the records to say", shown(text)).into());
        }
        if is_dns_name(name) {
            return Ok((name.to_ascii_lowercase(), is_secure));
        }
        Err(format!("{} is not {}", shown(text), Notation::noun(self)).into())
    }

    fn noun(&self) -> String {
        "a name such as http://_http._tcp.example.com".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^https?://[^/?#@:\\s]+$" })
    }
}

/// A name server: an address, perhaps with a port.
pub(crate) struct NameServer;

impl Notation for NameServer {
    type Out = SocketAddr;

    fn parse(&self, text: &str) -> Result<SocketAddr, Wrong> {
        let alone = |text: &str| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
        let server = alone(text).or_else(|| text.parse().ok()).filter(|server| server.port() > 0);
        server.ok_or_else(|| format!("{} is not {}", shown(text), Notation::noun(self)).into())
    }

    fn noun(&self) -> String {
        "an IP address, perhaps with a port".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string" })
    }
}

/// A part of a whole, in percent within bounds.
pub(crate) struct Part(pub(crate) u32, pub(crate) u32);

impl Notation for Part {
    type Out = u32;

    fn parse(&self, text: &str) -> Result<u32, Wrong> {
        let digits = text.strip_suffix('%').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let part = digits.and_then(|text| text.parse().ok()).filter(|part| (self.0..=self.1).contains(part));
        part.ok_or_else(|| format!("{} is not {}", shown(text), Notation::noun(self)).into())
    }

    fn noun(&self) -> String {
        format!("a part from {}% to {}%", self.0, self.1)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]{1,3}%$" })
    }
}

/// After what a request is sent once more.
pub(crate) struct Cause;

/// One of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RetryCause {
    Connect,
    Reset,
    Timeout,
    GatewayError,
    Statuses(RangeInclusive<u16>),
}

impl Notation for Cause {
    type Out = RetryCause;

    fn parse(&self, text: &str) -> Result<RetryCause, Wrong> {
        const WORDS: [&str; 5] = ["connect", "reset", "timeout", "gateway_error", "5xx"];
        match text {
            "connect" => Ok(RetryCause::Connect),
            "reset" => Ok(RetryCause::Reset),
            "timeout" => Ok(RetryCause::Timeout),
            "gateway_error" => Ok(RetryCause::GatewayError),
            "5xx" => Ok(RetryCause::Statuses(500..=599)),
            // What is not a failure is not asked for again.
            text => match Statuses.parse(text) {
                Ok(statuses) if *statuses.start() >= 400 => Ok(RetryCause::Statuses(statuses)),
                _ => Err(Wrong {
                    message: format!("{} is not {}", shown(text), Notation::noun(self)),
                    suggestion: closest(text, WORDS.into_iter()).map(str::to_owned),
                    valid: WORDS.map(str::to_owned).to_vec(),
                }),
            },
        }
    }

    fn noun(&self) -> String {
        "`connect`, `reset`, `timeout`, `gateway_error`, `5xx` or statuses from 400 on".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": ["integer", "string"] })
    }
}
