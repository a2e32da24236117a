//! Pages of other origins: preflights are answered here, and answers say who may read them (the Fetch standard, section
//! 3.3).
//!
//! Who is not allowed gets no field that would allow him, and his browser keeps the answer from him; a preflight of his
//! is refused, so that whoever looks into it sees why. What upstreams say of it themselves is replaced.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::model::{Cors, OriginPattern};

/// The method that a preflight asks about; `None` of what is none.
pub(super) fn preflight<B>(request: &Request<B>) -> Option<Method> {
    if request.method() != Method::OPTIONS || !request.headers().contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(request.headers().get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// Answers a preflight; `None` if its origin may not.
pub(super) fn answer(cors: &Cors, asked: &HeaderMap, method: &Method) -> Option<Response<Bytes>> {
    let said = said(cors, asked);
    let is_allowed = said.origin.is_some() && cors.methods.contains(method);
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = cors.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let names = match cors.headers.as_slice() {
        // Those that were asked for: any list of them is one line of names already.
        [] => asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
        names => list(names),
    };
    let values = [
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::try_from(methods).ok()),
        (ACCESS_CONTROL_ALLOW_HEADERS, names),
        (ACCESS_CONTROL_MAX_AGE, Some(HeaderValue::from(cors.max_age.as_secs()))),
    ];
    headers.extend(values.into_iter().filter_map(|(name, value)| Some((name, value?))));
    apply(said, headers);
    for asked in [ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_REQUEST_HEADERS] {
        headers.append(VARY, HeaderValue::from(asked));
    }
    is_allowed.then_some(response)
}

/// What an answer says of who may read it.
#[derive(Debug)]
pub(super) struct Said {
    origin: Option<HeaderValue>,
    credentials: bool,
    expose: Option<HeaderValue>,
    /// Whether it says something else to others: caches have to know.
    varies: bool,
}

/// What answers to a request with this header say.
pub(super) fn said(cors: &Cors, asked: &HeaderMap) -> Said {
    let everybody = cors.origins.contains(&OriginPattern::Any);
    let origin = asked.get(ORIGIN).filter(|origin| allows(cors, origin));
    // A browser takes no `*` with credentials; configuration sees to it that nobody means both.
    let origin = if everybody { origin.map(|_| HeaderValue::from_static("*")) } else { origin.cloned() };
    let expose = origin.as_ref().and_then(|_| list(&cors.expose));
    Said { credentials: cors.credentials && origin.is_some(), origin, expose, varies: !everybody }
}

fn allows(cors: &Cors, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let origin = origin.to_ascii_lowercase();
    cors.origins.iter().any(|pattern| pattern.matches(&origin))
}

/// Writes that into an answer, in place of what the upstream said.
pub(super) fn apply(said: Said, headers: &mut HeaderMap) {
    let Said { origin, credentials, expose, varies } = said;
    let credentials = credentials.then(|| HeaderValue::from_static("true"));
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials),
        (ACCESS_CONTROL_EXPOSE_HEADERS, expose),
    ] {
        match value {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
    if varies && !headers.get_all(VARY).iter().any(names_origin) {
        headers.append(VARY, HeaderValue::from(ORIGIN));
    }
}

fn names_origin(vary: &HeaderValue) -> bool {
    let mut names = vary.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}

fn list(names: &[HeaderName]) -> Option<HeaderValue> {
    if names.is_empty() {
        return None;
    }
    HeaderValue::try_from(names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let pattern = |text: &&str| match text.split_once("*.") {
            _ if *text == "*" => OriginPattern::Any,
            Some((begin, end)) => OriginPattern::Wildcard(begin.to_owned(), format!(".{end}")),
            None => OriginPattern::Exact((*text).to_owned()),
        };
        Cors {
            origins: origins.iter().map(pattern).collect(),
            methods: vec![Method::GET, Method::PUT],
            headers: Vec::new(),
            expose: vec![HeaderName::from_static("x-total")],
            credentials,
            max_age: Duration::from_secs(600),
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_answer_says_who_may_read_it() {
        let (exact, wild, any) = (&["https://app.test"][..], &["https://*.app.test"][..], &["*"][..]);
        let with_port = &["https://*.app.test:8443"][..];
        for (name, origins, credentials, origin, expected, varies) in [
            ("the origin", exact, false, Some("https://app.test"), Some("https://app.test"), true),
            ("in any case", exact, false, Some("https://APP.test"), Some("https://APP.test"), true),
            ("another scheme", exact, false, Some("http://app.test"), None, true),
            ("a port", exact, false, Some("https://app.test:444"), None, true),
            ("one that begins alike", exact, false, Some("https://app.test.evil"), None, true),
            ("one that ends alike", exact, false, Some("https://evilapp.test"), None, true),
            ("no origin", exact, false, None, None, true),
            ("none at all", exact, false, Some("null"), None, true),
            ("none, allowed", &["null"], false, Some("null"), Some("null"), true),
            ("a label", wild, false, Some("https://a.app.test"), Some("https://a.app.test"), true),
            ("two labels", wild, false, Some("https://b.a.app.test"), Some("https://b.a.app.test"), true),
            ("no label", wild, false, Some("https://app.test"), None, true),
            ("an empty label", wild, false, Some("https://.app.test"), None, true),
            ("a slash between", wild, false, Some("https://evil/.app.test"), None, true),
            ("a user between", wild, false, Some("https://evil@a.app.test"), None, true),
            ("another port", wild, false, Some("https://a.app.test:1"), None, true),
            (
                "its port",
                with_port,
                false,
                Some("https://a.app.test:8443"),
                Some("https://a.app.test:8443"),
                true,
            ),
            (
                "one of several",
                &["https://a.test", "https://b.test"],
                false,
                Some("https://b.test"),
                Some("https://b.test"),
                true,
            ),
            ("everybody", any, false, Some("https://x.test"), Some("*"), false),
            ("everybody, no origin", any, false, None, None, false),
            ("with credentials", exact, true, Some("https://app.test"), Some("https://app.test"), true),
            ("credentials for another", exact, true, Some("https://b.test"), None, true),
        ] {
            let asked = headers(&origin.map(|origin| ("origin", origin)).into_iter().collect::<Vec<_>>());
            let mut answer = headers(&[
                ("access-control-allow-origin", "https://upstream.test"),
                ("access-control-allow-credentials", "true"),
                ("access-control-expose-headers", "x-upstream"),
                ("vary", "accept-encoding"),
            ]);
            apply(said(&cors(origins, credentials), &asked), &mut answer);
            let value = |name: &str| answer.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(value("access-control-allow-origin"), expected, "{name}");
            let credentials = (credentials && expected.is_some()).then_some("true");
            assert_eq!(value("access-control-allow-credentials"), credentials, "{name}");
            assert_eq!(value("access-control-expose-headers"), expected.map(|_| "x-total"), "{name}");
            assert_eq!(answer.get_all("vary").iter().any(|vary| vary == "origin"), varies, "{name}");
        }
    }

    #[test]
    fn preflights_are_told_from_other_requests() {
        let method = "access-control-request-method";
        for (name, options, fields, expected) in [
            ("a preflight", true, &[("origin", "https://a.test"), (method, "PUT")][..], Some("PUT")),
            ("no origin", true, &[(method, "PUT")], None),
            ("no method", true, &[("origin", "https://a.test")], None),
            ("a method that is none", true, &[("origin", "https://a.test"), (method, "P T")], None),
            ("another method", false, &[("origin", "https://a.test"), (method, "PUT")], None),
        ] {
            let mut request = Request::new(());
            *request.method_mut() = if options { Method::OPTIONS } else { Method::GET };
            *request.headers_mut() = headers(fields);
            assert_eq!(preflight(&request).as_ref().map(Method::as_str), expected, "{name}");
        }
    }

    #[test]
    fn a_preflight_is_answered_or_refused() {
        let setting = cors(&["https://app.test"], true);
        let named = Cors {
            headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
            ..setting.clone()
        };
        let asked = headers(&[("origin", "https://app.test"), ("access-control-request-headers", "x-b,x-c")]);
        for (name, setting, asked, method, expected) in [
            ("allowed", &setting, &asked, Method::PUT, Some("x-b,x-c")),
            ("fields by name", &named, &asked, Method::GET, Some("x-a, x-b")),
            ("another method", &setting, &asked, Method::DELETE, None),
            ("another origin", &setting, &headers(&[("origin", "https://b.test")]), Method::GET, None),
        ] {
            let answer = answer(setting, asked, &method);
            let answer = answer.as_ref().map(|answer| {
                assert_eq!(answer.status(), StatusCode::NO_CONTENT);
                assert_eq!(answer.headers()["access-control-allow-methods"], "GET, PUT");
                assert_eq!(answer.headers()["access-control-allow-credentials"], "true");
                assert_eq!(answer.headers()["access-control-max-age"], "600");
                assert_eq!(answer.headers().get_all("vary").iter().count(), 3);
                answer.headers()["access-control-allow-headers"].to_str().unwrap()
            });
            assert_eq!(answer, expected, "{name}");
        }
    }
}
