//! The trace that a request belongs to (W3C Trace Context). One that comes is passed on as it is: the gateway records no
//! span, and an id of its own in between would tear the tree of those who do.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::observe::access_log::trace_id;

use super::random::Random;

pub(super) const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// Begins a trace where none comes, or what comes is none: several, or one that cannot be read (section 3.2.4).
pub(super) fn ensure(headers: &mut HeaderMap, is_sampled: bool, random: &Random) {
    let mut known = headers.get_all(TRACE_PARENT).iter();
    if let (Some(parent), None) = (known.next(), known.next())
        && parent.to_str().is_ok_and(|parent| trace_id(parent).is_some())
    {
        return;
    }
    // Ids that are all zero are none.
    let (high, low, parent) = (random.next(), random.next() | 1, random.next() | 1);
    let begun = format!("00-{high:016x}{low:016x}-{parent:016x}-{:02x}", u8::from(is_sampled));
    if let Ok(begun) = HeaderValue::try_from(begun) {
        headers.insert(TRACE_PARENT, begun);
        // It belongs to what could not be read.
        headers.remove(TRACE_STATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_is_kept_or_begun() {
        let zero_trace = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_parent = PARENT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let (upper, newer) = (PARENT.to_uppercase(), PARENT.replacen("00", "cc", 1) + "-what-is-new");
        let (last, more) = (PARENT.replacen("00", "ff", 1), format!("{PARENT}-x"));
        for (name, sent, is_kept) in [
            ("none", &[][..], false),
            ("one", &[PARENT], true),
            ("of a newer version", &[&newer], true),
            ("two", &[PARENT, PARENT], false),
            ("no trace", &[&zero_trace], false),
            ("no parent", &[&zero_parent], false),
            ("of no version", &[&last], false),
            ("in capitals", &[&upper], false),
            ("with more than there is", &[&more], false),
            ("cut off", &[&PARENT[..54]], false),
            ("empty", &[""], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACE_STATE, HeaderValue::from_static("a=b"));
            for parent in sent {
                headers.append(TRACE_PARENT, HeaderValue::from_str(parent).unwrap());
            }
            let random = Random::seeded(1);
            ensure(&mut headers, name.len() % 2 == 0, &random);
            let now: Vec<_> =
                headers.get_all(TRACE_PARENT).iter().map(|value| value.to_str().unwrap()).collect();
            let [now] = now[..] else { panic!("{name}: {now:?}") };
            assert_eq!(Some(&now) == sent.first(), is_kept, "{name}: {now}");
            assert_eq!(headers.contains_key(TRACE_STATE), is_kept, "{name}");
            assert!(trace_id(now).is_some(), "{name}: {now}");
            let flags = if name.len() % 2 == 0 { "-01" } else { "-00" };
            assert!(is_kept || (now.len() == PARENT.len() && now.ends_with(flags)), "{name}: {now}");
        }
    }
}
