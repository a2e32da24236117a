//! The path of a request, stage by stage.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALT_SVC, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body as _;

use crate::acme::OPEN;
use crate::model::{Action, BodyBounds, HeaderChanges, LlmRoute};

use super::body::{RequestBody, ResponseBody};
use super::connection::Session;
use super::exchange::{Exchange, Reply};
use super::framing::Refusal;
use super::gather::{self, Gathered};
use super::incoming::Incoming;
use super::problem::{Kind, Problem};
use super::record::OK;
use super::request_id::{self, X_REQUEST_ID};
use super::route::{Content, Facts, Match};
use super::stream_tunnel::Connect;
use super::tunnel::Tunnel;
use super::upstream::{Delivery, Lease, Upstream};
use super::watch::{FOREVER, Watch};
use super::{
    action, cors, forwarded, grpc, grpc_web, headers, hop, llm, mirror, request, stream_tunnel, trace, tunnel,
};

/// Serves one request: the only place where the stages and their order are written down.
pub(super) async fn serve(
    session: Rc<Session>,
    watch: Rc<Watch>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let refusal = watch.count_request();
    let mut exchange = Exchange::new(session, watch, &request);
    let mut has_body = !request.body().is_end_stream();
    name(&mut exchange, &mut request);

    if let Some(refusal) = refusal {
        if let Some(record) = exchange.record() {
            record.is_unread();
        }
        return Ok(refuse(exchange, refused(refusal), has_body));
    }
    if let Err(problem) = request::admit(&mut request, exchange.listener().max_header_count) {
        return Ok(refuse(exchange, problem, has_body));
    }
    if let Some(proof) = OPEN.answer(request.uri().path()) {
        return Ok(answer(exchange, Response::new(proof.into()), has_body));
    }
    let (mut gathered, mut routed) = (None, route(&mut exchange, &request, Content::Unread));
    if let Ok(Routed::Unread(bounds)) = routed {
        gathered = match gather_body(&exchange, &mut request, bounds).await {
            Ok(gathered) => gathered,
            Err(problem) => return Ok(refuse(exchange, problem, has_body)),
        };
        has_body &= gathered.is_none();
        let content = gathered.as_ref().and_then(Gathered::text).map_or(Content::Other, Content::Json);
        routed = route(&mut exchange, &request, content);
    }
    let (upstream, changes) = match routed {
        Ok(Routed::Unread(_)) => return Ok(refuse(exchange, no_route(), has_body)),
        Ok(Routed::To(upstream, changes)) => (upstream, changes),
        Ok(Routed::Answered(response)) => return Ok(answer(exchange, response, has_body)),
        // Boxed: its task would make those of all other requests larger.
        Ok(Routed::Llm(settings, changes)) => {
            return Ok(Box::pin(llm::serve(exchange, request, gathered, settings, changes)).await);
        }
        Err(problem) => return Ok(refuse(exchange, problem, has_body)),
    };
    let upgrade = tunnel::asked(&request, exchange.upgrades());
    let is_connect = request.extensions().get::<Connect>().is_some();
    if is_connect && upgrade.is_none() {
        let problem = Problem::new(Kind::ConnectRefused, "WebSocket is not spoken here.");
        return Ok(refuse(exchange, problem, has_body));
    }
    let web = upstream.speaks_grpc().then(|| grpc_web::form(request.headers())).flatten();
    if (exchange.is_call() || web.is_some())
        && let Err(problem) = limit(&exchange, request.headers())
    {
        return Ok(refuse(exchange, problem, has_body));
    }
    let client = upstream.wants_client().then(|| client(&exchange, &request));
    let request = into_upstream(&exchange, &upstream, web, request, gathered);
    let mut request = prepare_request(&exchange, &upstream, upgrade.clone(), web, request);
    if let Some(changes) = changes {
        headers::apply(changes, request.headers_mut());
    }
    mirror::copy(&exchange, &mut request);
    let (now, ends) = (exchange.started(), exchange.session().ends());
    if let Some(record) = exchange.record() {
        record.goes_to(&upstream.settings().name);
    }
    let delivery = Delivery { watch: exchange.watch(), now, ends, client, trail: exchange.trail() };
    let sent = upstream.send(request, delivery).await;
    exchange.watch().interims_sent().await;
    let (response, lease) = match sent {
        Ok(answer) => answer,
        Err(kind) => {
            let problem = unanswered(exchange.watch(), kind);
            return Ok(refuse(exchange, problem, has_body));
        }
    };
    if let Some(upgrade) = upgrade
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
        && tunnel::agrees(response.headers(), &upgrade)
    {
        return Ok(switch(exchange, &upstream, response, lease, upgrade));
    }
    if let Err(problem) = check_response(&response, is_connect) {
        return Ok(refuse(exchange, problem, has_body));
    }
    exchange.answered(response.status());
    let idle = upstream.settings().idle_timeout;
    exchange.watch().downloads(exchange.started(), idle);
    // What is no answer to a call goes as it is.
    let web = web.filter(|_| grpc::is_call(response.headers()));
    let reply = std::mem::take(exchange.reply());
    let mut response = response.map(|body| ResponseBody::upstream(body, lease, exchange, web));
    prepare_response(response.headers_mut());
    prepare_reply(reply, response.headers_mut());
    if let Some(form) = web {
        grpc_web::write_response(response.headers_mut(), form);
    }
    // Each side has a version of its own; hyper speaks the client's.
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// Gives a request its name and its trace, where the listener says so.
fn name(exchange: &mut Exchange, request: &mut Request<Incoming>) {
    if exchange.listener().request_ids {
        let is_trusted = exchange.session().with_trusted(|peer, trusted| peer.is_trusted(trusted));
        let random = exchange.local().random();
        let id = request_id::ensure(request.headers_mut(), is_trusted, random);
        exchange.reply().request_id = Some(id);
    }
    if let Some(is_sampled) = exchange.listener().begin_traces {
        trace::ensure(request.headers_mut(), is_sampled, exchange.local().random());
    }
    if let Some(record) = exchange.record() {
        record.named(request.headers());
    }
}

/// What becomes of a request.
enum Routed {
    /// It goes to this upstream, with these changes to its header.
    To(Rc<Upstream>, Option<headers::Ready>),
    /// It is answered here.
    Answered(Response<Bytes>),
    /// It goes to whoever serves the model that it names, with these changes to its header.
    Llm(LlmRoute, Option<headers::Ready>),
    /// Its body says, and has to be read.
    Unread(BodyBounds),
}

fn no_route() -> Problem {
    Problem::new(Kind::NoRoute, "No route matches the request.")
}

/// Finds the route, and does what it says.
fn route(
    exchange: &mut Exchange,
    request: &Request<Incoming>,
    content: Content<'_>,
) -> Result<Routed, Problem> {
    let path = request::route_path(request.uri())?.path;
    let (local, session) = (Rc::clone(exchange.local()), Rc::clone(exchange.session()));
    let client = || session.with_trusted(|peer, trusted| peer.client(request.headers(), trusted));
    let server_name = session.server_name();
    let listener = exchange.listener_index();
    let host = request::host(request.headers());
    let preflight = cors::preflight(request);
    let find = |method, content| {
        let facts = Facts {
            method,
            headers: request.headers(),
            query: request.uri().query(),
            listener,
            server_name: server_name.as_deref(),
            client: &client,
            content,
        };
        local.router().find(host.as_deref(), &path, &facts)
    };
    if let Some(method) = &preflight
        && let Match::Route(index) = find(method, Content::Other)
        && let Some(cors) = local.route(index).and_then(|route| route.cors.as_ref())
    {
        exchange.routed(index);
        let refused =
            || Problem::new(Kind::CorsRefused, "Pages of this origin may not use this method here.");
        return cors::answer(cors, request.headers(), method).map(Routed::Answered).ok_or_else(refused);
    }
    let index = match find(request.method(), content) {
        Match::Route(route) => route,
        Match::OtherMethods(methods) => return Err(Problem::method_not_allowed(methods)),
        Match::Nothing => return Err(no_route()),
        Match::Unread(bounds) => return Ok(Routed::Unread(bounds)),
        Match::Unreadable(why) => return Err(Problem::new(Kind::BodyUnreadable, why)),
    };
    exchange.routed(index);
    tracing::debug!(client = %client(), method = %request.method(), path = %path, route = index, "routed");
    let route = local.route(index).ok_or_else(no_route)?;
    let is_secure = session.with_trusted(|peer, _| peer.is_secure());
    let make = |changes: &HeaderChanges| {
        let source = headers::Source {
            client: client(),
            method: request.method(),
            headers: request.headers(),
            has_id: local.listeners()[listener].request_ids,
            path: &path,
            is_secure,
            server_name: server_name.as_deref(),
            route: &route.name,
            listener: &local.listeners()[listener].name,
        };
        headers::make(changes, &source)
    };
    exchange.reply().cors = route.cors.as_ref().map(|cors| cors::said(cors, request.headers()));
    exchange.reply().deprecated = route.deprecated.clone();
    exchange.reply().changes = route.response_headers.as_ref().map(make);
    match &route.action {
        Action::Respond(answer) => Ok(Routed::Answered(action::respond(answer))),
        Action::Llm(settings) => Ok(Routed::Llm(*settings, route.request_headers.as_ref().map(make))),
        Action::Redirect(to) => {
            let pattern = &route.matches.path;
            Ok(Routed::Answered(action::redirect(to, request, pattern, &path, is_secure)))
        }
        Action::Forward(forward) => {
            let name_of = |upstream: usize| local.upstreams()[upstream].settings().name.clone();
            let (upstream, cookie) =
                action::choose(forward, name_of, request.headers(), local.random(), is_secure);
            exchange.reply().cookie = cookie;
            let upstream = local.serving(upstream, exchange.started()).ok_or_else(no_route)?;
            Ok(Routed::To(Rc::clone(upstream), route.request_headers.as_ref().map(make)))
        }
    }
}

/// A call of gRPC may say how long it may take, all of it.
fn limit(exchange: &Exchange, headers: &HeaderMap) -> Result<(), Problem> {
    let malformed = |grpc::Malformed| Problem::new(Kind::BadRequest, "The field grpc-timeout is malformed.");
    match grpc::timeout(headers).map_err(malformed)? {
        None => Ok(()),
        Some(Duration::ZERO) => Err(unanswered(exchange.watch(), Kind::DeadlineExceeded)),
        Some(timeout) => {
            exchange.watch().ends_by(exchange.started() + timeout.min(FOREVER));
            Ok(())
        }
    }
}

/// Reads the body that the route depends on; `None` if there is none, or it does not call itself JSON.
async fn gather_body(
    exchange: &Exchange,
    request: &mut Request<Incoming>,
    bounds: BodyBounds,
) -> Result<Option<Gathered>, Problem> {
    // What comes behind a CONNECT is another protocol.
    let is_connect = request.extensions().get::<Connect>().is_some();
    if is_connect || request.body().is_end_stream() || !gather::may_be_json(request.headers())? {
        return Ok(None);
    }
    let (watch, held) = (exchange.watch(), exchange.local().held_bodies());
    // In a box: every request's task would be as large as what only some of them need.
    Box::pin(gather::gather(request.body_mut(), bounds, exchange.started(), watch, held)).await.map(Some)
}

/// On whose behalf a request comes.
fn client(exchange: &Exchange, request: &Request<Incoming>) -> IpAddr {
    exchange.session().with_trusted(|peer, trusted| peer.client(request.headers(), trusted))
}

/// The request with its body as it is passed on, whether it was read before or comes by and by.
fn into_upstream(
    exchange: &Exchange,
    upstream: &Upstream,
    web: Option<grpc_web::Form>,
    request: Request<Incoming>,
    gathered: Option<Gathered>,
) -> Request<RequestBody> {
    let watch = Rc::clone(exchange.watch());
    let timeout = upstream.settings().response_timeout();
    request.map(|body| match (gathered, web) {
        (Some(gathered), _) => RequestBody::gathered(gathered, watch, timeout),
        (None, None) => RequestBody::new(body, watch, timeout),
        (None, Some(form)) => RequestBody::new(body, watch, timeout).in_form(form),
    })
}

/// The request as the upstream gets it: without what belongs to the client's connection, with what says on
/// whose behalf it comes. In this order, so that a client cannot name our fields in Connection.
fn prepare_request(
    exchange: &Exchange,
    upstream: &Upstream,
    upgrade: Option<HeaderValue>,
    web: Option<grpc_web::Form>,
    mut request: Request<RequestBody>,
) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_11;
    let is_chunked = request.body().size_hint().exact().is_none();
    let headers = request.headers_mut();
    hop::remove_from_request(headers);
    headers.remove(EXPECT);
    if let Some(upgrade) = upgrade {
        tunnel::write(headers, upgrade);
    }
    if let Some(form) = web {
        grpc_web::write_request(headers, form);
    }
    exchange.session().with_trusted(|peer, trusted| forwarded::write(headers, peer, trusted));
    if is_chunked {
        // hyper would say so by itself, but not for GET and HEAD: it would drop their bodies.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(route) = exchange.route() {
        action::rewrite(&mut request, route);
    }
    let headers = request.headers_mut();
    if !headers.contains_key(HOST) {
        // HTTP/1.0 asks for none, the request to the upstream needs one.
        let endpoint = upstream.endpoints().first().map(|endpoint| endpoint.authority()).unwrap_or_default();
        if let Ok(host) = HeaderValue::try_from(endpoint) {
            headers.insert(HOST, host);
        }
    }
    request
}

/// What may be read in two ways is not passed on.
pub(super) fn check_response(response: &Response<Incoming>, is_connect: bool) -> Result<(), Problem> {
    let bad = |detail| Err(Problem::new(Kind::UpstreamProtocol, detail));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return bad("The upstream switched protocols without being asked to.");
    }
    if is_connect && response.status().is_success() {
        // To the client it would say that the tunnel is there.
        return bad("The upstream did not switch protocols.");
    }
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return bad("The upstream's transfer coding is not supported.");
    }
    if response.headers().contains_key(CONTENT_LENGTH) {
        return bad("The upstream sent both Content-Length and Transfer-Encoding.");
    }
    Ok(())
}

/// The response as the client gets it.
pub(super) fn prepare_response(headers: &mut HeaderMap) {
    hop::remove(headers);
    // hyper has made sure that several of them agree.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(length), Some(_)) = (lengths.next(), lengths.next()) {
        let length = length.clone();
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// What the route does to the header of an answer, its own or its upstream's.
pub(super) fn prepare_reply(reply: Reply, headers: &mut HeaderMap) {
    let Reply { changes, cookie, cors, deprecated, request_id, alternative } = reply;
    if let Some(alternative) = alternative {
        // What an upstream says of itself is not said of the gateway.
        headers.insert(ALT_SVC, alternative);
    }
    if let Some(id) = request_id {
        headers.insert(X_REQUEST_ID, id);
    }
    if let Some(said) = cors {
        cors::apply(said, headers);
    }
    if let Some(deprecated) = deprecated {
        headers::deprecate(&deprecated, headers);
    }
    if let Some(cookie) = cookie {
        headers.append(SET_COOKIE, cookie);
    }
    if let Some(changes) = changes {
        headers::apply(changes, headers);
    }
}

/// Client and upstream have agreed on another protocol: the answer is the last that is HTTP.
fn switch(
    mut exchange: Exchange,
    upstream: &Upstream,
    response: Response<Incoming>,
    lease: Lease,
    upgrade: HeaderValue,
) -> Response<ResponseBody> {
    let Some((stream, read, slot)) = lease.into_switched() else {
        let detail = "The upstream agreed to switch protocols and did not.";
        return refuse(exchange, Problem::new(Kind::UpstreamProtocol, detail), false);
    };
    let (mut head, _) = response.into_parts();
    prepare_response(&mut head.headers);
    let (session, idle) = (Rc::clone(exchange.session()), upstream.settings().idle_timeout);
    exchange.because(OK);
    if exchange.is_stream() {
        stream_tunnel::agree(&mut head.status, &mut head.headers);
        exchange.answered(head.status);
        let tunnel = Tunnel { upstream: stream, read, exchange, idle, slot };
        return Response::from_parts(head, ResponseBody::Tunnel(Box::new(tunnel)));
    }
    tunnel::write(&mut head.headers, upgrade);
    exchange.answered(head.status);
    session.becomes(Tunnel { upstream: stream, read, exchange, idle, slot });
    Response::from_parts(head, ResponseBody::Nothing)
}

/// Answers with a problem.
pub(super) fn refuse(mut exchange: Exchange, problem: Problem, has_body: bool) -> Response<ResponseBody> {
    let closes = problem.closes() || has_body;
    let status = problem.status();
    exchange.because(problem.code());
    let mut response = if exchange.is_call() { grpc::answer(&problem) } else { problem.into_response() };
    // Pages that may read answers may read this one; what the route changes is about its answers, if it does not say more.
    let Reply { changes, cors, deprecated, request_id, alternative, .. } = std::mem::take(exchange.reply());
    let changes = changes.filter(|changes| changes.always_errors);
    let reply = Reply { changes, cookie: None, cors, deprecated, request_id, alternative };
    prepare_reply(reply, response.headers_mut());
    answer_as(exchange, response, status, closes)
}

/// Answers in the gateway's own words.
pub(super) fn answer(
    mut exchange: Exchange,
    mut response: Response<Bytes>,
    has_body: bool,
) -> Response<ResponseBody> {
    let status = response.status();
    prepare_reply(std::mem::take(exchange.reply()), response.headers_mut());
    answer_as(exchange, response, status, has_body)
}

/// A body that nobody read may still be on its way: the connection ends then, of HTTP/2 the stream alone.
pub(super) fn answer_as(
    mut exchange: Exchange,
    mut response: Response<Bytes>,
    counts_as: StatusCode,
    closes: bool,
) -> Response<ResponseBody> {
    exchange.answered(counts_as);
    if closes && !exchange.is_stream() {
        exchange.watch().linger();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|text| ResponseBody::own(text, exchange))
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Malformed(detail) => Problem::new(Kind::BadRequest, detail),
        Refusal::Preface => Problem::new(Kind::VersionUnknown, "HTTP/2 is not spoken here."),
        Refusal::Version => Problem::new(Kind::VersionUnknown, "Such a request is of HTTP/1.1 or HTTP/1.0."),
        Refusal::TooLarge => {
            Problem::new(Kind::HeadersTooLarge, "The header has more bytes or more fields than are taken.")
        }
        Refusal::TooSlow => Problem::new(Kind::HeaderTimeout, "The whole header did not arrive in time."),
    }
}

/// Why there is no response. When the request's body broke off, it is the client's doing.
pub(super) fn unanswered(watch: &Watch, kind: Kind) -> Problem {
    // Over HTTP/2 the upstream sees nothing but a reset.
    let kind = if watch.refusal().is_some() { Kind::BadRequest } else { kind };
    let detail = match (kind, watch.refusal()) {
        (Kind::BadRequest, refusal) => return Problem::broken_off(refusal),
        (Kind::BodyTimeout, _) => "The body stopped arriving.",
        (Kind::UpstreamProtocol, _) => "The upstream's response could not be read.",
        (Kind::UpstreamClosed, _) => "The upstream closed the connection before it answered.",
        (Kind::DeadlineExceeded, _) => "The call did not end in time.",
        (Kind::UpstreamTimeout, _) => "The upstream did not answer in time.",
        (Kind::UpstreamBreaker, _) => "Too many requests to the upstream failed lately.",
        (Kind::UpstreamOverloaded, _) => "The upstream has as many requests to answer as it may have.",
        (Kind::UpstreamUnhealthy, _) => "No server of the upstream is healthy.",
        (Kind::UpstreamTls, _) => "No server of the upstream could be spoken to under TLS.",
        (Kind::UpstreamConnectTimeout, _) => "No server of the upstream accepted a connection in time.",
        _ => "No server of the upstream accepts connections.",
    };
    Problem::new(kind, detail)
}
