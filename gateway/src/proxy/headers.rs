//! What a route changes of header fields, on the way to the upstream and on the way back.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{HOST, LINK};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::model::{Deprecation, FieldPart, FieldTemplate, HeaderChanges, Variable};

use super::request_id::X_REQUEST_ID;

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// What values can be made of, for one request.
pub(super) struct Source<'a> {
    pub(super) client: IpAddr,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// Whether X-Request-Id is the gateway's word, or that of whom it trusts.
    pub(super) has_id: bool,
    pub(super) path: &'a str,
    pub(super) is_secure: bool,
    pub(super) server_name: Option<&'a str>,
    pub(super) route: &'a str,
    pub(super) listener: &'a str,
}

/// Changes whose values are made: they can be applied when the request is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ready {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    pub(super) always_errors: bool,
}

/// Makes the values. One that cannot stand in a field, because of what a client sent, is left out.
pub(super) fn make(changes: &HeaderChanges, source: &Source<'_>) -> Ready {
    let value = |template: &FieldTemplate| match template {
        FieldTemplate::Fixed(value) => Some(value.clone()),
        FieldTemplate::Made(parts) => made(parts, source),
    };
    let all = |fields: &[(HeaderName, FieldTemplate)]| {
        fields.iter().filter_map(|(name, template)| Some((name.clone(), value(template)?))).collect()
    };
    Ready {
        remove: changes.remove.clone(),
        set: all(&changes.set),
        add: all(&changes.add),
        always_errors: changes.always_errors,
    }
}

fn made(parts: &[FieldPart], source: &Source<'_>) -> Option<HeaderValue> {
    let mut text = String::new();
    for part in parts {
        match part {
            FieldPart::Text(fixed) => text.push_str(fixed),
            FieldPart::Variable(variable) => match variable {
                Variable::ClientIp => drop(write!(text, "{}", source.client)),
                Variable::Method => text.push_str(source.method.as_str()),
                Variable::Host => text.push_str(source.headers.get(HOST)?.to_str().ok()?),
                Variable::Path => text.push_str(source.path),
                Variable::Scheme => text.push_str(if source.is_secure { "https" } else { "http" }),
                Variable::ServerName => text.push_str(source.server_name.unwrap_or_default()),
                Variable::RequestId => {
                    let id = source.headers.get(X_REQUEST_ID).filter(|_| source.has_id);
                    text.push_str(id?.to_str().ok()?);
                }
                Variable::Route => text.push_str(source.route),
                Variable::Listener => text.push_str(source.listener),
            },
        }
    }
    HeaderValue::try_from(text).ok()
}

/// Changes a header.
pub(super) fn apply(ready: Ready, headers: &mut HeaderMap) {
    for name in ready.remove {
        headers.remove(name);
    }
    for (name, value) in ready.set {
        headers.insert(name, value);
    }
    for (name, value) in ready.add {
        headers.append(name, value);
    }
}

/// Says that the route is on its way out; what it says of that counts more than what its upstream does.
pub(super) fn deprecate(deprecated: &Deprecation, headers: &mut HeaderMap) {
    for (name, value) in [(DEPRECATION, &deprecated.since), (SUNSET, &deprecated.sunset)] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    for link in &deprecated.links {
        headers.append(LINK, link.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_made_of_the_request_and_applied_in_order() {
        let variable = |variable| {
            FieldTemplate::Made(vec![FieldPart::Text("<".to_owned()), FieldPart::Variable(variable)])
        };
        let name = HeaderName::from_static;
        let mut asked = HeaderMap::new();
        asked.insert(HOST, HeaderValue::from_static("a.test:1"));
        asked.insert(X_REQUEST_ID, HeaderValue::from_static("id-7"));
        let source = Source {
            client: "2001:db8::1".parse().unwrap(),
            method: &Method::PUT,
            headers: &asked,
            has_id: true,
            path: "/a/b",
            is_secure: true,
            server_name: Some("a.test"),
            route: "users",
            listener: "web",
        };
        for (what, expected) in Variable::ALL.iter().map(|(_, what)| *what).zip([
            "<2001:db8::1",
            "<PUT",
            "<a.test:1",
            "</a/b",
            "<https",
            "<a.test",
            "<id-7",
            "<users",
            "<web",
        ]) {
            let changes =
                HeaderChanges { set: vec![(name("x"), variable(what))], ..HeaderChanges::default() };
            let mut headers = HeaderMap::new();
            apply(make(&changes, &source), &mut headers);
            assert_eq!(headers["x"], expected);
        }
        let fixed = |text| FieldTemplate::Fixed(HeaderValue::from_static(text));
        let changes = HeaderChanges {
            remove: vec![name("a"), name("c")],
            set: vec![(name("b"), fixed("new")), (name("c"), fixed("set"))],
            add: vec![(name("d"), fixed("2"))],
            ..HeaderChanges::default()
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", "1"), ("b", "2"), ("c", "1"), ("d", "1")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        apply(make(&changes, &source), &mut headers);
        let all: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(all, [("d", "1"), ("d", "2"), ("b", "new"), ("c", "set")]);
    }

    #[test]
    fn a_value_that_cannot_be_is_left_out() {
        let changes = HeaderChanges {
            set: vec![(
                HeaderName::from_static("x"),
                FieldTemplate::Made(vec![FieldPart::Variable(Variable::Host)]),
            )],
            ..HeaderChanges::default()
        };
        let source = Source {
            client: "192.0.2.1".parse().unwrap(),
            method: &Method::GET,
            headers: &HeaderMap::new(),
            has_id: true,
            path: "/",
            is_secure: false,
            server_name: None,
            route: "r",
            listener: "l",
        };
        assert_eq!(make(&changes, &source), Ready::default());
    }
}
