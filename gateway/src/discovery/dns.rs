//! Endpoints from name servers: the addresses of a name, or the targets of its SRV records with theirs. What one question
//! was answered last stands in for the answer that does not come, so that a set does not shrink because IPv6 is slow.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::files;
use crate::model::{DnsDiscovery, Endpoint, Family, Location, Records};

use super::{Look, Source};

/// The system's name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const MAX_RESOLV_CONF_BYTES: u64 = 64 * 1024;

/// For one question, with all that is asked again.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// For one server's answer to it.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Targets of one name's SRV records: each takes two questions.
const MAX_TARGETS: usize = 256;

/// Weights of endpoints go up to this, those of SRV records to 65,535.
const MAX_WEIGHT: u32 = 1000;

pub(super) struct Dns {
    settings: DnsDiscovery,
    turns: Arc<Semaphore>,
    /// And the text that says which servers it asks.
    resolver: Option<(Vec<u8>, TokioResolver)>,
    /// What each question was answered last.
    known: Known,
    due: Option<Instant>,
}

type Known = HashMap<(Name, RecordType), Vec<RData>>;

/// What a look has gathered so far.
#[derive(Default)]
struct Gathered {
    known: Known,
    /// The least of the answers'.
    ttl: Option<Duration>,
    failure: Option<String>,
}

/// A question, and what it was answered.
type Answered = ((Name, RecordType), Result<Answer, String>);

/// Records of the kind that was asked for; none if there are none.
struct Answer {
    records: Vec<RData>,
    ttl: Option<Duration>,
}

impl Dns {
    pub(super) fn new(settings: DnsDiscovery, turns: Arc<Semaphore>) -> Self {
        Self { settings, turns, resolver: None, known: Known::new(), due: None }
    }

    async fn look(&mut self) -> Look {
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(why) => return Look::failed(why),
        };
        let Ok(name) = Name::from_ascii(&self.settings.name) else {
            return Look::failed(format!("{} is no name", self.settings.name));
        };
        let mut gathered = Gathered::default();
        let mut endpoints = match self.settings.records {
            Records::Addresses { port } => {
                let addresses = self.addresses(&resolver, vec![name.clone()], &mut gathered).await;
                let target = Target { host: self.settings.name.clone(), port, priority: 0, weight: 1 };
                target.endpoints(addresses.get(&name).map_or(&[], Vec::as_slice), 1, self.settings.is_secure)
            }
            Records::Services => self.services(&resolver, name, &mut gathered).await,
        };
        let order = |endpoint: &Endpoint| (endpoint.priority, endpoint.to_string());
        // Servers tell their records in another order each time, which is no other set.
        endpoints.sort_by_cached_key(order);
        endpoints.dedup_by(|one, other| one.at == other.at);
        let Gathered { known, ttl, mut failure } = gathered;
        let wait = match &failure {
            None if !endpoints.is_empty() => ttl.unwrap_or(self.settings.max_ttl),
            _ => Duration::ZERO,
        };
        if endpoints.is_empty() && failure.is_none() {
            failure = Some(format!("there are no {} for {}", self.records(), self.settings.name));
        }
        self.known = known;
        self.due = Some(Instant::now() + wait.clamp(self.settings.min_ttl, self.settings.max_ttl));
        Look { found: (!endpoints.is_empty()).then_some(endpoints), failure }
    }

    fn records(&self) -> &'static str {
        match (self.settings.records, self.settings.family) {
            (Records::Services, _) => "targets of SRV records with addresses",
            (_, Family::Both) => "A and AAAA records",
            (_, Family::V4) => "A records",
            (_, Family::V6) => "AAAA records",
        }
    }

    /// Made anew when the system names other servers.
    fn resolver(&mut self) -> Result<TokioResolver, String> {
        let text = match &self.settings.resolvers {
            Some(_) => Vec::new(),
            None => files::read_bounded(Path::new(RESOLV_CONF), MAX_RESOLV_CONF_BYTES)
                .map_err(|error| format!("{RESOLV_CONF} cannot be read: {error}"))?,
        };
        if let Some((known, resolver)) = &self.resolver
            && *known == text
        {
            return Ok(resolver.clone());
        }
        let (config, mut options) = match &self.settings.resolvers {
            Some(servers) => (named(servers), ResolverOpts::default()),
            None => parse_resolv_conf(&text).map_err(|error| format!("{RESOLV_CONF}: {error}"))?,
        };
        // What an answer is good for is counted here, once.
        options.cache_size = 0;
        options.timeout = options.timeout.min(SERVER_TIMEOUT);
        options.try_tcp_on_error = true;
        if self.settings.resolvers.is_some() {
            options.use_hosts_file = ResolveHosts::Never;
        }
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        self.resolver = Some((text, resolver.clone()));
        Ok(resolver)
    }

    async fn services(&self, resolver: &TokioResolver, name: Name, gathered: &mut Gathered) -> Vec<Endpoint> {
        let question = (name, RecordType::SRV);
        let answers = self.ask(resolver, vec![question.clone()], gathered).await;
        let mut targets = Vec::new();
        for record in answers.get(&question).into_iter().flatten() {
            // A root for a target says that there is no such service (RFC 2782).
            if let RData::SRV(srv) = record
                && !srv.target.is_root()
            {
                targets.push(srv.clone());
            }
        }
        if targets.len() > MAX_TARGETS {
            gathered.failure =
                Some(format!("{} SRV records are too many; at most {MAX_TARGETS} are taken", targets.len()));
            return Vec::new();
        }
        let mut names: Vec<Name> = targets.iter().map(|srv| srv.target.to_lowercase()).collect();
        names.sort();
        names.dedup();
        let addresses = self.addresses(resolver, names, gathered).await;
        let heaviest = targets.iter().map(|srv| srv.weight).max().unwrap_or_default();
        let mut endpoints = Vec::new();
        for srv in targets {
            let name = srv.target.to_lowercase();
            let target = Target {
                host: name.to_ascii().trim_end_matches('.').to_owned(),
                port: srv.port,
                priority: u32::from(srv.priority),
                weight: u32::from(srv.weight),
            };
            let addresses = addresses.get(&name).map_or(&[][..], Vec::as_slice);
            endpoints.extend(target.endpoints(addresses, u32::from(heaviest), self.settings.is_secure));
        }
        endpoints
    }

    /// The addresses of each of these names.
    async fn addresses(
        &self,
        resolver: &TokioResolver,
        names: Vec<Name>,
        gathered: &mut Gathered,
    ) -> HashMap<Name, Vec<IpAddr>> {
        let kinds: &[RecordType] = match self.settings.family {
            Family::Both => &[RecordType::A, RecordType::AAAA],
            Family::V4 => &[RecordType::A],
            Family::V6 => &[RecordType::AAAA],
        };
        let questions =
            names.into_iter().flat_map(|name| kinds.iter().map(move |kind| (name.clone(), *kind)));
        let answers = self.ask(resolver, questions.collect(), gathered).await;
        let mut addresses: HashMap<Name, Vec<IpAddr>> = HashMap::new();
        for ((name, _), records) in answers {
            addresses.entry(name).or_default().extend(records.iter().filter_map(RData::ip_addr));
        }
        addresses
    }

    /// Asks all of these at a time. Whatever is not answered has the answer that it had before.
    async fn ask(
        &self,
        resolver: &TokioResolver,
        questions: Vec<(Name, RecordType)>,
        gathered: &mut Gathered,
    ) -> Known {
        let mut asked: JoinSet<Answered> = JoinSet::new();
        for question in questions {
            let (resolver, turns) = (resolver.clone(), Arc::clone(&self.turns));
            asked.spawn(async move {
                // A semaphore that is never closed always gives a permit.
                let _turn = turns.acquire().await;
                let answer = ask(&resolver, question.0.clone(), question.1).await;
                (question, answer)
            });
        }
        let mut answers = Known::new();
        for (question, answer) in asked.join_all().await {
            let records = match answer {
                Ok(Answer { records, ttl }) => {
                    gathered.ttl = gathered.ttl.into_iter().chain(ttl).min();
                    records
                }
                Err(why) => {
                    gathered.failure = Some(format!("{} {}: {why}", question.1, question.0));
                    self.known.get(&question).cloned().unwrap_or_default()
                }
            };
            gathered.known.insert(question.clone(), records.clone());
            answers.insert(question, records);
        }
        answers
    }
}

impl Source for Dns {
    async fn next(&mut self) -> Look {
        if let Some(due) = self.due {
            sleep_until(due).await;
        }
        self.due = Some(Instant::now() + self.settings.min_ttl);
        self.look().await
    }
}

async fn ask(resolver: &TokioResolver, name: Name, kind: RecordType) -> Result<Answer, String> {
    let lookup = match timeout(QUESTION_TIMEOUT, resolver.lookup(name, kind)).await {
        Err(_) => return Err(format!("no answer within {QUESTION_TIMEOUT:?}")),
        Ok(Ok(lookup)) => lookup,
        Ok(Err(error)) if error.is_no_records_found() => {
            return Ok(Answer { records: Vec::new(), ttl: None });
        }
        Ok(Err(NetError::Timeout)) => return Err("no name server answers".to_owned()),
        Ok(Err(error)) => return Err(error.to_string()),
    };
    // Aliases on the way count, too.
    let ttl = lookup.answers().iter().map(|record| record.ttl).min();
    let records = lookup.answers().iter().filter(|record| record.record_type() == kind);
    let records = records.map(|record| record.data.clone()).collect();
    Ok(Answer { records, ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())) })
}

/// These servers and no others, whatever the system says.
fn named(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        server.connections.iter_mut().for_each(|connection| connection.port = address.port());
        server
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}

/// Where a service is, in a record's words.
struct Target {
    host: String,
    port: u16,
    priority: u32,
    weight: u32,
}

impl Target {
    /// Its addresses share its weight, which is held against the heaviest one's.
    fn endpoints(&self, addresses: &[IpAddr], heaviest: u32, is_secure: bool) -> Vec<Endpoint> {
        let share = (self.weight * MAX_WEIGHT).checked_div(heaviest).unwrap_or(MAX_WEIGHT);
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let endpoint = |address: &IpAddr| Endpoint {
            // A weight of 0 stands for a small chance, not for none.
            weight: (share / count).max(1),
            priority: self.priority,
            server_name: Some(self.host.clone()),
            ..Endpoint::new(Location::Tcp { host: address.to_string(), port: self.port }, is_secure)
        };
        addresses.iter().map(endpoint).collect()
    }
}
