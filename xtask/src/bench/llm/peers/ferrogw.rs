//! Ferro Labs' gateway, in Go, from a wheel. It has one provider in front of which it stands; which one, the scene says.

use std::process::Command;

use anyhow::Result;

use super::super::scene::Lane;
use super::{Setting, with_environment};
use crate::bench::scratch::write;
use crate::bench::wheels::{self, Package};

pub(super) const PACKAGE: Package = Package { name: "ferrogw", version: "1.5.10", environment: wheels::BARE };

pub(super) fn command(setting: &Setting) -> Result<Command> {
    let Setting { dir, scene, listen, upstream } = setting;
    let provider = if scene.lane() == Lane::Translate { "anthropic" } else { "openai" };
    let config = write(
        dir,
        "ferrogw.yaml",
        &format!("strategy: {{mode: single}}\ntargets: [{{virtual_key: {provider}}}]\n"),
    )?;
    let (config, port, url) =
        (config.display().to_string(), listen.port().to_string(), format!("http://{upstream}"));
    let variables = [
        ("GATEWAY_CONFIG", config.as_str()),
        ("PORT", &port),
        ("ALLOW_UNAUTHENTICATED_PROXY", "true"),
        // A limit of 20 requests a second would be what is measured.
        ("RATE_LIMIT_RPS", "0"),
        ("LOG_LEVEL", "error"),
        ("OPENAI_API_KEY", "key"),
        ("OPENAI_BASE_URL", &url),
        ("ANTHROPIC_API_KEY", "key"),
        ("ANTHROPIC_BASE_URL", &url),
        ("GOMAXPROCS", "1"),
    ];
    let mut command = with_environment(&variables, &PACKAGE.program("ferrogw"));
    command.arg("serve");
    Ok(command)
}
