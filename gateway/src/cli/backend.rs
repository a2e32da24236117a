//! Where a command finds the rules: in the pinned maps, which are there whether the agent runs or not,
//! or in an agent that enforces them in userspace.

use gateway_kernel::{Added, Counters, Entry, Error, Explanation, ListKind, MapUsage, Removed, Rules};
use ipnet::IpNet;

use super::Global;
use super::failure::{Failure, Outcome};
use crate::control::{
    AddBody, Client, ClientError, ExplainBody, RemoveBody, Reply, Request, WireEntry, apply,
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
        let client = Client::new(&global.socket());
        // An agent in userspace comes first, for maps pinned by an agent before it may still lie there.
        // The default socket may be that of another gateway, so the agent must use this directory.
        match client.identity() {
            Ok(agent) if agent.userspace && agent.pin_dir == global.pin_dir => {
                return Ok(Self::Agent(client));
            }
            Ok(_) | Err(ClientError::Absent(_)) => {}
            Err(error) => tracing::debug!("{error}"),
        }
        match Rules::open(&global.pin_dir) {
            Ok(rules) => Ok(Self::Here(rules)),
            Err(error @ Error::NotPinned(_)) => Err(Failure::System(format!(
                "{error}; nor does an agent that works without them answer on {}",
                global.socket().display()
            ))),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn add(
        &self,
        list: ListKind,
        entries: Vec<WireEntry>,
        progress: &mut dyn FnMut(usize),
    ) -> Outcome<Added> {
        match self.call(Request::Add(list, AddBody { entries }), progress)? {
            Reply::Added(added) => Ok(added),
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

    pub(super) fn explain(&self, packet: ExplainBody) -> Outcome<Explanation> {
        match self.call(Request::Explain(packet), &mut |_| {})? {
            Reply::Explanation(explanation) => Ok(explanation),
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
