//! The keys of routes.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use time::OffsetDateTime;

use super::{IsLlm, LlmRoute};
use crate::config::matching::{FieldsOf, PathOf, TestsBy};
use crate::config::notation::{
    CookieName, Count, DnsName, FieldName, FieldValue, FreeText, Host, MediaTypeName, MethodName, Moment,
    NameOf, NewHost, NewPath, Origin, PointerTo, Portion, Prefix, ProtocolName, RawText, Size, Span,
    WebAddress,
};
use crate::config::shape::{
    At, Choice, ListOf, Located, OneOrListOf, Optional, Or, OrEmpty, Required, record, section,
};
use crate::model::{FieldTemplate, HostPattern, MediaType, OriginPattern, PathPattern, Pointer, Test};

/// Conditions of one kind.
const MAX_TESTS: usize = 64;

record! {
    /// An entry of `routes`. It has one of `upstream`, `split`, `llm`, `redirect` and `respond`.
    Route {
        /// Which requests it takes. Left out, every request.
        r#match: Match = OrEmpty(section::<Match>()),
        /// The upstream that its requests are sent to.
        upstream: Option<Located<String>> = Optional(At(NameOf("an upstream"))),
        /// Several upstreams that share its requests by weight.
        split: Vec<Located<Share>> = OrEmpty(ListOf(At(section::<Share>()), 100)),
        /// Serve the APIs of LLM providers: requests in any of their dialects, by the model that they name. `true`, or a map
        /// with the keys below.
        llm: Option<Located<Option<LlmRoute>>> = Optional(At(IsLlm)),
        /// What keeps a client with the upstream of `split` that it was given.
        sticky: Option<Located<Sticky>> = Optional(At(section::<Sticky>())),
        /// An upstream that gets copies of requests, or a list of them. What it answers nobody sees, and no request waits for
        /// it.
        mirror: Vec<Located<Mirror>> = OrEmpty(OneOrListOf(ListOf(At(section::<Mirror>()), 4))),
        /// How the upstream sees its requests.
        rewrite: Option<Located<Rewrite>> = Optional(At(section::<Rewrite>())),
        /// Send clients elsewhere.
        redirect: Option<Located<Redirect>> = Optional(At(section::<Redirect>())),
        /// Answer without asking anybody.
        respond: Option<Located<Respond>> = Optional(At(section::<Respond>())),
        /// What the upstream sees differently of requests' headers.
        request_headers: Option<Changes> = Optional(section::<Changes>()),
        /// What clients see differently of answers' headers.
        response_headers: Option<ReplyChanges> = Optional(section::<ReplyChanges>()),
        /// Who may read answers from pages of other origins. Preflights are answered here, and what upstreams say of it is
        /// replaced.
        cors: Option<Located<CorsKeys>> = Optional(At(section::<CorsKeys>())),
        /// Tell clients that it is on its way out.
        deprecated: Option<Located<Deprecated>> = Optional(At(section::<Deprecated>())),
        /// The protocols that a connection may switch to when client and upstream agree (Upgrade). Left out, `websocket`.
        upgrades: Option<Vec<String>> = Optional(ListOf(ProtocolName, 16)),
    }
}

record! {
    /// `match` of a route. A request has to meet all of it.
    Match {
        /// Hosts, in any case and without a port. `*.example.com` is every name below example.com. Left out, every host.
        hosts: Vec<Located<HostPattern>> = OrEmpty(ListOf(At(Host), 1000)),
        /// The path: `/v1/users` is this path alone; `/v1/**` is /v1 and everything below it; `{id}` stands for any one
        /// segment; `{regex: "…"}` has to match the whole path.
        path: Located<PathPattern> = Or(At(PathOf), "/**"),
        /// Methods. Left out, every method.
        methods: Vec<Located<Method>> = OrEmpty(ListOf(At(MethodName), 64)),
        /// Header fields: a value, `{regex: "…"}` for the whole value, or `{present: true}` or `false`.
        headers: Vec<(HeaderName, Test)> = OrEmpty(TestsBy(FieldName, MAX_TESTS)),
        /// Parameters of the query, decoded; written like `headers`.
        query: Vec<(String, Test)> = OrEmpty(TestsBy(RawText(256), MAX_TESTS)),
        /// Cookies; written like `headers`.
        cookies: Vec<(String, Test)> = OrEmpty(TestsBy(CookieName, MAX_TESTS)),
        /// Media types of the body: one of them has to stand in Content-Type, with every parameter that is written here.
        content_types: Vec<MediaType> = OrEmpty(ListOf(MediaTypeName, 64)),
        /// Media types that clients ask for, such as application/vnd.acme.v2+json: one of them has to stand in Accept, and
        /// not with `q=0`. Ranges such as `*/*` do not count. Where several routes match, the client's preference decides.
        accepts: Vec<MediaType> = OrEmpty(ListOf(MediaTypeName, 64)),
        /// Fields of a body in JSON. It is read before the request has a route, and only if all the rest matches.
        body: Option<Located<Body>> = Optional(At(section::<Body>())),
        /// Where clients are, as trusted proxies say.
        sources: Vec<IpNet> = OrEmpty(ListOf(Prefix, 1000)),
        /// Listeners that they come by.
        listeners: Vec<Located<String>> = OrEmpty(ListOf(At(NameOf("a listener")), 64)),
        /// The name that they ask for in the handshake of TLS (SNI); written like `hosts`.
        server_names: Vec<HostPattern> = OrEmpty(ListOf(Host, 1000)),
    }
}

record! {
    /// `match.body` of a route
    Body {
        /// Bytes of it; more are answered 413. Of several routes for a host and path, the largest counts.
        max_size: usize = Or(Size("1B", "16MiB"), "64KiB"),
        /// From the head of the request to the end of its body. Later ones are answered 408.
        timeout: Duration = Or(Span("10ms", "1h"), "10s"),
        /// By JSON pointer (RFC 6901), such as /model or /user/tier; written like `headers`. Numbers are compared in their
        /// shortest form; null, objects and arrays are present and match no value.
        fields: Option<Vec<(Pointer, Test)>> = Required(TestsBy(PointerTo, MAX_TESTS)),
    }
}

record! {
    /// An entry of `split`
    Share {
        /// An upstream.
        upstream: Option<Located<String>> = Required(At(NameOf("an upstream"))),
        /// How many requests it gets, of all weights together. With 0 it gets none.
        weight: usize = Or(Count(0, 1_000_000), "1"),
    }
}

record! {
    /// `mirror` of a route
    Mirror {
        /// The upstream. Its requests have `X-Forwarded-Mirror` with the name of the route.
        upstream: Option<Located<String>> = Required(At(NameOf("an upstream"))),
        /// How many requests are copied.
        percent: u32 = Or(Portion, "100%"),
        /// From the head of the request to the end of the answer to the copy. What takes longer is given up.
        timeout: Duration = Or(Span("10ms", "1h"), "10s"),
        /// How much of a body may wait for the upstream. A copy that falls further behind is given up.
        buffer: usize = Or(Size("1KiB", "64MiB"), "256KiB"),
        /// Copies under way to the upstream, in each worker. Beyond, requests are not copied.
        max_concurrent: usize = Or(Count(1, 10_000), "64"),
    }
}

record! {
    /// `sticky` of a route. It has one of these.
    Sticky {
        /// A cookie with this name, which the gateway sets.
        cookie: Option<String> = Optional(CookieName),
        /// A field that clients send: who sends the same goes to the same, on every gateway.
        header: Option<HeaderName> = Optional(FieldName),
    }
}

record! {
    /// `rewrite` of a route
    Rewrite {
        /// The host that the upstream sees. It gets the client's in X-Forwarded-Host.
        host: Option<HeaderValue> = Optional(NewHost),
        /// The whole path; `{id}` stands for what the parameter of `match` stands for.
        path: Option<Located<String>> = Optional(At(NewPath)),
        /// What stands in the place of the path that `match` names, without what is below it. `/` takes it away.
        prefix: Option<Located<String>> = Optional(At(NewPath)),
    }
}

record! {
    /// `redirect` of a route. What is left out stays as it was asked for.
    Redirect {
        /// `http` or `https`.
        scheme: Option<bool> = Optional(Choice(&[("http", false), ("https", true)])),
        /// A host.
        host: Option<String> = Optional(DnsName),
        /// A port. Left out, the one that was asked for, or the usual one of another scheme or host.
        port: Option<usize> = Optional(Count(1, 65_535)),
        /// A path; as for `rewrite`.
        path: Option<Located<String>> = Optional(At(NewPath)),
        /// A prefix; as for `rewrite`.
        prefix: Option<Located<String>> = Optional(At(NewPath)),
        /// 301 and 302 may become a GET, 303 does, 307 and 308 do not; 301 and 308 are for ever.
        status: StatusCode = Or(
            Choice(&[
                ("301", StatusCode::MOVED_PERMANENTLY),
                ("302", StatusCode::FOUND),
                ("303", StatusCode::SEE_OTHER),
                ("307", StatusCode::TEMPORARY_REDIRECT),
                ("308", StatusCode::PERMANENT_REDIRECT),
            ]),
            "302"
        ),
    }
}

record! {
    /// `respond` of a route
    Respond {
        /// The status.
        status: usize = Or(Count(200, 599), "200"),
        /// The body.
        body: String = Or(FreeText(64 * 1024), ""),
        /// Its media type.
        content_type: HeaderValue = Or(FieldValue, "text/plain; charset=utf-8"),
    }
}

record! {
    /// `request_headers` of a route: what goes first, then what is set, then what is added. Values may
    /// have `{client.ip}`, `{request.method}`, `{request.host}`, `{request.path}`, `{request.scheme}`, `{request.id}`,
    /// `{tls.server_name}`, `{route}` and `{listener}` in them; `{{` is a brace.
    Changes {
        /// Fields that go.
        remove: Vec<Located<HeaderName>> = OrEmpty(ListOf(At(FieldName), 64)),
        /// Fields that have this value and no other.
        set: Vec<(HeaderName, Located<FieldTemplate>)> = OrEmpty(FieldsOf(64)),
        /// Values that come beside those that are there.
        add: Vec<(HeaderName, Located<FieldTemplate>)> = OrEmpty(FieldsOf(64)),
    }
}

record! {
    /// `response_headers` of a route, written as `request_headers` is
    ReplyChanges {
        /// Fields that go.
        remove: Vec<Located<HeaderName>> = OrEmpty(ListOf(At(FieldName), 64)),
        /// Fields that have this value and no other.
        set: Vec<(HeaderName, Located<FieldTemplate>)> = OrEmpty(FieldsOf(64)),
        /// Values that come beside those that are there.
        add: Vec<(HeaderName, Located<FieldTemplate>)> = OrEmpty(FieldsOf(64)),
        /// Change the errors of the gateway itself, too, such as 502; those of requests without a route stay as they are.
        always_errors: bool = Or(Choice(&[("true", true), ("false", false)]), "false"),
    }
}

record! {
    /// `deprecated` of a route. It has `since`, `sunset` or both; answers say so, those of the gateway itself, too.
    Deprecated {
        /// Since when, or from when on, clients should go elsewhere: Deprecation (RFC 9745).
        since: Option<OffsetDateTime> = Optional(Moment),
        /// When it will be gone: Sunset (RFC 8594).
        sunset: Option<OffsetDateTime> = Optional(Moment),
        /// Where to read more about it: Link with `rel="deprecation"`.
        link: Option<String> = Optional(WebAddress),
        /// Where to read more about its end: Link with `rel="sunset"`.
        sunset_link: Option<String> = Optional(WebAddress),
    }
}

record! {
    /// `cors` of a route
    CorsKeys {
        /// Origins: `https://app.example.com`, `https://*.example.com`, or `*` for everybody.
        origins: Option<Vec<Located<OriginPattern>>> = Required(ListOf(At(Origin), 1000)),
        /// Methods that pages may use. Left out, GET, HEAD and POST.
        methods: Vec<Located<Method>> = OrEmpty(ListOf(At(MethodName), 64)),
        /// Fields that pages may send beside the usual ones. Left out, those that they ask for.
        headers: Vec<HeaderName> = OrEmpty(ListOf(FieldName, 64)),
        /// Fields of answers that pages may read beside the usual ones.
        expose: Vec<HeaderName> = OrEmpty(ListOf(FieldName, 64)),
        /// Let browsers send cookies and the like.
        credentials: bool = Or(Choice(&[("true", true), ("false", false)]), "false"),
        /// How long browsers may remember what they were told.
        max_age: Duration = Or(Span("0s", "1d"), "10m"),
    }
}
