//! Any fields: what belongs to the client's connection ends at the gateway, and nobody but a trusted peer says on whose
//! behalf it asks.
#![no_main]

use std::net::IpAddr;

use gateway::proxy::fuzzing::prepare;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const PEER: &str = "192.0.2.1";
const HOPS: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-authenticate",
];

fuzz_target!(|text: &[u8]| {
    let Some((flags, text)) = text.split_first() else { return };
    let is_trusted = flags & 1 == 1;
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("a.test"));
    for line in text.split(|byte| *byte == b'\n').take(64) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = halves.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = halves.next().and_then(|value| HeaderValue::from_bytes(value).ok());
        // A second Host has been refused by then.
        if let (Some(name), Some(value)) = (name, value)
            && name != "host"
        {
            headers.append(name, value);
        }
    }
    let peer: IpAddr = PEER.parse().unwrap();
    let trusted = ["192.0.2.0/24".parse().unwrap()];
    let client = prepare(&mut headers, peer, if is_trusted { &trusted } else { &[] });

    assert!(HOPS.iter().all(|name| !headers.contains_key(*name)), "{headers:?}");
    assert_eq!(headers["host"], "a.test");
    assert!(headers.get_all("connection").iter().all(|value| value == "te"), "{headers:?}");
    assert!(headers.get_all("te").iter().all(|value| value == "trailers"), "{headers:?}");
    for name in ["x-forwarded-for", "forwarded"] {
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        let [line] = lines.as_slice() else { panic!("{name}: {lines:?}") };
        let ours = if name == "forwarded" { "for=192.0.2.1;host=a.test;proto=http" } else { PEER };
        assert!(line.as_bytes().ends_with(ours.as_bytes()), "{name}: {line:?}");
        assert!(is_trusted || line == &ours, "{name}: {line:?}");
    }
    if !is_trusted {
        assert_eq!(client, peer);
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a.test");
        let is_claim = |name: &&HeaderName| {
            let name = name.as_str().replace('_', "-");
            name.starts_with("x-forwarded-")
                || ["x-real-ip", "client-cert", "client-cert-chain"].contains(&&*name)
        };
        let claims: Vec<_> = headers.keys().filter(is_claim).collect();
        assert_eq!(claims.len(), 3, "{claims:?}");
    }
});
