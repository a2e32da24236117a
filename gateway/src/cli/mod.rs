//! The command line: what can be typed, and the way from a command to its exit code.

mod backend;
mod check;
mod completions;
mod counters;
mod demo;
mod detach;
mod explain;
mod failure;
mod import;
mod lists;
mod man;
mod mock_provider;
mod named_lists;
mod output;
mod own_address;
mod rate;
mod reload;
mod run;
mod schema;
mod status;
mod translate;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::control::{Client, ClientError, Identity};
use crate::observe::log;
use failure::{Failure, Outcome};
use output::Out;

/// A gateway that drops denied sources in the network driver and proxies the rest.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done; 1 the answer is no, or the input is wrong; 2 usage; \
                        3 the system refused, and the message says what to do.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where maps and links are pinned; several gateways on one machine need one each
    #[arg(
        long,
        global = true,
        env = "GATEWAY_PIN_DIR",
        value_name = "DIR",
        default_value = "/sys/fs/bpf/gateway",
        help_heading = "Global options"
    )]
    pub pin_dir: PathBuf,
    /// The agent's admin socket [default: /run/gateway/admin.sock, for `run` the configuration's]
    #[arg(long, global = true, env = "GATEWAY_SOCKET", value_name = "PATH", help_heading = "Global options")]
    pub socket: Option<PathBuf>,
    /// How the log on stderr looks
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Global options"
    )]
    pub log_format: log::Format,
    /// error, warn, info, debug, trace, or directives by module [default: info for `run`, else warn]
    #[arg(long, global = true, env = "GATEWAY_LOG", value_name = "LEVEL", help_heading = "Global options")]
    pub log_level: Option<String>,
}

/// Where an agent's socket is unless somebody says otherwise.
const DEFAULT_SOCKET: &str = "/run/gateway/admin.sock";

impl Global {
    /// The socket that a command talks to.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
    }

    /// The running agent that these options mean, and who it is.
    fn agent(&self) -> Result<(Client, Identity), ClientError> {
        Client::find(&self.socket(), &self.pin_dir)
    }
}

/// The configuration file, for the commands that read it.
#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(
        long,
        short,
        env = "GATEWAY_CONFIG",
        value_name = "FILE",
        default_value = "/etc/gateway/gateway.yaml"
    )]
    pub config: PathBuf,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent in the foreground: SIGHUP reloads, SIGTERM drains and exits 0
    Run(ConfigFile),
    /// Check a configuration and show every mistake in it at once
    Check(check::Arguments),
    /// Deny sources: one by one, or by lists
    Deny(lists::Arguments),
    /// Allow sources, whatever the deny lists say
    Allow(lists::Arguments),
    /// Explain what would happen, and which rule decides it
    Explain(explain::Arguments),
    /// Show the agent, attachments, maps, listeners and upstreams
    Status(status::Arguments),
    /// Show packets and bytes by reason and by rule
    Counters(counters::Arguments),
    /// Show sampled verdicts as they happen, or packets a second
    Watch(watch::Arguments),
    /// Show what becomes of a request, a reply, a stream or an error of an LLM's API in another dialect, and what is lost
    Translate(Box<translate::Arguments>),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Make the running agent load its configuration again
    Reload,
    /// Take the programs off the interfaces and remove the maps; needs the agent to be down
    Detach,
    /// Show everything on one machine: XDP, lists and the proxy, in network namespaces of its own
    Demo,
    /// Run a provider of language models that says what requests tell it to, for tests
    #[command(hide = true)]
    MockProvider(mock_provider::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
    /// Write the manual pages into a directory
    Man(man::Arguments),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::stdout();
    let outcome = dispatch(cli, &mut out).and_then(|()| Ok(out.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was printed before the failure still belongs to the reader.
            let _ = out.flush();
            failure.report()
        }
    }
}

fn dispatch(cli: Cli, out: &mut Out) -> Outcome {
    let Cli { command, global } = cli;
    let default_level = if matches!(command, Command::Run(_)) { "info" } else { "warn" };
    let level = global.log_level.as_deref().unwrap_or(default_level);
    log::init(global.log_format, level)
        .map_err(|error| Failure::Usage(format!("--log-level {level}: {error}")))?;
    match command {
        Command::Run(file) => run::run(&file, &global),
        Command::Check(arguments) => check::run(&arguments, out),
        Command::Deny(arguments) => lists::run(lists::Side::Deny, arguments, &global, out),
        Command::Allow(arguments) => lists::run(lists::Side::Allow, arguments, &global, out),
        Command::Explain(arguments) => explain::run(&arguments, &global, out),
        Command::Status(arguments) => status::run(&arguments, &global, out),
        Command::Counters(arguments) => counters::run(&arguments, &global, out),
        Command::Watch(arguments) => watch::run(&arguments, &global, out),
        Command::Translate(arguments) => translate::run(&arguments, out),
        Command::Schema => schema::run(out),
        Command::Reload => reload::run(&global, out),
        Command::Demo => demo::run(out),
        Command::MockProvider(arguments) => mock_provider::run(&arguments, out),
        Command::Detach => detach::run(&global, out),
        Command::Completions(arguments) => completions::run(&arguments, out),
        Command::Man(arguments) => man::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_can_be_typed() {
        let table: &[(&str, bool)] = &[
            ("run", true),
            ("run --config x.yaml", true),
            ("run --config x.yaml --pin-dir /sys/fs/bpf/two --socket /tmp/two.sock", true),
            ("--pin-dir /sys/fs/bpf/two run", true),
            ("run --log-format json --log-level debug", true),
            ("run x.yaml", false),
            ("check --config x.yaml --format json", true),
            ("check --format yaml", false),
            ("deny add 192.0.2.1", true),
            ("deny add 192.0.2.1 2001:db8::/32 --ttl 10m --reason scan --shadow", true),
            ("deny add", false),
            ("deny add 192.0.2.1 --ttl 10", false),
            ("deny add 192.0.2.1 --ttl 0s", false),
            ("deny add 192.0.2.1 --reason ", false),
            ("deny del 192.0.2.1", true),
            ("deny list --json", true),
            ("deny import -", true),
            ("deny import list.txt --ttl 1h --reason feed --shadow --skip-invalid", true),
            ("deny import list.txt --list feed --dry-run --force", true),
            ("deny import list.csv --format csv --column 2", true),
            ("deny import list.csv --format json", false),
            ("deny import city.mmdb --country DE,FR --asn 64496", true),
            ("deny import city.mmdb --asn AS64496", false),
            ("deny import list.txt --list ban", false),
            ("deny import", false),
            ("deny add 0.0.0.0/0 --force --evidence ticket-7", true),
            ("deny add 192.0.2.1 --evidence ", false),
            ("deny lists --json", true),
            ("deny rollback", true),
            ("deny forget feed", true),
            ("deny forget", false),
            ("deny confirm feed", true),
            ("allow lists", true),
            ("deny export", true),
            ("deny flush", true),
            ("deny", false),
            ("allow add 192.0.2.1 --ttl 10m", true),
            ("explain packet 192.0.2.1 --dst 198.51.100.1:443 --json", true),
            ("explain packet 192.0.2.1/24", false),
            ("explain packet 192.0.2.1 --dst 198.51.100.1", false),
            ("status --json", true),
            ("counters --json", true),
            ("watch --json", true),
            ("watch --reason deny_list --reason bad_tcp --rule spam --prefix 192.0.2.0/24 --json", true),
            ("watch --rate --reason deny_list --rule spam --json", true),
            ("watch --reason denylist", false),
            ("watch --rule ", false),
            ("watch --prefix 192.0.2.1/24", false),
            ("watch --rate --prefix 192.0.2.0/24", false),
            ("translate --from openai_chat --to gemini", true),
            ("translate --from openai_chat --to gemini body.json --model gemini-2.5-pro --json", true),
            ("translate --from gemini --to openai_chat --quirks mistral --losses-only -", true),
            ("translate --from gemini --to anthropic_messages --reply", true),
            ("translate --from gemini --to anthropic_messages --stream", true),
            ("translate --from gemini --to anthropic_messages --error 429", true),
            ("translate --from gemini --to anthropic_messages --error", false),
            ("translate --from gemini --to anthropic_messages --error 42", false),
            ("translate --from gemini --to anthropic_messages --reply --stream", false),
            ("translate --from gemini", false),
            ("translate --from cobol --to gemini", false),
            ("translate --from openai_chat --to openai_chat --quirks none", false),
            ("schema", true),
            ("reload", true),
            ("detach", true),
            ("completions bash", true),
            ("completions tcsh", false),
            ("man /tmp/man", true),
            ("mock-provider --address 127.0.0.1:0", true),
            ("mock-provider --address localhost", false),
            ("frobnicate", false),
        ];
        for (line, sound) in table {
            let words = std::iter::once("gateway").chain(line.split(' '));
            let parsed = Cli::try_parse_from(words);
            assert_eq!(parsed.is_ok(), *sound, "{line}: {parsed:?}");
        }
    }
}
