//! Whole sources: what reaches the sink, what is kept, and what is said.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::server::{Authority, Certificate, Reply, Server};
use super::url;
use crate::observe::Exposition;
use crate::observe::metrics::Recorder;
use crate::sources::{
    Limits, Offered, Origin, Sink, Source, SourceState, SourceStatus, Sources, Url, describe, last_good,
};

const LIMITS: Limits =
    Limits { look: Duration::from_millis(20), backoff: Duration::from_millis(50), file_bytes: 64 };

/// Does with bytes what they say, and remembers them.
#[derive(Default)]
struct Obedient {
    offers: Mutex<Vec<(String, String)>>,
}

impl Sink for Obedient {
    fn offer(&self, name: &str, bytes: Vec<u8>) -> Offered {
        let text = String::from_utf8(bytes).unwrap();
        let mut offers = self.offers.lock().unwrap();
        let same = offers.iter().rev().find(|(by, _)| by == name).is_some_and(|(_, last)| *last == text);
        offers.push((name.to_owned(), text.clone()));
        drop(offers);
        match text.split(' ').next() {
            Some("hold") => Offered::Held { why: "half of it would go".to_owned() },
            Some("refuse") => Offered::Refused { why: "line 1 is no prefix".to_owned() },
            Some("panic") => panic!("the sink breaks off"),
            _ if same => Offered::Unchanged,
            _ => Offered::Applied,
        }
    }
}

impl Obedient {
    fn offers(&self) -> Vec<String> {
        self.offers.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }
}

/// A directory, an authority and a sink: what a test of sources needs beside a server.
struct Bench {
    dir: tempfile::TempDir,
    authority: Authority,
    sink: Arc<Obedient>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path());
        Self { dir, authority, sink: Arc::default() }
    }

    async fn server(&self, script: &[Reply]) -> Server {
        Server::start(&self.authority, Certificate::Good, script).await
    }

    /// Where copies are kept; not there before sources start.
    fn copies(&self) -> PathBuf {
        self.dir.path().join("state/lists")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self, name: &str, address: String) -> Source {
        Source { name: name.to_owned(), origin: Origin::Url(url(address, &self.authority.file)) }
    }

    fn start(&self, sources: Vec<Source>) -> Sources {
        Sources::start_within(sources, self.copies(), Arc::clone(&self.sink) as Arc<dyn Sink>, LIMITS)
    }

    /// Waits until the sink has had this many offers.
    async fn offers(&self, count: usize) -> Vec<String> {
        until("offers", || self.sink.offers().len() >= count).await;
        self.sink.offers()
    }
}

fn file(name: &str, path: &Path) -> Source {
    Source { name: name.to_owned(), origin: Origin::File { path: path.to_owned() } }
}

fn rarely(mut source: Source) -> Source {
    if let Origin::Url(Url { refresh, .. }) = &mut source.origin {
        *refresh = Duration::from_secs(3600);
    }
    source
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "waiting for {what} took too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn status(sources: &Sources) -> SourceStatus {
    sources.status().remove(0)
}

/// Waits until the only source is in a state whose reason has these words.
async fn settles(sources: &Sources, state: SourceState, words: &str) {
    let fits = || {
        let now = status(sources);
        now.state == state && now.last_error.unwrap_or_default().contains(words)
    };
    until(&format!("{state:?} {words:?}"), fits).await;
}

#[tokio::test]
async fn a_list_is_fetched_again_only_when_it_has_changed() {
    let bench = Bench::new();
    let (one, two) = (Reply::list("one", "\"1\""), Reply::list("two", "\"2\""));
    let script = [one, Reply::not_modified(), two, Reply::not_modified()];
    let server = bench.server(&script).await;
    let address = server.url("/list");
    let sources = bench.start(vec![bench.source("drop", address.clone())]);
    assert_eq!(bench.offers(2).await, ["one", "two"]);
    until("the fourth request", || server.seen().len() >= 5).await;
    // What has not changed is not offered.
    assert_eq!(bench.sink.offers(), ["one", "two"]);
    let asked = |index: usize| server.seen()[index].head.to_ascii_lowercase();
    for (index, etag) in [(0, None), (1, Some("\"1\"")), (2, Some("\"1\"")), (3, Some("\"2\""))] {
        match etag {
            None => assert!(!asked(index).contains("if-none-match"), "request {index}"),
            Some(etag) => {
                assert!(asked(index).contains(&format!("if-none-match: {etag}\r\n")), "request {index}")
            }
        }
    }
    assert!(asked(1).contains("if-modified-since: tue, 24 nov 2026"));
    let now = status(&sources);
    assert_eq!((now.state, now.last_error), (SourceState::Ok, None));
    assert!(now.last_ok_ms.is_some() && now.next_ms > now.last_ok_ms);
    assert_eq!(last_good(&bench.copies(), &address).unwrap(), b"two");
    // Nothing is asked for a list that is not followed any more.
    sources.replace(Vec::new());
    tokio::time::sleep(LIMITS.backoff).await;
    let asked = server.seen().len();
    tokio::time::sleep(6 * LIMITS.backoff).await;
    assert_eq!(server.seen().len(), asked);
}

#[tokio::test]
async fn a_start_without_the_server_has_the_last_good_copy() {
    let bench = Bench::new();
    let server = bench.server(&[Reply::list("one", "\"1\"")]).await;
    let address = server.url("/list");
    let source = bench.source("drop", address.clone());
    let sources = bench.start(vec![source.clone()]);
    bench.offers(1).await;
    settles(&sources, SourceState::Ok, "").await;
    drop(sources);
    server.stop().await;
    assert_eq!(last_good(&bench.copies(), &address).unwrap(), b"one");
    let sources = bench.start(vec![source]);
    settles(&sources, SourceState::Failing, "refuses the connection").await;
    assert_eq!(last_good(&bench.copies(), &address).unwrap(), b"one");
    assert_eq!(last_good(&bench.copies(), "https://other.example/"), None);
}

#[tokio::test]
async fn a_start_with_the_same_list_offers_the_copy() {
    let bench = Bench::new();
    let server = bench.server(&[Reply::list("one", "\"1\""), Reply::not_modified()]).await;
    let source = bench.source("drop", server.url("/list"));
    let sources = bench.start(vec![source.clone()]);
    bench.offers(1).await;
    until("304", || server.seen().len() >= 3).await;
    assert_eq!(bench.sink.offers().len(), 1);
    drop(sources);
    let _sources = bench.start(vec![source]);
    assert_eq!(bench.offers(2).await, ["one", "one"]);
}

#[tokio::test]
async fn a_damaged_copy_is_fetched_anew() {
    let bench = Bench::new();
    let server = bench.server(&[Reply::list("one", "\"1\"")]).await;
    let address = server.url("/list");
    let source = rarely(bench.source("drop", address.clone()));
    let sources = bench.start(vec![source.clone()]);
    settles(&sources, SourceState::Ok, "").await;
    drop(sources);
    let body = std::fs::read_dir(bench.copies())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_none())
        .unwrap();
    std::fs::write(&body, "0ne").unwrap();
    assert_eq!(last_good(&bench.copies(), &address), None);
    let _sources = bench.start(vec![source]);
    bench.offers(2).await;
    assert!(!server.seen()[1].head.to_ascii_lowercase().contains("if-none-match"));
    until("a whole copy", || last_good(&bench.copies(), &address).is_some()).await;
}

#[tokio::test]
async fn failures_back_off_and_end() {
    let bench = Bench::new();
    let down = Reply::status("500 Oops");
    let script = [down.clone(), down.clone(), down.clone(), Reply::list("one", "\"1\"")];
    let server = bench.server(&script).await;
    let source = rarely(bench.source("drop", server.url("/list")));
    let sources = bench.start(vec![source]);
    settles(&sources, SourceState::Failing, "answers 500").await;
    assert_eq!(bench.offers(1).await, ["one"]);
    settles(&sources, SourceState::Ok, "").await;
    let seen = server.seen();
    for (index, least_ms) in [(1, 50), (2, 100), (3, 200)] {
        let wait = seen[index].at - seen[index - 1].at;
        assert!(wait >= Duration::from_millis(least_ms), "the wait before request {index} was {wait:?}");
    }
    // Asked for, it does not wait for its hour.
    server.answer(&[Reply::list("two", "\"2\"")]);
    assert!(sources.refresh_now("drop") && !sources.refresh_now("none"));
    assert_eq!(bench.offers(2).await, ["one", "two"]);
}

#[tokio::test]
async fn only_what_is_accepted_becomes_the_last_good_copy() {
    // What is offered second, the state after that, what it says, and what is held.
    let cases: &[(&str, SourceState, &str, Option<&[u8]>)] = &[
        ("two", SourceState::Ok, "", None),
        ("hold two", SourceState::Held, "half of it would go", Some(b"hold two")),
        ("refuse two", SourceState::Failing, "line 1 is no prefix", None),
        ("panic two", SourceState::Failing, "the work broke off", None),
    ];
    for (second, state, words, held) in cases {
        let bench = Bench::new();
        let server = bench.server(&[Reply::list("one", "\"1\""), Reply::list(second, "\"2\"")]).await;
        let address = server.url("/list");
        let sources = bench.start(vec![rarely(bench.source("drop", address.clone()))]);
        settles(&sources, SourceState::Ok, "").await;
        sources.refresh_now("drop");
        bench.offers(2).await;
        settles(&sources, *state, words).await;
        let good: &[u8] = if *state == SourceState::Ok { b"two" } else { b"one" };
        // What is offered is kept a moment later.
        until(second, || last_good(&bench.copies(), &address).unwrap() == good).await;
        assert_eq!(sources.held("drop").as_deref(), *held, "{second}");
    }
}

#[tokio::test]
async fn what_is_held_is_confirmed_once() {
    let bench = Bench::new();
    let server = bench.server(&[Reply::list("one", "\"1\""), Reply::list("hold two", "\"2\"")]).await;
    let address = server.url("/list");
    let sources = bench.start(vec![rarely(bench.source("drop", address.clone()))]);
    settles(&sources, SourceState::Ok, "").await;
    sources.refresh_now("drop");
    settles(&sources, SourceState::Held, "half of it").await;
    // The server still has what is held: it is not sent again, and the sink is asked again.
    server.answer(&[Reply::not_modified()]);
    sources.refresh_now("drop");
    assert_eq!(bench.offers(3).await, ["one", "hold two", "hold two"]);
    let last = server.seen().len() - 1;
    assert!(server.seen()[last].head.to_ascii_lowercase().contains("if-none-match: \"2\""));
    until("the hold is kept", || sources.held("drop").is_some()).await;
    let applied = sources.held("drop").unwrap();
    let sources = Arc::new(sources);
    for (bytes, expected) in [(b"other".to_vec(), false), (applied.clone(), true), (applied.clone(), false)] {
        let sources = Arc::clone(&sources);
        let confirmed = tokio::task::spawn_blocking(move || sources.confirm("drop", &bytes)).await.unwrap();
        assert_eq!(confirmed, expected);
    }
    assert_eq!(sources.held("drop"), None);
    assert_eq!(status(&sources).state, SourceState::Ok);
    assert_eq!(last_good(&bench.copies(), &address).unwrap(), applied);
}

#[tokio::test]
async fn files_are_followed() {
    // What happens to the file, what the sink gets of it, the state and its reason.
    type Step = (&'static str, fn(&Path), Option<&'static str>, SourceState, &'static str);
    let steps: &[Step] = &[
        ("there from the start", |_| {}, Some("one"), SourceState::Ok, ""),
        ("changed", |path| std::fs::write(path, "two!").unwrap(), Some("two!"), SourceState::Ok, ""),
        (
            "renamed over, with the same size and time",
            |path| {
                let (next, time) =
                    (path.with_extension("next"), std::fs::metadata(path).unwrap().modified().unwrap());
                std::fs::write(&next, "two?").unwrap();
                std::fs::File::options().write(true).open(&next).unwrap().set_modified(time).unwrap();
                std::fs::rename(next, path).unwrap();
            },
            Some("two?"),
            SourceState::Ok,
            "",
        ),
        (
            "gone",
            |path| std::fs::rename(path, path.with_extension("away")).unwrap(),
            None,
            SourceState::Failing,
            "is not there",
        ),
        (
            "back as it was",
            |path| std::fs::rename(path.with_extension("away"), path).unwrap(),
            Some("two?"),
            SourceState::Ok,
            "",
        ),
        (
            "beyond the bound",
            |path| std::fs::write(path, "x".repeat(65)).unwrap(),
            None,
            SourceState::Failing,
            "larger than 64 bytes",
        ),
        ("small again", |path| std::fs::write(path, "three").unwrap(), Some("three"), SourceState::Ok, ""),
        ("held", |path| std::fs::write(path, "hold").unwrap(), Some("hold"), SourceState::Held, "half of it"),
        ("let go", |path| std::fs::write(path, "four").unwrap(), Some("four"), SourceState::Ok, ""),
        (
            "refused",
            |path| std::fs::write(path, "refuse").unwrap(),
            Some("refuse"),
            SourceState::Failing,
            "line 1",
        ),
    ];
    let bench = Bench::new();
    let path = bench.path("drop.txt");
    std::fs::write(&path, "one").unwrap();
    let sources = bench.start(vec![file("drop", &path)]);
    let mut expected: Vec<&str> = Vec::new();
    for (name, act, offer, state, words) in steps {
        act(&path);
        expected.extend(offer);
        until(name, || bench.sink.offers() == expected).await;
        settles(&sources, *state, words).await;
        assert_eq!(sources.held("drop").is_some(), *state == SourceState::Held, "{name}");
    }
    // Nothing is read again while nothing changes, but for the asking.
    tokio::time::sleep(5 * LIMITS.look).await;
    assert_eq!(bench.sink.offers(), expected);
    sources.refresh_now("drop");
    bench.offers(expected.len() + 1).await;
}

#[tokio::test]
async fn a_replacement_keeps_what_is_as_before() {
    let bench = Bench::new();
    let names = ["same", "changed", "removed", "failing"];
    let at = |name: &str| bench.path(name);
    for name in &names[..3] {
        std::fs::write(at(name), name).unwrap();
    }
    let sources = bench.start(names.map(|name| file(name, &at(name))).to_vec());
    bench.offers(3).await;
    std::fs::write(at("other"), "other").unwrap();
    std::fs::write(at("added"), "added").unwrap();
    let next = [("same", "same"), ("changed", "other"), ("failing", "failing"), ("added", "added")];
    sources.replace(next.map(|(name, at_name)| file(name, &at(at_name))).to_vec());
    bench.offers(5).await;
    tokio::time::sleep(5 * LIMITS.look).await;
    let mut offers = bench.sink.offers();
    offers.sort();
    assert_eq!(offers, ["added", "changed", "other", "removed", "same"]);
    let known: Vec<String> = sources.status().into_iter().map(|status| status.name).collect();
    assert_eq!(known, ["added", "changed", "failing", "same"]);
    // What is not followed any more is not read any more.
    std::fs::write(at("removed"), "late").unwrap();
    std::fs::write(at("changed"), "late").unwrap();
    tokio::time::sleep(5 * LIMITS.look).await;
    assert_eq!(bench.sink.offers().len(), 5);
}

/// Keeps the bytes it gets until the test lets go of them.
struct Slow {
    offers: Mutex<Vec<String>>,
    gate: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Sink for Slow {
    fn offer(&self, _name: &str, bytes: Vec<u8>) -> Offered {
        self.offers.lock().unwrap().push(String::from_utf8(bytes).unwrap());
        // A test that ends drops the other side.
        let _ = self.gate.lock().unwrap().recv();
        Offered::Applied
    }
}

#[tokio::test]
async fn what_is_replaced_cannot_come_after_its_successor() {
    let bench = Bench::new();
    let (release, gate) = std::sync::mpsc::channel();
    let sink = Arc::new(Slow { offers: Mutex::default(), gate: Mutex::new(gate) });
    let offers = || sink.offers.lock().unwrap().clone();
    let drop_from = |text: &str| {
        std::fs::write(bench.path(text), text).unwrap();
        vec![file("drop", &bench.path(text))]
    };
    let sources =
        Sources::start_within(drop_from("one"), bench.copies(), Arc::clone(&sink) as Arc<dyn Sink>, LIMITS);
    until("the first offer", || offers() == ["one"]).await;
    // The second one waits for the first, and is replaced before it has its turn.
    for next in ["two", "three"] {
        sources.replace(drop_from(next));
        tokio::time::sleep(10 * LIMITS.look).await;
        assert_eq!(offers(), ["one"]);
    }
    release.send(()).unwrap();
    until("the last offer", || offers() == ["one", "three"]).await;
    drop(release);
    settles(&sources, SourceState::Ok, "").await;
    assert_eq!(offers(), ["one", "three"]);
}

#[tokio::test]
async fn four_fetches_at_a_time() {
    let bench = Bench::new();
    let server = bench.server(&[Reply::Stall(String::new())]).await;
    let source = |index: usize| bench.source(&format!("list{index}"), server.url(&format!("/{index}")));
    let mut all: Vec<Source> = (0..6).map(source).collect();
    let path = bench.path("drop.txt");
    std::fs::write(&path, "one").unwrap();
    all.push(file("file", &path));
    let _sources = bench.start(all);
    until("four requests", || server.seen().len() >= 4).await;
    // Servers that hang hold up no file.
    assert_eq!(bench.offers(1).await, ["one"]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn credentials_are_nowhere_to_be_read() {
    let bench = Bench::new();
    let server = bench.server(&[Reply::list("one", "\"1\""), Reply::status("403 Forbidden")]).await;
    let address = format!("https://me:secret@127.0.0.1:{}/list?token=secret", server.port);
    let sources = bench.start(vec![bench.source("drop", address)]);
    settles(&sources, SourceState::Failing, "answers 403").await;
    let mut shown = vec![serde_json::to_string(&sources.status()).unwrap()];
    assert!(shown[0].contains(&format!("https://127.0.0.1:{}/list?…", server.port)), "{shown:?}");
    for entry in std::fs::read_dir(bench.copies()).unwrap() {
        let path = entry.unwrap().path();
        shown.push(path.display().to_string());
        shown.push(String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
    }
    assert_eq!(shown.len(), 5, "a body and a head: {shown:?}");
    for text in shown {
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_said_and_no_failure() {
    let bench = Bench::new();
    // A file where the directory has to be.
    std::fs::write(bench.path("state"), "").unwrap();
    let server = bench.server(&[Reply::list("one", "\"1\"")]).await;
    let sources = bench.start(vec![bench.source("drop", server.url("/list"))]);
    settles(&sources, SourceState::Ok, "its copy could not be kept").await;
    assert_eq!(bench.sink.offers()[0], "one");
}

#[tokio::test]
async fn metrics_say_which_list_is_up() {
    let recorder = Recorder::default();
    // The tasks of this test run on its own thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    describe();
    let page = || {
        let mut page = Exposition::default();
        recorder.render(&mut page);
        page.finish()
    };
    let bench = Bench::new();
    let path = bench.path("drop.txt");
    std::fs::write(&path, "one").unwrap();
    let sources = bench.start(vec![file("drop", &path)]);
    assert!(!page().contains("gateway_list_source"), "nothing is known before the first attempt");
    for (name, text, expected) in [
        ("up", Some("two"), "gateway_list_source_up{list=\"drop\"} 1\n"),
        ("held", Some("hold"), "gateway_list_source_up{list=\"drop\"} 0\n"),
        ("up again", Some("three"), "gateway_list_source_up{list=\"drop\"} 1\n"),
        ("down", None, "gateway_list_source_up{list=\"drop\"} 0\n"),
    ] {
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        until(name, || page().contains(expected)).await;
    }
    assert!(page().contains("gateway_list_source_last_success_timestamp_seconds{list=\"drop\"} 1"));
    assert!(page().contains("# HELP gateway_list_source_up "));
    sources.replace(Vec::new());
    assert!(page().contains("gateway_list_source_up{list=\"drop\"} NaN\n"));
}
