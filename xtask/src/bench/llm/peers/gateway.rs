//! This repository's own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::super::wire::{CHAT_MODEL, MESSAGES_MODEL, SPLICED_MODEL};
use super::Setting;
use crate::bench::scratch::{free_address, write};
use crate::{process, workspace};

pub(super) fn build() -> Result<()> {
    process::run(&mut process::cargo(&["build", "--quiet", "--release", "--locked", "--package", "gateway"]))
}

pub(super) fn program() -> PathBuf {
    workspace::target_dir().join("release/gateway")
}

pub(super) fn command(setting: &Setting) -> Result<Command> {
    let Setting { dir, listen, upstream, .. } = setting;
    let (admin, socket) = (free_address()?, dir.join("admin.sock"));
    let config = format!(
        "workers: 1\nkernel: {{attach: \"off\"}}\nlisteners:\n  web: {{address: \"{listen}\"}}\nroutes:\n  \
         models: {{match: {{path: \"/v1/**\"}}, llm: true}}\nllm:\n  providers:\n    \
         chat: {{dialect: openai_chat, base_url: \"http://{upstream}/v1\", api_key: key}}\n    \
         messages: {{dialect: anthropic_messages, base_url: \"http://{upstream}\", api_key: key}}\n  models:\n    \
         {CHAT_MODEL}: {{targets: [{{provider: chat}}]}}\n    \
         {SPLICED_MODEL}: {{targets: [{{provider: chat, model: {CHAT_MODEL}}}]}}\n    \
         {MESSAGES_MODEL}: {{targets: [{{provider: messages}}]}}\n\
         admin: {{address: \"{admin}\", socket: \"{}\"}}\n",
        socket.display()
    );
    let mut command = process::command(program());
    command.args(["run", "--config"]).arg(write(dir, "gateway.yaml", &config)?);
    Ok(command)
}
