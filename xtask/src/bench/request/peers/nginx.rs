//! nginx, of Debian. Bodies are passed on as they come, as the others do it; routes are locations.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;

use super::super::scene::{Scene, route_prefix};
use super::{CONNECTIONS_MAX, Setting, UPSTREAM_IDLE_MAX};
use crate::bench::scratch::write;
use crate::workspace;

/// Connections of both sides share one table.
const WORKER_CONNECTIONS: usize = CONNECTIONS_MAX + 2 * UPSTREAM_IDLE_MAX;

pub(super) fn configure(command: &mut Command, setting: &Setting) -> Result<()> {
    let dir = setting.dir.display();
    // As root, nginx would give its worker to a user who cannot reach this directory.
    let user = if workspace::is_root() { "user root;\n" } else { "" };
    let config = format!(
        "{user}daemon off;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections {WORKER_CONNECTIONS}; }}\nhttp {{\n  access_log off;\n  \
         keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  keepalive_time 1d;\n  tcp_nodelay on;\n  \
         client_max_body_size 0;\n  client_body_temp_path {dir}/body;\n  proxy_temp_path {dir}/proxy;\n  \
         fastcgi_temp_path {dir}/fastcgi;\n  uwsgi_temp_path {dir}/uwsgi;\n  scgi_temp_path {dir}/scgi;\n{}}}\n",
        server(setting)?
    );
    let config = write(setting.dir, "nginx.conf", &config)?;
    command.arg("-q").arg("-e").arg("stderr").arg("-p").arg(setting.dir).arg("-c").arg(config);
    Ok(())
}

/// The request goes on as the gateway sends it: the client's Host, and its address in X-Forwarded-For.
fn server(setting: &Setting) -> Result<String> {
    let Setting { scene, pem, listen, upstream, .. } = setting;
    let tls = pem.map_or_else(String::new, |pem| {
        format!(
            "    ssl_certificate {0};\n    ssl_certificate_key {0};\n    ssl_protocols TLSv1.2 TLSv1.3;\n",
            pem.display()
        )
    });
    let ssl = match (pem.is_some(), *scene == Scene::H2) {
        (true, true) => " ssl http2",
        (true, false) => " ssl",
        (false, _) => "",
    };
    let connection = match scene {
        Scene::Websocket => {
            "upgrade;\n    proxy_set_header Upgrade $http_upgrade;\n    proxy_read_timeout 1h"
        }
        _ => "\"\"",
    };
    let mut locations = String::new();
    for number in 0..scene.routes() {
        writeln!(locations, "    location {} {{ proxy_pass http://origin; }}", route_prefix(number))?;
    }
    if locations.is_empty() {
        locations.push_str("    location / { proxy_pass http://origin; }\n");
    }
    Ok(format!(
        "  upstream origin {{\n    server {upstream};\n    keepalive {UPSTREAM_IDLE_MAX};\n    \
         keepalive_requests 1000000000;\n    keepalive_time 1d;\n  }}\n  server {{\n    \
         listen {listen}{ssl} backlog=1024;\n{tls}    proxy_http_version 1.1;\n    \
         proxy_request_buffering off;\n    proxy_max_temp_file_size 0;\n    \
         proxy_set_header Connection {connection};\n    proxy_set_header Host $host;\n    \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n{locations}  }}\n"
    ))
}
