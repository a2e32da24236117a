//! LiteLLM's proxy, in Python, from wheels. One worker.

use std::process::Command;

use anyhow::Result;

use super::super::wire::{CHAT_MODEL, MESSAGES_MODEL, SPLICED_MODEL};
use super::{Setting, with_environment};
use crate::bench::scratch::write;
use crate::bench::wheels::Package;

/// The newest whose proxy can be installed from wheels alone.
pub(super) const PACKAGE: Package =
    Package { name: "litellm[proxy]", version: "1.108.7", environment: "litellm" };

pub(super) fn command(setting: &Setting) -> Result<Command> {
    let Setting { dir, listen, upstream, .. } = setting;
    let models = [
        (CHAT_MODEL, format!("openai/{CHAT_MODEL}"), "/v1"),
        (SPLICED_MODEL, format!("openai/{CHAT_MODEL}"), "/v1"),
        (MESSAGES_MODEL, format!("anthropic/{MESSAGES_MODEL}"), ""),
    ];
    let mut config = "model_list:\n".to_owned();
    for (name, model, base) in models {
        config += &format!(
            "- {{model_name: {name}, litellm_params: {{model: {model}, api_base: \"http://{upstream}{base}\", api_key: key}}}}\n"
        );
    }
    let config = write(dir, "litellm.yaml", &config)?;
    let variables = [
        ("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true"),
        ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
        ("LITELLM_LOG", "ERROR"),
    ];
    let mut command = with_environment(&variables, &PACKAGE.program("litellm"));
    command.args(["--telemetry", "False", "--num_workers", "1", "--host", &listen.ip().to_string()]);
    command.args(["--port", &listen.port().to_string(), "--config"]).arg(config);
    Ok(command)
}
