//! Where a command finds the rules: in the pinned maps, which are there whether the agent runs or not,
//! or in an agent that enforces them in userspace.

use gateway_kernel::{
    Added, Counters, Entry, Error, ListInfo, ListKind, MapUsage, Note, Preview, Removed, Replaced, Rules,
    SetBy,
};
use ipnet::IpNet;

use super::Global;
use super::failure::{Failure, Outcome, advised};
use crate::control::{
    AddBody, Batch, Client, ClientError, ExplainBody, Explained, ImportBody, NameBody, RemoveBody, Reply,
    Request, apply,
};

/// Where the rules are.
#[derive(Debug)]
pub(super) enum Backend {
    /// In the maps, or in this process (tests).
    Here(Rules),
    /// In a running agent.
    Agent(Client),
}

impl Backend {
    /// Finds the rules of the gateway that the options name.
    pub(super) fn open(global: &Global) -> Outcome<Self> {
        // An agent in userspace comes first, for maps pinned by an agent before it may still lie there.
        let unanswered = match global.agent() {
            Ok((client, agent)) if agent.userspace => return Ok(Self::Agent(client)),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        let refused = match Rules::open(&global.pin_dir) {
            Ok(rules) => return Ok(Self::Here(rules)),
            Err(error) => error,
        };
        Err(match (&refused, unanswered) {
            (Error::NotPinned(_), Some(ClientError::Absent(socket))) => Failure::System(format!(
                "{refused}; nor does an agent that works without them answer on {}",
                socket.display()
            )),
            (_, None | Some(ClientError::Absent(_))) => refused.into(),
            (_, Some(unanswered)) => Failure::System(format!("{refused}; and {}", advised(&unanswered))),
        })
    }

    /// Adds entries to several lists, all or none; says what became of each batch.
    pub(super) fn add(
        &self,
        batches: Vec<Batch>,
        evidence: Option<String>,
        force: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Outcome<Vec<Added>> {
        let note = Some(Note { by: SetBy::Cli, evidence });
        match self.call(Request::Add(AddBody { batches, note, force }), progress)? {
            Reply::Added(added) => Ok(added),
            other => Err(unexpected(&other)),
        }
    }

    /// Brings a named list into force.
    pub(super) fn import(&self, body: ImportBody, progress: &mut dyn FnMut(usize)) -> Outcome<Replaced> {
        match self.call(Request::Import(body), progress)? {
            Reply::Replaced(replaced) => Ok(replaced),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn preview(&self, body: ImportBody) -> Outcome<Preview> {
        match self.call(Request::Preview(body), &mut |_| {})? {
            Reply::Previewed(preview) => Ok(preview),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn forget(&self, list: ListKind, name: &str) -> Outcome<usize> {
        let body = NameBody { name: name.to_owned() };
        match self.call(Request::Forget(list, body), &mut |_| {})? {
            Reply::Flushed(count) => Ok(count),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns to the generation before; gives its number.
    pub(super) fn roll_back(&self) -> Outcome<u64> {
        match self.call(Request::RollBack, &mut |_| {})? {
            Reply::RolledBack(generation) => Ok(generation),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn lists(&self) -> Outcome<Vec<ListInfo>> {
        match self.call(Request::Lists, &mut |_| {})? {
            Reply::Lists(lists) => Ok(lists),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn remove(&self, list: ListKind, prefixes: Vec<IpNet>) -> Outcome<Removed> {
        match self.call(Request::Remove(list, RemoveBody { prefixes }), &mut |_| {})? {
            Reply::Removed(removed) => Ok(removed),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn flush(&self, list: ListKind) -> Outcome<usize> {
        match self.call(Request::Flush(list), &mut |_| {})? {
            Reply::Flushed(count) => Ok(count),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn entries(&self, list: ListKind) -> Outcome<Vec<Entry>> {
        match self.call(Request::Entries(list), &mut |_| {})? {
            Reply::Entries(entries) => Ok(entries),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn counters(&self) -> Outcome<Counters> {
        match self.call(Request::Counters, &mut |_| {})? {
            Reply::Counters(counters) => Ok(counters),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn explain(&self, packet: ExplainBody) -> Outcome<Explained> {
        match self.call(Request::Explain(packet), &mut |_| {})? {
            Reply::Explanation(explained) => Ok(explained),
            other => Err(unexpected(&other)),
        }
    }

    /// How full the maps are.
    pub(super) fn usage(&self) -> Outcome<Vec<MapUsage>> {
        match self.call(Request::Usage, &mut |_| {})? {
            Reply::Usage(usage) => Ok(usage),
            other => Err(unexpected(&other)),
        }
    }

    fn call(&self, request: Request, progress: &mut dyn FnMut(usize)) -> Outcome<Reply> {
        match self {
            Self::Here(rules) => Ok(apply(rules, request, progress)?),
            Self::Agent(client) => Ok(client.call(&request)?),
        }
    }
}

fn unexpected(reply: &Reply) -> Failure {
    let text = format!("{reply:?}");
    let kind = text.split(['(', '{']).next().unwrap_or_default();
    Failure::System(format!(
        "the agent answered something else ({kind}); is it of another version? See `gateway status`"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::output::testing::printed;
    use super::super::{reload, status, watch};
    use super::*;
    use crate::control::tests::{Server, taken};
    use crate::observe::log;

    fn global(socket: &Path, pin_dir: &str) -> Global {
        Global {
            pin_dir: pin_dir.into(),
            socket: Some(socket.to_owned()),
            log_format: log::Format::Text,
            log_level: None,
        }
    }

    #[test]
    fn commands_reach_the_gateway_of_their_pin_directory_only() {
        let server = Server::start(taken);
        let meant = global(&server.socket(), "/sys/fs/bpf/gateway-test");
        assert!(matches!(Backend::open(&meant), Ok(Backend::Agent(_))));
        printed(false, |out| reload::run(&meant, out));
        let other = global(&server.socket(), "/nonexistent/gateway");
        let table: [(&str, Outcome, &str); 4] = [
            ("reload", quietly(|out| reload::run(&other, out)), "and not /nonexistent/gateway"),
            (
                "watch",
                quietly(|out| watch::run(&watch::Arguments::default(), &other, out)),
                "and not /nonexistent/gateway",
            ),
            (
                "status",
                quietly(|out| status::run(&status::Arguments::default(), &other, out)),
                "nothing is there",
            ),
            ("lists", Backend::open(&other).map(|_| ()), "and not /nonexistent/gateway"),
        ];
        for (name, outcome, expected) in table {
            let Err(Failure::Wrong(why) | Failure::System(why)) = &outcome else {
                panic!("{name}: {outcome:?}")
            };
            assert!(why.contains(expected), "{name}: {why}");
        }
    }

    fn quietly(work: impl FnOnce(&mut super::super::output::Out) -> Outcome) -> Outcome {
        let mut outcome = Ok(());
        printed(false, |out| {
            outcome = work(out);
            Ok::<(), Failure>(())
        });
        outcome
    }

    #[test]
    fn why_the_rules_are_out_of_reach() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("written");
        let table = [
            (
                "nobody",
                directory.path().join("admin.sock"),
                "nor does an agent that works without them answer on",
            ),
            ("no directory", file.join("admin.sock"), "Not a directory"),
            ("too long", directory.path().join("x".repeat(200)), "SUN_LEN"),
        ];
        for (name, socket, expected) in table {
            let pin_dir = directory.path().join("pins").display().to_string();
            let opened = Backend::open(&global(&socket, &pin_dir));
            let Err(Failure::System(why)) = opened else { panic!("{name}: {opened:?}") };
            assert!(why.contains("no gateway has pinned") && why.contains(expected), "{name}: {why}");
        }
    }
}
