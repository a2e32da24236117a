//! Sources against servers and files that behave well and badly.

mod fetches;
mod following;
mod server;

use std::path::Path;
use std::time::Duration;

use super::Url;

fn url(url: String, ca: &Path) -> Url {
    Url {
        url,
        refresh: Duration::from_millis(50),
        timeout: Duration::from_secs(20),
        max_bytes: 100,
        ca: Some(ca.to_owned()),
    }
}
