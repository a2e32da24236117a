//! Connections under TLS that are not ended here: the name that a client asks for (SNI) says who gets them.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::rustls::server::Acceptor;

use crate::model::{HostPattern, Passthrough};

/// The longest hello that is waited for: one record of TLS, and nobody sends so much.
const MAX_HELLO: usize = 16 * 1024 + 5;

/// How long to wait for the rest of a hello of which a part is there: the system says that there is something to read
/// as long as nobody takes it. Longer each time, so that a hello that never ends costs a few looks a second and not
/// hundreds.
const REST: Duration = Duration::from_millis(2);
const LONGEST_REST: Duration = Duration::from_millis(250);

/// The index of the upstream that gets the connection, if it is one of these. Whatever was read is still to be read.
pub(super) async fn destination(stream: &TcpStream, entries: &[Passthrough]) -> io::Result<Option<usize>> {
    let name = server_name(stream).await?;
    Ok(name.and_then(|name| find(entries, &name)))
}

/// The name in a client's hello, in lower case.
async fn server_name(stream: &TcpStream) -> io::Result<Option<String>> {
    let mut hello = vec![0; MAX_HELLO];
    let (mut seen, mut rest) = (0, REST);
    loop {
        let count = stream.peek(&mut hello).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if count > seen {
            seen = count;
            let mut acceptor = Acceptor::default();
            acceptor.read_tls(&mut &hello[..count])?;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    return Ok(accepted.client_hello().server_name().map(str::to_ascii_lowercase));
                }
                Ok(None) if count == MAX_HELLO => return Err(io::Error::other("the hello is too long")),
                Ok(None) => {}
                Err((error, _alert)) => return Err(io::Error::other(error)),
            }
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(LONGEST_REST);
    }
}

/// The entry for a name: exact before wildcard, the longest of these.
fn find(entries: &[Passthrough], name: &str) -> Option<usize> {
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(exact) => (exact == name).then_some(usize::MAX),
        HostPattern::Wildcard(suffix) => {
            (name.len() > suffix.len() && name.ends_with(suffix.as_str())).then_some(suffix.len())
        }
    };
    let best = |entry: &Passthrough| entry.server_names.iter().filter_map(rank).max();
    let ranked = entries.iter().filter_map(|entry| Some((best(entry)?, entry.upstream)));
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, upstream)| upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_wins() {
        let entry = |names: &[&str], upstream| {
            let pattern = |name: &&str| match name.strip_prefix('*') {
                Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
                None => HostPattern::Exact((*name).to_owned()),
            };
            Passthrough { server_names: names.iter().map(pattern).collect(), upstream }
        };
        let entries = [entry(&["*.a.test"], 0), entry(&["x.a.test", "b.test"], 1), entry(&["*.b.a.test"], 2)];
        for (name, expected) in [
            ("x.a.test", Some(1)),
            ("y.a.test", Some(0)),
            ("z.b.a.test", Some(2)),
            ("b.test", Some(1)),
            ("a.test", None),
            ("c.test", None),
        ] {
            assert_eq!(find(&entries, name), expected, "{name}");
        }
    }
}
