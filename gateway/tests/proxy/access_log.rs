//! A line for each request, and its name.

use std::path::Path;
use std::time::Duration;

use gateway::model::{AccessLog, LogFormat, LogTarget};

use crate::harness::*;

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_request_has_a_line_that_says_what_became_of_it() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("access.log");
    let up = upstream(|mut conn| {
        while let Some(head) = conn.head() {
            if head.starts_with("GET /silent") {
                std::thread::sleep(Duration::from_secs(1));
            }
            let half = head.starts_with("GET /half");
            conn.send(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nhello",
                if half { 9 } else { 5 }
            ));
            if half {
                return;
            }
        }
    });
    let mut model = model(&[up.address]);
    model.upstreams[0].response_timeout = Duration::from_millis(300);
    model.listeners[0].request_ids = true;
    model.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    model.access_log = Some(AccessLog {
        to: LogTarget::File(path.clone()),
        format: LogFormat::Json,
        sample: 1_000_000,
        queue: 100,
    });
    let proxy = start(&model);
    let mut wanted = Vec::new();
    for (name, target, fields, status, bytes, why) in [
        ("plain", "/a?secret=1", "user-agent: \"me\"\r\nx-request-id: abc\r\n", 200, 5, "ok"),
        ("a bad path", "/a%2fb", "", 400, 0, "ambiguous_path"),
        ("no answer", "/silent", "", 504, 0, "upstream_timeout"),
        ("half of one", "/half", "x-forwarded-for: 198.51.100.7\r\n", 200, 5, "upstream_broke_off"),
    ] {
        talk(&proxy, format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n").as_bytes());
        wanted.push((name, status, bytes, why));
    }
    eventually("the lines are not there", || lines(&path).len() == wanted.len());
    let found = lines(&path);
    for ((name, status, bytes, why), line) in wanted.iter().zip(&found) {
        assert_eq!((&line["status"], &line["why"]), (&(*status).into(), &(*why).into()), "{name}: {line}");
        // The gateway's own words are counted like others; how many there are is no matter here.
        assert!(*bytes == 0 || line["bytes"] == *bytes, "{name}: {line}");
        assert_eq!((&line["listener"], &line["host"]), (&"web".into(), &"a.test".into()), "{name}: {line}");
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    }
    let plain = &found[0];
    assert_eq!(
        (&plain["path"], &plain["method"], &plain["route"]),
        (&"/a".into(), &"GET".into(), &"all".into())
    );
    assert_eq!((&plain["upstream"], &plain["endpoint"]), (&"up".into(), &up.address.to_string().into()));
    assert_eq!((&plain["user_agent"], &plain["request_id"]), (&"\"me\"".into(), &"abc".into()));
    assert_eq!(found[3]["client"], "198.51.100.7");
    assert_eq!(found[1]["request_id"].as_str().unwrap().len(), 32);

    // Moved away, it is opened anew by a reload.
    std::fs::rename(&path, dir.path().join("old.log")).unwrap();
    proxy.reload(&model).unwrap();
    talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    eventually("the new file has no line", || lines(&path).len() == 1);
    // One that cannot be opened is refused, and the former stays.
    let mut wrong = model.clone();
    wrong.access_log.as_mut().unwrap().to = LogTarget::File(dir.path().join("missing/access.log"));
    assert!(proxy.reload(&wrong).unwrap_err().to_string().starts_with("the access log cannot be written"));
    talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    eventually("the former file has no line", || lines(&path).len() == 2);
}

#[test]
fn who_goes_away_is_told_from_who_was_answered() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("access.log");
    let up = upstream(|mut conn| {
        if conn.head().is_some() {
            conn.is_closed();
        }
    });
    let mut model = model(&[up.address]);
    model.access_log = Some(AccessLog {
        to: LogTarget::File(path.clone()),
        format: LogFormat::Json,
        sample: 1_000_000,
        queue: 100,
    });
    let proxy = start(&model);
    let mut client = connect(&proxy);
    std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    eventually("it does not arrive", || up.accepted.load(std::sync::atomic::Ordering::SeqCst) == 1);
    drop(client);
    eventually("the line is not there", || lines(&path).len() == 1);
    let line = &lines(&path)[0];
    assert_eq!((&line["status"], &line["why"]), (&499.into(), &"client_closed".into()), "{line}");
}

#[test]
fn a_request_and_its_answer_have_one_name() {
    let up = echo();
    let mut model = model(&[up.address]);
    model.listeners[0].request_ids = true;
    let proxy = start(&model);
    let (answer, _) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\nx-request-id: forged\r\n\r\n");
    let names: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("x-request-id: ")).collect();
    assert!(names.len() == 2 && names[0] == names[1] && names[0].len() == 32, "{answer}");
    let (problem, _) = talk(&proxy, b"GET /a%2fb HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert!(problem.contains("\r\nx-request-id: ") && status(&problem) == "400", "{problem}");
}
