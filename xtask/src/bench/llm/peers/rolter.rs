//! rolter, in Rust, from a wheel.

use std::process::Command;

use anyhow::Result;

use super::super::wire::{CHAT_MODEL, MESSAGES_MODEL, SPLICED_MODEL};
use super::{Setting, with_environment};
use crate::bench::scratch::write;
use crate::bench::wheels::{self, Package};

pub(super) const PACKAGE: Package = Package { name: "rolter", version: "0.1.0", environment: wheels::BARE };

pub(super) fn command(setting: &Setting) -> Result<Command> {
    let Setting { dir, listen, upstream, .. } = setting;
    let mut config = format!("[server]\nhost = \"{}\"\nport = {}\n", listen.ip(), listen.port());
    for kind in ["openai", "anthropic"] {
        config += &format!(
            "[[providers]]\nname = \"{kind}\"\nkind = \"{kind}\"\napi_base = \"http://{upstream}\"\napi_key_env = \"KEY\"\n"
        );
    }
    let routes = [
        (CHAT_MODEL, "openai", CHAT_MODEL),
        (SPLICED_MODEL, "openai", CHAT_MODEL),
        (MESSAGES_MODEL, "anthropic", MESSAGES_MODEL),
    ];
    for (name, provider, model) in routes {
        config += &format!(
            "[[routes]]\nmodel = \"{name}\"\nstrategy = \"round_robin\"\n[[routes.targets]]\nprovider = \"{provider}\"\nmodel = \"{model}\"\n"
        );
    }
    let config = write(dir, "rolter.toml", &config)?;
    let mut command = with_environment(&[("KEY", "key"), ("RUST_LOG", "error")], &PACKAGE.program("rolter"));
    command.args(["gateway", "--config"]).arg(config);
    Ok(command)
}
