//! Configurations in parts: what they come to, and where their mistakes are.

use std::path::Path;

use super::{env, findings};
use crate::config::{Report, load};
use crate::model::Model;

type Files<'a> = &'a [(&'a str, &'a str)];

/// Loads a main file and others beside it.
fn read(main: &str, others: Files<'_>) -> (tempfile::TempDir, Result<Model, Report>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &[u8]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory in it");
        std::fs::write(path, text).expect("a file in it");
    };
    write("gateway.yaml", main.as_bytes());
    for (name, text) in others {
        write(name, text.as_bytes());
    }
    let model = load(&dir.path().join("gateway.yaml"), &env);
    (dir, model)
}

#[track_caller]
fn good(main: &str, others: Files<'_>) -> Model {
    read(main, others).1.unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn parts_add_to_named_maps_in_the_order_of_their_names() {
    let model = good(
        "listeners: {web: {address: 0.0.0.0:8080}}\nroutes:\n  main: {match: {path: /main}, upstream: late}\n",
        &[
            ("conf.d/9.yaml", "routes: {nine: {match: {path: /9}, upstream: late}}\nlisteners:\n"),
            ("conf.d/10.yaml", "routes: {ten: {match: {path: /10}, upstream: late}}\n"),
            ("conf.d/b.yaml", "upstreams: {late: {endpoints: [\"http://127.0.0.1:${PORT}\"]}}\n"),
            ("conf.d/c.yaml", "# nothing\n"),
            ("conf.d/.hidden.yaml", "nonsense: ["),
            ("conf.d/a.yaml~", "nonsense: ["),
            ("conf.d/README", "nonsense: ["),
            ("other.yaml", "nonsense: ["),
        ],
    );
    let routes: Vec<&str> = model.proxy.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(routes, ["main", "ten", "nine"]);
    assert_eq!((model.proxy.listeners.len(), model.proxy.upstreams.len()), (1, 1));
    let names: Vec<_> = model.config_files.iter().filter_map(|file| file.file_name()).collect();
    assert_eq!(names, ["gateway.yaml", "10.yaml", "9.yaml", "b.yaml", "c.yaml"]);
    // An empty main file is enough.
    assert_eq!(
        good("", &[("conf.d/a.yaml", "listeners: {a: {address: \"[::]:1\"}}")]).proxy.listeners.len(),
        1
    );
    assert_eq!(
        good("listeners:", &[("conf.d/a.yaml", "listeners: {a: {address: \"[::]:1\"}}")])
            .proxy
            .listeners
            .len(),
        1
    );
}

#[test]
fn each_mistake_is_told_where_it_is() {
    let upstream = "upstreams: {u: {endpoints: [http://a]}}\n";
    let table: &[(&str, &str, Files<'_>, &[&str])] = &[
        (
            "a name of the main file's",
            upstream,
            &[("conf.d/a.yaml", "upstreams:\n  u: {endpoints: [http://b]}\n")],
            &["DIR/conf.d/a.yaml 2:3+1 `u` is given twice; the first is on line 1 of DIR/gateway.yaml"],
        ),
        (
            "a name of another part's",
            "",
            &[("conf.d/a.yaml", upstream), ("conf.d/b.yaml", upstream), ("conf.d/c.yaml", upstream)],
            &[
                "DIR/conf.d/b.yaml 1:13+1 `u` is given twice; the first is on line 1 of DIR/conf.d/a.yaml",
                "DIR/conf.d/c.yaml 1:13+1 `u` is given twice; the first is on line 1 of DIR/conf.d/a.yaml",
            ],
        ),
        (
            "a name twice in one part",
            "",
            &[("conf.d/a.yaml", "upstreams:\n  u: {endpoints: [http://a]}\n  u: {endpoints: [http://b]}\n")],
            &["DIR/conf.d/a.yaml 3:3+1 `u` is given twice; the first is on line 2"],
        ),
        (
            "one name in two maps is two names",
            "upstreams: {a: {endpoints: [http://a]}}\n",
            &[("conf.d/a.yaml", "routes: {a: {upstream: b}}\n")],
            &["DIR/conf.d/a.yaml 1:24+1 there is no upstream `b`"],
        ),
        (
            "what there is one of",
            "workers: 1\n",
            &[("conf.d/a.yaml", "workers: 2\nkernel: {attach: off}\n")],
            &[
                "DIR/conf.d/a.yaml 1:1+7 `workers` stands in the main file alone; files of conf.d add to `listeners`, `upstreams` and `routes`",
                "DIR/conf.d/a.yaml 2:1+6 `kernel` stands in the main file alone; files of conf.d add to `listeners`, `upstreams` and `routes`",
            ],
        ),
        (
            "an unknown key",
            "",
            &[("conf.d/a.yaml", "route: {}\n")],
            &["DIR/conf.d/a.yaml 1:1+5 unknown key `route` -> routes"],
        ),
        (
            "no map",
            "",
            &[("conf.d/a.yaml", "- routes\n"), ("conf.d/b.yaml", "hello\n")],
            &[
                "DIR/conf.d/a.yaml 1:1+1 expected a map with `listeners`, `upstreams` and `routes`, found a list",
                "DIR/conf.d/b.yaml 1:1+5 expected a map with `listeners`, `upstreams` and `routes`, found `hello`",
            ],
        ),
        (
            "values, places and references of several files",
            "listeners: {a: {address: 0.0.0.0:80, idle_timeout: 75}}\n",
            &[
                ("conf.d/a.yaml", "# é\nlisteners:\n  b: {address: 0.0.0.0:81, idle_timeout: 76}\n"),
                ("conf.d/b.yaml", "upstreams: {u: {endpoints: [\"http://${NOWHERE}\"]}}\n"),
            ],
            &[
                "DIR/gateway.yaml 1:52+2 75 has no unit; add a unit, such as 75s -> 75s",
                "DIR/conf.d/a.yaml 3:42+2 76 has no unit; add a unit, such as 76s -> 76s",
                "DIR/conf.d/b.yaml 1:37+10 the environment has no NOWHERE; set it, or write ${NOWHERE:-default}",
            ],
        ),
        (
            "a name of another file that is nearly right",
            "upstreams: {users: {endpoints: [http://a]}}\n",
            &[("conf.d/a.yaml", "routes: {r: {upstream: user}}\n")],
            &["DIR/conf.d/a.yaml 1:24+4 there is no upstream `user` -> users"],
        ),
        (
            "routes for the same requests",
            "upstreams: {u: {endpoints: [http://a]}}\nroutes: {r: {upstream: u}}\n",
            &[("conf.d/a.yaml", "routes: {s: {upstream: u}}\n")],
            &[
                "DIR/conf.d/a.yaml 1:10+1 the routes `r` (line 2 of DIR/gateway.yaml) and `s` take the same requests; give one of them another host, path or method",
            ],
        ),
        (
            "one address",
            "listeners: {a: {address: 0.0.0.0:80}}\n",
            &[("conf.d/a.yaml", "listeners: {b: {address: 0.0.0.0:80}}\n")],
            &["DIR/conf.d/a.yaml 1:26+10 the listeners `a` and `b` have the same address"],
        ),
        (
            "no YAML: what is missing without it is not told",
            "routes: {r: {upstream: u}}\n",
            &[("conf.d/a.yaml", "upstreams: {u: [\n"), ("conf.d/b.yaml", "a: b: c\n")],
            &[
                "DIR/conf.d/a.yaml 1:17+1 not YAML: while parsing a node, did not find expected node content",
                "DIR/conf.d/b.yaml 1:5+1 not YAML: mapping values are not allowed in this context",
            ],
        ),
        (
            "anchors end with their file",
            "upstreams: &u {u: {endpoints: [http://a]}}\n",
            &[("conf.d/a.yaml", "upstreams: *u\n")],
            &["DIR/conf.d/a.yaml 1:12+1 not YAML: while parsing node, found unknown anchor"],
        ),
        (
            "a part's part of a map is no map",
            "",
            &[("conf.d/a.yaml", "upstreams: [u]\n")],
            &[
                "DIR/conf.d/a.yaml 1:12+3 expected a map from names to maps with `endpoints`, `discover`, `balance`, …, found a list",
            ],
        ),
        (
            "an ending that is not read",
            "",
            &[("conf.d/a.yml", upstream)],
            &["DIR/conf.d/a.yml 0:0+0 would not be read; its name has to end in .yaml"],
        ),
        (
            "a file in its place",
            "",
            &[("conf.d", "")],
            &["DIR/conf.d 0:0+0 cannot be read: Not a directory (os error 20)"],
        ),
        (
            "a directory in the place of a part",
            "",
            &[("conf.d/a.yaml/x", "")],
            &["DIR/conf.d/a.yaml 0:0+0 cannot be read: Is a directory (os error 21)"],
        ),
    ];
    let mut failures = Vec::new();
    for (name, main, others, expected) in table {
        let (dir, model) = read(main, others);
        let found = findings(&model.expect_err(name), dir.path());
        let matches = |(found, expected): (&String, &&str)| match expected.split_once('…') {
            Some((begin, end)) => found.starts_with(begin) && found.ends_with(end),
            None => found == expected,
        };
        if found.len() != expected.len() || !found.iter().zip(*expected).all(matches) {
            failures.push(format!("{name}: {found:#?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_report_shows_the_lines_of_the_file_that_is_meant() {
    let (dir, model) = read("workers: 1\n", &[("conf.d/a.yaml", "# not this\nlistenrs: {}\n")]);
    let rendered =
        model.expect_err("a mistake").render(false).replace(&dir.path().display().to_string(), "DIR");
    let expected = "\
DIR/conf.d/a.yaml:2:1: error: unknown key `listenrs`
 2 | listenrs: {}
   | ^^^^^^^^
help: did you mean `listeners`?
";
    assert!(rendered.starts_with(expected), "{rendered}");
}

#[test]
fn the_hash_covers_every_file_its_name_and_its_end() {
    let part = "upstreams: {u: {endpoints: [http://a]}}\n";
    let hash = |main: &str, others: Files<'_>| good(main, others).config_hash;
    let all = [
        hash("", &[]),
        hash(part, &[]),
        hash("", &[("conf.d/a.yaml", part)]),
        hash("", &[("conf.d/b.yaml", part)]),
        hash("", &[("conf.d/a.yaml", part), ("conf.d/b.yaml", "")]),
        hash("", &[("conf.d/a.yaml", ""), ("conf.d/b.yaml", part)]),
        hash("# \n", &[("conf.d/a.yaml", part)]),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{index}");
    }
    // Wherever the files are.
    assert_eq!(hash("", &[("conf.d/a.yaml", part)]), all[2]);
}

#[test]
fn parts_are_bounded_together() {
    let many: Vec<(String, String)> =
        (0..1001).map(|number| (format!("conf.d/{number}.yaml"), String::new())).collect();
    let refused = |files: &[(String, String)]| {
        let files: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let (dir, model) = read("", &files);
        findings(&model.expect_err("too much"), dir.path())
    };
    assert_eq!(refused(&many), ["DIR/conf.d 0:0+0 has 1001 files of a configuration; at most 1000 are read"]);
    let values = format!("routes: [{}]\n", "x,".repeat(300_000));
    let lines = values.replace("x,", "x,\n  ");
    let two = ["a", "b"].map(|name| (format!("conf.d/{name}.yaml"), lines.clone()));
    let found = refused(&two);
    assert!(
        found.len() == 1 && found[0].contains("b.yaml") && found[0].contains("more than 500000 values"),
        "{found:?}"
    );
    let comment = format!("{}\n", format!("#{}\n", "x".repeat(60_000)).repeat(150));
    let two = ["a", "b"].map(|name| (format!("conf.d/{name}.yaml"), comment.clone()));
    assert_eq!(
        refused(&two),
        ["DIR/conf.d/b.yaml 0:0+0 brings the configuration beyond 16777216 bytes in all"]
    );
}

#[test]
fn a_file_without_a_directory_has_its_parts_beside_it() {
    // As in `--config gateway.yaml`; there are none here, and that is no mistake.
    let report = load(Path::new("there-is-no-such.yaml"), &env).expect_err("no file");
    assert_eq!(report.total(), 1);
}
