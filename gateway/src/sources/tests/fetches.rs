//! One fetch at a time: what a server may do, and what is made of it.

use std::time::Duration;

use super::server::{Authority, Certificate, Reply, Server};
use super::url;
use crate::sources::Url;
use crate::sources::fetch::{Fetched, Validators, fetch};

/// What a fetch is expected to come to.
enum Expected {
    List(&'static str),
    Same,
    /// The error has these words.
    Fails(&'static [&'static str]),
}

use Expected::{Fails, List, Same};

struct Case {
    name: &'static str,
    certificate: Certificate,
    script: Vec<Reply>,
    /// Whether a copy is there to be asked about.
    known: bool,
    expected: Expected,
}

fn case(name: &'static str, script: Vec<Reply>, expected: Expected) -> Case {
    Case { name, certificate: Certificate::Good, script, known: false, expected }
}

fn raw(text: &str) -> Reply {
    Reply::Raw(text.to_owned())
}

fn bodies() -> Vec<Case> {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let full = format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "x".repeat(100));
    let hundred: &'static str = "x".repeat(100).leak();
    let too_large: &[&str] = &["larger than max_bytes, which is 100"];
    vec![
        case("a list", vec![Reply::list("192.0.2.1", "\"a\"")], List("192.0.2.1")),
        case("an empty list", vec![Reply::list("", "\"a\"")], List("")),
        case("chunked", vec![raw(&format!("{chunked}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))], List("abcde")),
        case("without a length, orderly", vec![raw("HTTP/1.0 200 OK\r\n\r\nabc")], List("abc")),
        case("as large as may be", vec![raw(&full)], List(hundred)),
        case(
            "too large by its length",
            // Nothing follows the head: the length alone has to be enough.
            vec![Reply::Stall("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n".to_owned())],
            Fails(too_large),
        ),
        case(
            "too large without a length",
            vec![Reply::Stall(format!("{chunked}65\r\n{}\r\n", "x".repeat(101)))],
            Fails(too_large),
        ),
        case(
            "cut short of its length",
            vec![raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")],
            Fails(&["cut short after 3 bytes of 10"]),
        ),
        case(
            "cut short of a chunk",
            vec![raw(&format!("{chunked}a\r\nabc"))],
            Fails(&["cut short after 3 bytes"]),
        ),
        case(
            "cut short between chunks",
            vec![raw(&format!("{chunked}3\r\nabc\r\n"))],
            Fails(&["cut short after 3 bytes"]),
        ),
        case(
            "torn without a length",
            vec![Reply::Torn("HTTP/1.0 200 OK\r\n\r\nabc".to_owned())],
            Fails(&["cut short after 3 bytes", "the connection was closed"]),
        ),
        case(
            "compressed all the same",
            vec![raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")],
            Fails(&["encoded as gzip"]),
        ),
    ]
}

fn answers() -> Vec<Case> {
    let known = |case: Case| Case { known: true, ..case };
    let turns = |count: usize| vec![Reply::redirect("/again"); count];
    let then_list = |mut replies: Vec<Reply>| {
        replies.push(Reply::list("abc", "\"a\""));
        replies
    };
    vec![
        known(case("the same as before", vec![Reply::not_modified()], Same)),
        known(case("another one than before", vec![Reply::list("abc", "\"b\"")], List("abc"))),
        case("the same as nothing", vec![Reply::not_modified()], Fails(&["answers 304"])),
        case("a failing server", vec![Reply::status("500 Oops")], Fails(&["answers 500"])),
        case("no content", vec![Reply::status("204 No Content")], Fails(&["answers 204", "200"])),
        case("a redirect", then_list(turns(1)), List("abc")),
        case("three redirects", then_list(turns(3)), List("abc")),
        case("four redirects", then_list(turns(4)), Fails(&["more than 3 redirects"])),
        case("a loop", turns(1), Fails(&["more than 3 redirects"])),
        case(
            "from https to http",
            then_list(vec![Reply::redirect("http://127.0.0.1:9/list")]),
            Fails(&["redirect from https://127.0.0.1", "from https to http"]),
        ),
        case(
            "from https to http elsewhere",
            then_list(vec![Reply::redirect("http://192.0.2.1/list")]),
            Fails(&["redirect from https://127.0.0.1", "lists are fetched by https"]),
        ),
        case("a redirect to nowhere", vec![Reply::status("302 Found")], Fails(&["does not say where to"])),
        case("not HTTP", vec![raw("SSH-2.0-x\r\n\r\n")], Fails(&["does not answer in HTTP"])),
        case("no answer", vec![raw("")], Fails(&["does not answer in HTTP"])),
        case("silence", vec![Reply::Stall(String::new())], Fails(&["longer than its timeout"])),
        case(
            "silence within a body",
            vec![Reply::Stall("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_owned())],
            Fails(&["longer than its timeout"]),
        ),
    ]
}

fn certificates() -> Vec<Case> {
    let row = |name, certificate, words| Case {
        certificate,
        ..case(name, vec![Reply::list("abc", "\"a\"")], Fails(words))
    };
    vec![
        row("expired", Certificate::Expired, &["certificate of 127.0.0.1:", "it has expired"]),
        row("not valid yet", Certificate::NotYet, &["not valid yet", "clock"]),
        row("for another name", Certificate::OtherName, &["it is for another name"]),
        row("by another authority", Certificate::OtherAuthority, &["no authority that this host trusts"]),
        row("no TLS at all", Certificate::None, &["there is no TLS with 127.0.0.1:"]),
    ]
}

#[tokio::test]
async fn a_fetch_brings_a_whole_list_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    for case in [bodies(), answers(), certificates()].into_iter().flatten() {
        let server = Server::start(&authority, case.certificate, &case.script).await;
        let mut url = url(server.url("/list"), &authority.file);
        // Long enough for every server that answers, and waited for only with those that do not.
        if matches!(case.expected, Fails(["longer than its timeout"])) {
            url.timeout = Duration::from_millis(300);
        }
        let etag = case.known.then(|| "\"same\"".to_owned());
        let known = Validators { etag, last_modified: None };
        match (fetch(&url, &known).await, case.expected) {
            (Ok(Fetched::Body { bytes, .. }), List(list)) => {
                assert_eq!(bytes, list.as_bytes(), "{}", case.name)
            }
            (Ok(Fetched::NotModified), Same) => {}
            (Err(error), Fails(words)) => {
                let text = error.to_string();
                for word in words {
                    assert!(text.contains(word), "{}: {text}", case.name);
                }
            }
            (got, _) => panic!("{}: {got:?}", case.name),
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let server = Server::start(&authority, Certificate::Good, &[Reply::not_modified()]).await;
    let closed = server.port;
    server.stop().await;
    let label = "x".repeat(64);
    let cases = [
        (format!("https://127.0.0.1:{closed}/"), "cannot be reached: it refuses the connection"),
        // A label of more than 63 characters is in no name service, so none is asked.
        (format!("https://{label}.invalid/"), "cannot be resolved"),
        ("http://192.0.2.1/".to_owned(), "lists are fetched by https"),
        ("https://".to_owned(), "not a URL"),
    ];
    for (address, words) in cases {
        let error = fetch(&url(address.clone(), &authority.file), &Validators::default()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{address}: {error}");
    }
    for (name, text) in
        [("absent", None), ("empty", Some("")), ("broken", Some("-----BEGIN CERTIFICATE-----\n!"))]
    {
        let ca = dir.path().join(name);
        if let Some(text) = text {
            std::fs::write(&ca, text).unwrap();
        }
        let error =
            fetch(&url("https://127.0.0.1:1/".to_owned(), &ca), &Validators::default()).await.unwrap_err();
        assert!(error.to_string().contains("the authorities in"), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_request_asks_for_what_is_new_with_credentials_and_uncompressed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let server = Server::start(&authority, Certificate::Good, &[Reply::status("500 Oops")]).await;
    let address = format!("https://me:secret@127.0.0.1:{}/list?token=secret", server.port);
    let known = Validators { etag: Some("W/\"a\"".to_owned()), last_modified: Some("Tue".to_owned()) };
    let url = url(address, &authority.file);
    let error = fetch(&url, &known).await.unwrap_err();
    let head = server.seen()[0].head.to_ascii_lowercase();
    for line in [
        "get /list?token=secret http/1.1\r\n".to_owned(),
        format!("host: 127.0.0.1:{}\r\n", server.port),
        "authorization: basic bwu6c2vjcmv0\r\n".to_owned(),
        "if-none-match: w/\"a\"\r\n".to_owned(),
        "if-modified-since: tue\r\n".to_owned(),
        "accept-encoding: identity\r\n".to_owned(),
    ] {
        assert!(head.contains(&line), "{line:?} is not in {head:?}");
    }
    // The system's authorities alone, if it has any, know nothing of the one of this test.
    let stranger = fetch(&Url { ca: None, ..url.clone() }, &known).await.unwrap_err().to_string();
    let untrusted = ["no authority that this host trusts", "this system has no root certificates"];
    assert!(untrusted.iter().any(|words| stranger.contains(words)), "{stranger}");
    for shown in [error.to_string(), format!("{url:?}")] {
        assert!(!shown.contains("secret"), "{shown}");
    }
    // This host itself may be asked without TLS.
    let plain = Server::start(&authority, Certificate::None, &[Reply::list("abc", "\"a\"")]).await;
    for host in ["127.0.0.1", "localhost"] {
        let url = super::url(format!("http://{host}:{}/", plain.port), &authority.file);
        assert!(matches!(fetch(&url, &known).await, Ok(Fetched::Body { .. })), "{host}");
    }
}
