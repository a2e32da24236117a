//! From what was written to what runs: looks names up, compares entries with each other, and reports what
//! only shows when the whole file is known.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_kernel::{BanBounds, DefaultVerdict, ListKind, NewList, Plan};
use sha2::Sha256;

use crate::config::capacity;
use crate::config::discover;
use crate::config::keys::{self, Root};
use crate::config::lists::{self, Lists, Surroundings};
use crate::config::llm;
use crate::config::node::Place;
use crate::config::reader::Reader;
use crate::config::routes;
use crate::config::shape::{Located, Named};
use crate::config::upstreams;
use crate::model::{
    AccessLog, Acme, Admin, Balance, CertificateFiles, ClientAuthority, Endpoint, ListSource, ListSources,
    Listener, Location, LogTarget, Model, Passthrough, Protocol, Proxy, Tls, Upstream, UpstreamTls,
};
use crate::sources::Origin;
use crate::tls;

/// The model, without the hash. The caller drops it when anything was reported.
pub(crate) fn lower(
    root: &Root,
    reader: &mut Reader<'_>,
    base_dir: &Path,
    hash: &mut Sha256,
) -> Option<Model> {
    let mut acme = acme(root.acme.as_ref(), reader, base_dir);
    let listeners = listeners(&root.listeners, &root.upstreams, &mut acme, reader, base_dir);
    let admin = admin(&root.admin, &root.listeners, reader, base_dir);
    let fallbacks = upstreams::fallbacks(&root.upstreams, reader);
    let upstreams = root.upstreams.iter().zip(fallbacks);
    let upstreams =
        upstreams.filter_map(|(named, fallback)| upstream(named, root, fallback, reader, base_dir)).collect();
    let mut upstreams: Vec<Upstream> = upstreams;
    let llm = Arc::new(llm::lower(root, &mut upstreams, reader, base_dir));
    let routes = routes::lower(root, reader);
    let (kernel, lists) = plan(&root.kernel, reader, base_dir, hash);
    let workers = root.workers.unwrap_or_else(processors);
    let access_log = root.access_log.as_ref().and_then(|log| access_log(log, base_dir));
    let drain_timeout = root.drain_timeout;
    let proxy = Proxy { workers, drain_timeout, access_log, listeners, upstreams, routes, llm };
    Some(Model {
        kernel,
        lists,
        proxy,
        acme,
        admin: admin?,
        config_hash: String::new(),
        config_files: Vec::new(),
    })
}

fn access_log(log: &keys::AccessLog, base_dir: &Path) -> Option<AccessLog> {
    let to = match log.path.as_deref()? {
        "stdout" => LogTarget::Stdout,
        "stderr" => LogTarget::Stderr,
        path => LogTarget::File(base_dir.join(path)),
    };
    Some(AccessLog { to, format: log.format, sample: log.sample, queue: log.queue })
}

/// The certificates are those of listeners, and are added where those are read.
fn acme(located: Option<&Located<keys::Acme>>, reader: &mut Reader<'_>, base_dir: &Path) -> Option<Acme> {
    let keys::Acme { directory, agree_to_terms, contact, challenge, storage, ca } = &located?.value;
    let place = located?.place;
    if *agree_to_terms == Some(false) {
        let message = "an authority issues nothing before its terms of service are agreed to: read them, and say \
                       `agree_to_terms: true`";
        reader.error::<()>(place, message);
    }
    let ca = ca.as_ref().map(|ca| (base_dir.join(&ca.value), ca.place));
    if let Some((path, place)) = &ca
        && let Err(why) = tls::authorities(path)
    {
        reader.error::<()>(*place, why);
    }
    Some(Acme {
        directory: directory.as_ref()?.value.clone(),
        contact: contact.clone(),
        storage: base_dir.join(storage),
        ca: ca.map(|(path, _)| path),
        challenge: *challenge,
        certificates: Vec::new(),
    })
}

fn listeners(
    listeners: &[Named<keys::Listener>],
    upstreams: &[Named<keys::Upstream>],
    acme: &mut Option<Acme>,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Vec<Listener> {
    let mut taken: HashMap<SocketAddr, &str> = HashMap::new();
    let mut lowered = Vec::new();
    for Named { name, place, value } in listeners {
        let place = *place;
        let Some(listener) = value else { continue };
        let Some(address) = &listener.address else { continue };
        if let Some(other) = taken.insert(address.value, name) {
            let message = format!("the listeners `{other}` and `{name}` have the same address");
            reader.error::<()>(address.place, message);
        }
        lowered.push(Listener {
            name: name.clone(),
            address: address.value,
            tls: listener
                .tls
                .as_ref()
                .and_then(|tls| secure(tls, listener.http2, acme, place, reader, base_dir)),
            http2: listener.http2,
            http3: http3(listener, reader),
            max_concurrent_streams: u32::try_from(listener.max_concurrent_streams).unwrap_or(u32::MAX),
            passthrough: passthrough(&listener.passthrough, upstreams, place, reader),
            proxy_protocol: listener.proxy_protocol.clone(),
            trusted_proxies: listener.trusted_proxies.clone(),
            header_timeout: listener.header_timeout,
            idle_timeout: listener.idle_timeout,
            max_header_bytes: listener.max_header_size,
            max_header_count: listener.max_header_count,
            request_ids: listener.request_ids,
            begin_traces: listener.begin_traces,
            max_connections: listener.max_connections,
        });
    }
    lowered
}

fn http3(listener: &keys::Listener, reader: &mut Reader<'_>) -> bool {
    if !listener.http3.value {
        return false;
    }
    let message = if listener.tls.is_none() {
        "HTTP/3 is spoken under TLS alone; give the listener `tls`"
    } else if !listener.proxy_protocol.is_empty() {
        "a load balancer that speaks the PROXY protocol cannot say whom a datagram is from; `http3` does not go with \
         `proxy_protocol`"
    } else if cfg!(not(feature = "http3")) {
        "this gateway was built without HTTP/3; build it with `--features http3`, or leave `http3` out"
    } else {
        return true;
    };
    reader.error::<()>(listener.http3.place, message);
    false
}

fn passthrough(
    entries: &[keys::Passthrough],
    upstreams: &[Named<keys::Upstream>],
    place: Place,
    reader: &mut Reader<'_>,
) -> Vec<Passthrough> {
    let names: Vec<_> =
        entries.iter().flat_map(|entry| entry.server_names.iter().flatten().cloned()).collect();
    distinct(&names, reader, "server name");
    let lower = |entry: &keys::Passthrough| {
        let (server_names, wanted) = (entry.server_names.as_ref()?, entry.upstream.as_ref()?);
        if server_names.is_empty() {
            return reader.error(place, "an entry of `passthrough` needs at least one server name");
        }
        let Some(upstream) = upstreams.iter().position(|upstream| upstream.name == wanted.value) else {
            routes::unknown_upstream(wanted, upstreams, reader);
            return None;
        };
        let server_names = server_names.iter().map(|name| name.value.clone()).collect();
        Some(Passthrough { server_names, upstream })
    };
    entries.iter().filter_map(lower).collect()
}

/// The files are read here, so that `check` finds what is wrong with them.
fn secure(
    tls: &keys::Tls,
    http2: bool,
    acme: &mut Option<Acme>,
    place: Place,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Option<Tls> {
    let located = tls.certificates.as_ref()?;
    if located.is_empty() {
        return reader.error(place, "`tls` needs at least one certificate");
    }
    let read = |located: &Located<keys::Certificate>| {
        if located.value.acme.is_empty() {
            return certificate(located, reader, base_dir);
        }
        issued(located, acme.as_mut(), reader)
    };
    let certificates = located.iter().filter_map(read).collect();
    let mut clients = None;
    if let Some(keys::Clients { ca: Some(ca), required }) = &tls.clients {
        let path = base_dir.join(&ca.value);
        if let Err(why) = tls::authorities(&path) {
            reader.error::<()>(ca.place, why);
        }
        clients = Some(ClientAuthority { ca: path, required: *required });
    }
    Some(Tls { certificates, min_version: tls.min_version, http2, clients })
}

fn upstream(
    named: &Named<keys::Upstream>,
    root: &Root,
    fallback: Option<usize>,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Option<Upstream> {
    let upstream = named.value.as_ref()?;
    let endpoints = match (&upstream.endpoints, &upstream.discover) {
        (Some(endpoints), _) => endpoints,
        (None, Some(_)) => &Vec::new(),
        // It is reported that they are missing, or what is wrong with them.
        (None, None) => return None,
    };
    if endpoints.is_empty() && upstream.discover.is_none() {
        let message = format!("the upstream `{}` needs at least one endpoint, or `discover`", named.name);
        reader.error::<()>(named.place, message);
    }
    let discover = upstream.discover.as_ref();
    let discovery =
        discover.and_then(|discover| discover::lower(discover, root.resolvers.as_ref(), reader, base_dir));
    let servers: Vec<_> =
        endpoints.iter().map(|endpoint| endpoint.map(|e| (e.at.clone(), e.is_secure))).collect();
    distinct(&servers, reader, "endpoint");
    if let (Some(slow), Balance::Hash(_)) = (&upstream.slow_start, &upstream.balance.value) {
        let message = "a key has one endpoint, which cannot begin with less than its share; `slow_start` does not go with \
                       `hash`";
        reader.error::<()>(slow.place, message);
    }
    if let (Some(hedge), Balance::Sticky { .. }) =
        (upstream.retry.as_ref().and_then(|retry| retry.value.hedge.as_ref()), &upstream.balance.value)
    {
        let message = "`hedge` does not go with `sticky`: sessions would move with each answer that is slow";
        reader.error::<()>(hedge.place, message);
    }
    if upstream.proxy_protocol.value.is_some() && upstream.protocol.value != Protocol::Http1 {
        let message = "the PROXY protocol is said once a connection, and over HTTP/2 clients share connections; use \
                       `protocol: http1`, or leave it to X-Forwarded-For";
        reader.error::<()>(upstream.proxy_protocol.place, message);
    }
    Some(Upstream {
        name: named.name.clone(),
        endpoints: endpoints.iter().map(|endpoint| located(endpoint, reader, base_dir)).collect(),
        discovery,
        balance: upstream.balance.value.clone(),
        slow_start: upstream.slow_start.as_ref().map(|slow| slow.value),
        health: upstream.health.as_ref().map(|health| upstreams::health(health, &upstream.protocol, reader)),
        ejection: upstream.ejection.as_ref().map(upstreams::ejection),
        panic_threshold: upstream.panic_threshold,
        zone: upstream.zone.clone().or_else(|| root.zone.clone()),
        protocol: upstream.protocol.value,
        proxy_protocol: upstream.proxy_protocol.value,
        tls: secure_upstream(named, upstream, endpoints, reader, base_dir),
        connect_timeout: upstream.connect_timeout,
        response_timeout: upstream.response_timeout,
        request_timeout: upstream.request_timeout,
        retry: upstream.retry.as_ref().map(|retry| upstreams::retry(retry, reader)),
        limits: upstreams::limits(&upstream.limits),
        breaker: upstream.breaker.as_ref().map(upstreams::breaker),
        fallback,
        idle_timeout: upstream.idle_timeout,
        max_idle_connections: upstream.max_idle_connections,
        keepalive_timeout: upstream.keepalive_timeout,
    })
}

/// An endpoint with its socket's path from the configuration's directory.
pub(crate) fn located(endpoint: &Located<Endpoint>, reader: &mut Reader<'_>, base_dir: &Path) -> Endpoint {
    let Location::Unix(path) = &endpoint.value.at else { return endpoint.value.clone() };
    let path = base_dir.join(path);
    check_socket_path(&path, endpoint.place, reader);
    Endpoint { at: Location::Unix(path), ..endpoint.value.clone() }
}

/// `None` where nobody speaks TLS: then there must be nothing that says how.
fn secure_upstream(
    named: &Named<keys::Upstream>,
    upstream: &keys::Upstream,
    endpoints: &[Located<Endpoint>],
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Option<UpstreamTls> {
    let (tls, protocol) = (upstream.tls.as_ref(), upstream.protocol.value);
    let finds = upstream.discover.as_ref().map(|discover| &discover.value);
    // What a file will list is not known.
    let may_find = finds.is_some_and(|finds| finds.file.is_some());
    let finds_secure = finds.is_some_and(|finds| {
        finds.dns.as_ref().is_some_and(|server| server.value.is_secure)
            || finds.srv.as_ref().is_some_and(|(_, is_secure)| *is_secure)
    });
    let needs_tls = finds_secure || endpoints.iter().any(|endpoint| endpoint.value.is_secure);
    if !needs_tls && !may_find {
        let has_any = finds.is_some() || !endpoints.is_empty();
        if protocol == Protocol::Auto && has_any {
            let message =
                "`auto` asks in the handshake of TLS, and no endpoint has https://; say `http1` or `http2`";
            reader.error::<()>(upstream.protocol.place, message);
        }
        if tls.is_some() && has_any {
            let message = format!("the upstream `{}` has `tls` but no endpoint with https://", named.name);
            reader.error::<()>(named.place, message);
        }
        return None;
    }
    let lowered = whom(tls, protocol, reader, base_dir);
    if lowered.verify
        && lowered.ca.is_none()
        && let Err(why) = tls::system_roots()
    {
        if !needs_tls && tls.is_none() {
            return None;
        }
        reader.error::<()>(named.place, why);
    }
    Some(lowered)
}

/// Whom endpoints have to be, as far as that is said.
pub(crate) fn whom(
    tls: Option<&keys::UpstreamTls>,
    protocol: Protocol,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> UpstreamTls {
    let Some(tls) = tls else {
        return UpstreamTls { ca: None, name: None, identity: None, verify: true, protocol };
    };
    let ca = tls.ca.as_ref().map(|ca| (base_dir.join(&ca.value), ca.place));
    if let Some((path, place)) = &ca
        && let Err(why) = tls::authorities(path)
    {
        reader.error::<()>(*place, why);
    }
    let identity = tls.certificate.as_ref().and_then(|located| certificate(located, reader, base_dir));
    UpstreamTls {
        ca: ca.map(|(path, _)| path),
        name: tls.name.clone(),
        identity,
        verify: tls.verify,
        protocol,
    }
}

/// A certificate that an authority issues: its files may be there already, or not yet.
fn issued(
    located: &Located<keys::Certificate>,
    acme: Option<&mut Acme>,
    reader: &mut Reader<'_>,
) -> Option<CertificateFiles> {
    let keys::Certificate { cert, key, acme: names, ocsp } = &located.value;
    if cert.is_some() || key.is_some() || ocsp.is_some() {
        return reader.error(located.place, "a certificate is files, or `acme` and nothing else");
    }
    let Some(acme) = acme else {
        return reader
            .error(located.place, "nothing says who issues this certificate; add `acme` to the file");
    };
    let files = acme.files(names);
    // One certificate may stand at several listeners.
    match acme.certificates.iter().find(|known| known.first() == names.first()) {
        Some(known) if known == names => {}
        Some(_) => {
            let message =
                format!("two certificates begin with the name {}; name it in one of them", names[0]);
            return reader.error(located.place, message);
        }
        None => acme.certificates.push(names.clone()),
    }
    Some(files)
}

/// Reads a certificate's files, to report what is wrong with them.
fn certificate(
    located: &Located<keys::Certificate>,
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Option<CertificateFiles> {
    let certificate = &located.value;
    if !certificate.acme.is_empty() {
        return reader.error(located.place, "`acme` is for certificates of listeners");
    }
    let (Some(cert), Some(key)) = (&certificate.cert, &certificate.key) else {
        return reader.error(located.place, "a certificate needs `cert` and `key`");
    };
    let ocsp = certificate.ocsp.as_ref().map(|ocsp| base_dir.join(ocsp));
    let files = CertificateFiles { cert: base_dir.join(cert), key: base_dir.join(key), ocsp };
    if let Err(why) = tls::check_certificate(&files) {
        reader.error::<()>(located.place, why);
    }
    Some(files)
}

/// Reports values that stand twice in one list.
pub(crate) fn distinct<T: Eq + std::hash::Hash>(items: &[Located<T>], reader: &mut Reader<'_>, what: &str) {
    let mut first: HashMap<&T, Place> = HashMap::new();
    for item in items {
        if let Some(place) = first.get(&item.value) {
            let message = format!("this {what} is listed twice; the first is on line {}", place.line);
            reader.error::<()>(item.place, message);
        } else {
            first.insert(&item.value, item.place);
        }
    }
}

fn admin(
    admin: &keys::Admin,
    listeners: &[Named<keys::Listener>],
    reader: &mut Reader<'_>,
    base_dir: &Path,
) -> Option<Admin> {
    let clash = listeners.iter().find(|named| {
        let address = named.value.as_ref().and_then(|listener| listener.address.as_ref());
        admin.address.value.is_some() && address.map(|address| address.value) == admin.address.value
    });
    if let Some(Named { name, value: Some(keys::Listener { address: Some(address), .. }), .. }) = clash {
        reader.error::<()>(address.place, format!("the listener `{name}` has the address of `admin`"));
    }
    Some(Admin {
        address: admin.address.value,
        socket: socket(&admin.socket, reader, base_dir)?,
        max_rule_labels: admin.max_rule_labels,
    })
}

fn socket(socket: &Located<String>, reader: &mut Reader<'_>, base_dir: &Path) -> Option<PathBuf> {
    let path = base_dir.join(&socket.value);
    check_socket_path(&path, socket.place, reader)?;
    Some(path)
}

fn check_socket_path(path: &Path, place: Place, reader: &mut Reader<'_>) -> Option<()> {
    if path.as_os_str().len() > keys::MAX_SOCKET_PATH {
        let message = format!(
            "from the configuration's directory, the socket's path has {} bytes; the kernel takes {}",
            path.as_os_str().len(),
            keys::MAX_SOCKET_PATH
        );
        return reader.error(place, message);
    }
    Some(())
}

fn plan(
    kernel: &keys::Kernel,
    reader: &mut Reader<'_>,
    base_dir: &Path,
    hash: &mut Sha256,
) -> (Plan, ListSources) {
    distinct(&kernel.interfaces, reader, "interface");
    let cache = base_dir.join(&kernel.list_cache);
    let mut around = Surroundings { base_dir, cache: &cache, hash };
    let mut allow = lists::lower(ListKind::Allow, &kernel.allow, reader, &mut around);
    let deny = lists::lower(ListKind::Deny, &kernel.deny, reader, &mut around);
    somebody_passes(kernel, &allow, reader);
    allow.lists.extend(deny.lists);
    allow.sources.extend(deny.sources);
    lists::check_names(&allow.lists, reader);
    capacity::check(&allow.lists, reader);
    let plan = Plan {
        interfaces: kernel.interfaces.iter().map(|interface| interface.value.clone()).collect(),
        attach: kernel.attach,
        default: kernel.default.value,
        bans: BanBounds {
            max: u32::try_from(kernel.bans.max).unwrap_or(u32::MAX),
            max_ttl: kernel.bans.max_ttl,
            v4_prefix: u8::try_from(kernel.bans.v4_prefix).unwrap_or(u8::MAX),
            v6_prefix: u8::try_from(kernel.bans.v6_prefix).unwrap_or(u8::MAX),
        },
        lists: Arc::new(allow.lists.into_iter().map(|(_, list)| list).collect()),
    };
    (plan, ListSources { cache, sources: allow.sources })
}

/// An entry in shadow mode lets nobody in; and a list that is fetched is empty until it was, which an outage of
/// its server must not turn into a host that nobody reaches.
fn somebody_passes(kernel: &keys::Kernel, allow: &Lists, reader: &mut Reader<'_>) {
    let is_fetched = |list: &NewList| {
        let of_list = |source: &&ListSource| source.recipe.name == list.name;
        allow.sources.iter().filter(of_list).any(|source| matches!(source.origin, Origin::Url(_)))
    };
    let lets_in =
        |list: &NewList| !list.shadow && !is_fetched(list) && list.entries.iter().any(|entry| !entry.shadow);
    if kernel.default.value == DefaultVerdict::Drop && !allow.lists.iter().any(|(_, list)| lets_in(list)) {
        let message = "with `default: drop` and no entry in `allow` but what is fetched, nobody could reach this \
                       host; name the sources that may, those you administer it from among them";
        reader.error::<()>(kernel.default.place, message);
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
