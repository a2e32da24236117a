//! HAProxy, of Debian. Routes are a map by the beginning of the path.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;

use super::super::scene::{Scene, route_prefix};
use super::{CONNECTIONS_MAX, Setting, UPSTREAM_IDLE_MAX};
use crate::bench::scratch::write;

pub(super) fn configure(command: &mut Command, setting: &Setting) -> Result<()> {
    let Setting { dir, scene, pem, listen, upstream } = setting;
    let alpn = if *scene == Scene::H2 { " alpn h2,http/1.1" } else { "" };
    let tls =
        pem.map_or_else(String::new, |pem| format!(" ssl crt {} ssl-min-ver TLSv1.2{alpn}", pem.display()));
    let mut map = String::new();
    for number in 0..scene.routes() {
        writeln!(map, "{} origin", route_prefix(number))?;
    }
    let backend = if map.is_empty() {
        "default_backend origin".to_owned()
    } else {
        format!("use_backend %[path,map_beg({})]", write(dir, "routes.map", &map)?.display())
    };
    // Of two files a connection, an idle one needs one: a low limit of open files is no reason not to start.
    let config = format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn {CONNECTIONS_MAX}\ndefaults\n  mode http\n  timeout connect 5s\n  \
         timeout client 1h\n  timeout server 1m\n  timeout tunnel 1h\n  option http-keep-alive\n  \
         http-reuse always\n  option forwardfor\nfrontend web\n  bind {listen}{tls}\n  {backend}\nbackend origin\n  \
         server one {upstream} pool-max-conn {UPSTREAM_IDLE_MAX}\n"
    );
    command.args(["-db", "-q", "-f"]).arg(write(dir, "haproxy.cfg", &config)?);
    Ok(())
}
