use proptest::prelude::*;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::*;
use crate::loss::MAX_KEPT;

/// JSON as serde_json reads it, with names that stand twice.
#[derive(Debug, PartialEq)]
enum Other {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    Array(Vec<Other>),
    Object(Vec<(String, Other)>),
}

impl<'de> Deserialize<'de> for Other {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Other;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Other, E> {
                Ok(Other::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Other, E> {
                Ok(Other::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Other, E> {
                Ok(Other::Number(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Other, E> {
                Ok(Other::Number(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Other, E> {
                serde_json::Number::from_f64(value).map(Other::Number).ok_or_else(|| E::custom("no number"))
            }

            fn visit_str<E>(self, value: &str) -> Result<Other, E> {
                Ok(Other::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Other, A::Error> {
                let mut read = Vec::new();
                while let Some(item) = items.next_element()? {
                    read.push(item);
                }
                Ok(Other::Array(read))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Other, A::Error> {
                let mut read = Vec::new();
                while let Some(member) = members.next_entry()? {
                    read.push(member);
                }
                Ok(Other::Object(read))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl Other {
    fn has_duplicates(&self) -> bool {
        match self {
            Self::Array(items) => items.iter().any(Self::has_duplicates),
            Self::Object(members) => {
                let twice = |index: usize| members[..index].iter().any(|(name, _)| *name == members[index].0);
                (0..members.len()).any(twice) || members.iter().any(|(_, value)| value.has_duplicates())
            }
            _ => false,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn is(&self, node: &Node<'_>) -> bool {
        let Ok(again) = parse(node.raw.as_bytes()) else { return false };
        let same = match (self, &node.value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(one), Value::Bool(other)) => one == other,
            (Self::Number(one), Value::Number(other)) => {
                *other == node.raw
                    && serde_json::from_str(other).is_ok_and(|other: serde_json::Number| *one == other)
            }
            (Self::Text(one), Value::Text(other)) => one == other,
            (Self::Array(items), Value::Array(nodes)) => {
                items.len() == nodes.len() && items.iter().zip(nodes).all(|(item, node)| item.is(node))
            }
            (Self::Object(members), Value::Object(nodes)) => {
                members.len() == nodes.len()
                    && members
                        .iter()
                        .zip(nodes)
                        .all(|((name, value), (other, node))| name == other && value.is(node))
            }
            _ => false,
        };
        same && again == *node
    }
}

/// Holds a text against serde_json.
fn check(text: &[u8]) -> Result<(), TestCaseError> {
    let ours = parse(text);
    match serde_json::from_slice::<Other>(text) {
        Ok(other) if other.has_duplicates() || other.depth() > MAX_DEPTH => {
            let reason = ours.expect_err("it has a name twice, or is too deep").reason;
            prop_assert!(matches!(reason, Reason::Duplicate | Reason::TooLarge), "{reason:?}");
        }
        Ok(other) => {
            let node = ours.map_err(|error| {
                TestCaseError::fail(format!("{error}: {}", String::from_utf8_lossy(text)))
            })?;
            prop_assert!(other.is(&node), "{other:?}\n{node:?}");
        }
        // The digits stay here, whatever they mean.
        Err(error) if error.to_string().contains("number out of range") => {}
        Err(error) => {
            let error =
                ours.err().ok_or_else(|| TestCaseError::fail(format!("only serde_json says {error}")))?;
            prop_assert!(error.path.is_empty());
            prop_assert!(error.message.contains("line "), "{error} has no place");
        }
    }
    Ok(())
}

fn json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
    ];
    let text = prop_oneof![
        any::<String>().prop_map(|text| quoted(&text)),
        "\"(a|é|😀|\\\\n|\\\\\"|\\\\\\\\|\\\\/|\\\\u00e9|\\\\ud83d\\\\ude00|\\\\ud83d|\\\\x){0,6}\"",
    ];
    let leaf =
        prop_oneof![number, text, Just("null".to_owned()), Just("true".to_owned()), Just("false".to_owned())];
    leaf.prop_recursive(6, 60, 8, |inner| {
        let member = ("[abc]{0,2}", inner.clone(), "[ \n\t\r]{0,2}");
        let member =
            member.prop_map(|(name, value, space)| format!("{space}\"{name}\"{space}:{space}{value}{space}"));
        let object =
            prop::collection::vec(member, 0..20).prop_map(|members| format!("{{{}}}", members.join(",")));
        let array = prop::collection::vec(inner, 0..8).prop_map(|items| format!("[ {}\n]", items.join(" ,")));
        prop_oneof![object, array]
    })
}

proptest! {
    #[test]
    fn json_is_read_as_others_read_it(text in json()) {
        check(text.as_bytes())?;
    }

    #[test]
    fn what_is_hardly_json_is_read_as_others_read_it(
        text in json(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(),
            prop::sample::select(b"{}[]\",:\\0-9.eE+ntu ".to_vec()),
        ], 0..3_u8), 1..4),
    ) {
        let mut text = text.into_bytes();
        for (at, byte, change) in changes {
            let at = at.index(text.len() + 1);
            match change {
                0 => text.insert(at, byte),
                1 if at < text.len() => text[at] = byte,
                _ => text.truncate(at),
            }
        }
        check(&text)?;
    }

    #[test]
    fn soup_is_read_as_others_read_it(text in "[\\[\\]{}\",:\\\\0-9eE+.trufalsn \n\u{0}é😀-]{0,24}") {
        check(text.as_bytes())?;
    }

    #[test]
    fn what_is_hardly_a_number_is_read_as_others_read_it(text in "[ -]?[019]{0,3}(\\.[05]{0,2})?([eE][+-]?[05]{0,2})?") {
        check(text.as_bytes())?;
    }

    /// What nobody takes is lost by its name, and nothing else is.
    #[test]
    fn a_reader_loses_nothing_in_silence(
        fields in prop::collection::vec(("[a-z]{1,3}", any::<bool>(), json()), 0..20),
        inner in prop::collection::vec("[a-z]{1,3}", 0..5),
    ) {
        let mut seen = std::collections::BTreeSet::new();
        let fields: Vec<_> = fields
            .into_iter()
            .filter(|(name, _, value)| parse(value.as_bytes()).is_ok() && seen.insert(name.clone()))
            .collect();
        let unique: std::collections::BTreeSet<&String> = inner.iter().collect();
        let inner_text: Vec<String> = unique.iter().map(|name| format!("{}:1", quoted(name))).collect();
        let mut members: Vec<String> =
            fields.iter().map(|(name, _, value)| format!("{}:{value}", quoted(name))).collect();
        members.push(format!("\"Inner\":[{{{}}}]", inner_text.join(",")));
        let text = format!("{{{}}}", members.join(","));
        let mut reader = Reader::default();
        let node = parse(text.as_bytes()).expect("it is JSON");
        reader
            .object(node, &Path::Root, |object, reader| {
                for (name, _, value) in fields.iter().filter(|(_, is_taken, _)| *is_taken) {
                    assert_eq!(object.raw(name), (value.trim() != "null").then(|| value.trim()));
                }
                let inner = object.need("Inner")?;
                reader.array(inner, &Path::Root.field("Inner"), |item, path, reader| {
                    reader.object(item, path, |_, _| Ok(()))
                })
            })
            .expect("it can be read");
        let lost: Vec<&str> = reader.losses.kept().iter().map(|loss| &*loss.at).collect();
        let inner = unique.iter().map(|name| format!("Inner[0].{name}"));
        let left = fields.iter().filter(|(_, is_taken, value)| !is_taken && value.trim() != "null");
        let expected: Vec<String> = inner.chain(left.map(|(name, _, _)| name.clone())).collect();
        prop_assert_eq!(lost, expected.iter().map(String::as_str).take(MAX_KEPT).collect::<Vec<_>>());
    }
}

#[test]
fn errors_say_what_and_where() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let many = |names: usize| (0..names).map(|name| format!("\"{name}\":0,")).collect::<String>();
    use Reason::{Duplicate, Syntax, TooLarge};
    for (text, reason, expected) in [
        ("", Syntax, "The JSON ends too early. (line 1, column 1 of the body)"),
        ("  \n ", Syntax, "The JSON ends too early. (line 2, column 2 of the body)"),
        ("{\"a\":", Syntax, "The JSON ends too early. (line 1, column 6 of the body)"),
        ("{\"a\"", Syntax, "A colon is missing here. (line 1, column 5 of the body)"),
        ("{\"a\":1", Syntax, "The JSON ends too early. (line 1, column 7 of the body)"),
        ("{\"a\":1,}", Syntax, "A name in quotes is missing here. (line 1, column 8 of the body)"),
        ("{a:1}", Syntax, "A name in quotes is missing here. (line 1, column 2 of the body)"),
        ("[1,]", Syntax, "No JSON value begins like this. (line 1, column 4 of the body)"),
        ("[1\n2]", Syntax, "A comma or the end of the list is missing here. (line 2, column 1 of the body)"),
        ("[1}", Syntax, "A comma or the end of the list is missing here. (line 1, column 3 of the body)"),
        ("[1] x", Syntax, "Something follows the JSON value. (line 1, column 5 of the body)"),
        ("\"abc", Syntax, "The JSON ends within a string. (line 1, column 5 of the body)"),
        ("\"abc\\", Syntax, "The JSON ends within a string. (line 1, column 6 of the body)"),
        ("tru", Syntax, "No JSON value begins like this. (line 1, column 1 of the body)"),
        ("'a'", Syntax, "No JSON value begins like this. (line 1, column 1 of the body)"),
        ("NaN", Syntax, "No JSON value begins like this. (line 1, column 1 of the body)"),
        ("-", Syntax, "A digit is missing here. (line 1, column 2 of the body)"),
        ("1.", Syntax, "A digit is missing here. (line 1, column 3 of the body)"),
        ("1e+", Syntax, "A digit is missing here. (line 1, column 4 of the body)"),
        ("01", Syntax, "Something follows the JSON value. (line 1, column 2 of the body)"),
        ("\u{feff}{}", Syntax, "No JSON value begins like this. (line 1, column 1 of the body)"),
        ("[\"\\ud800\"]", Syntax, "This string has an escape, half a surrogate pair"),
        ("[\"\\x\"]", Syntax, "This string has an escape, half a surrogate pair"),
        ("[\"a\u{1}b\"]", Syntax, "This string has an escape, half a surrogate pair"),
        (
            "{\n \"a\": 1,\n \"\\u0061\": 2}",
            Duplicate,
            "This name stands twice in one object. (line 3, column 2 of the body)",
        ),
        (&format!("{{{}\"0\":1}}", many(20)), Duplicate, "A name stands twice in the object that ends here."),
        (&deep(MAX_DEPTH + 1), TooLarge, "It is nested too deep. (line 1, column 65 of the body)"),
        (&format!("[{}0]", "0,".repeat(MAX_VALUES)), TooLarge, "There are too many values in it."),
    ] {
        let error = parse(text.as_bytes()).expect_err(text);
        let shown: String = text.chars().take(60).collect();
        assert_eq!(error.reason, reason, "{shown}: {error}");
        assert!(error.to_string().starts_with(expected), "{shown}: {error}");
    }
    let error = parse(b"{\n\"a\xff\": 1}").expect_err("it is no UTF-8");
    assert_eq!(error.to_string(), "This is not UTF-8. (line 2, column 3 of the body)");
    assert!(parse(deep(MAX_DEPTH).as_bytes()).is_ok(), "it is as deep as it may be");
    assert!(parse(format!("{{{}\"x\":1}}", many(20)).as_bytes()).is_ok(), "no name stands twice");
}

#[test]
fn numbers_are_what_was_written() {
    for (text, as_u64, as_i64, as_f64) in [
        ("0", Some(0), Some(0), 0.0),
        ("-0", Some(0), Some(0), 0.0),
        ("18446744073709551615", Some(u64::MAX), None, 18_446_744_073_709_551_615.0),
        ("-9223372036854775808", None, Some(i64::MIN), -9_223_372_036_854_775_808.0),
        ("1.0", Some(1), Some(1), 1.0),
        ("1e3", Some(1000), Some(1000), 1000.0),
        ("-2.0", None, Some(-2), -2.0),
        ("0.5", None, None, 0.5),
        ("1e30", None, None, 1e30),
        ("1e999", None, None, f64::INFINITY),
    ] {
        let node = parse(text.as_bytes()).expect(text);
        let number = node.into_number(&Path::Root).expect("it is one");
        assert_eq!((number.as_u64(), number.as_i64(), number.text()), (as_u64, as_i64, text));
        assert!(number.as_f64() == as_f64, "{text}");
    }
    for (number, text) in [
        (Number::from(0.5), "0.5"),
        (Number::from(f64::NAN), "0"),
        (Number::from(f64::INFINITY), "0"),
        (Number::from(u64::MAX), "18446744073709551615"),
    ] {
        assert_eq!(number.text(), text);
    }
}

/// Writes fields, and nothing around them.
fn written(write: impl FnOnce(&mut Object<'_>)) -> String {
    let mut out = Vec::new();
    object(&mut out, write);
    String::from_utf8(out).expect("it is UTF-8")
}

#[test]
fn what_is_written_is_json() {
    type Case = (&'static str, fn(&mut Object<'_>), &'static str);
    let cases: &[Case] = &[
        ("nothing", |_| (), "{}"),
        ("a text", |o| o.text("a", "b"), r#"{"a":"b"}"#),
        (
            "what must be escaped",
            |o| o.text("a\"\\", "\u{0}\n\t\u{1f}\"\\/é😀"),
            r#"{"a\"\\":"\u0000\n\t\u001f\"\\/é😀"}"#,
        ),
        (
            "two fields",
            |o| {
                o.null("a");
                o.boolean("b", true);
            },
            r#"{"a":null,"b":true}"#,
        ),
        (
            "numbers",
            |o| {
                o.whole("a", u64::MAX);
                o.some_number("b", Some(&Number::from_text("1.50")));
            },
            r#"{"a":18446744073709551615,"b":1.50}"#,
        ),
        (
            "nothing at all",
            |o| {
                o.some_text("a", None::<&str>);
                o.some_whole("b", None);
                o.some_number("c", None);
                o.some_boolean("d", None);
                o.some_raw("e", None::<&str>);
            },
            "{}",
        ),
        (
            "what there is",
            |o| {
                o.some_text("a", Some("x"));
                o.some_whole("b", Some(0));
                o.some_boolean("d", Some(false));
                o.some_raw("e", Some("[1, 2]"));
            },
            r#"{"a":"x","b":0,"d":false,"e":[1, 2]}"#,
        ),
        ("pieces", |o| o.joined("a", ["x\"", "", "é\n"]), r#"{"a":"x\"é\n"}"#),
        ("no pieces", |o| o.joined("a", []), r#"{"a":""}"#),
        (
            "nested",
            |o| {
                o.object("a", |o| o.null("b"));
                o.array("c", |a| {
                    a.text("x");
                    a.raw("1e3");
                    a.object(|o| o.null("d"));
                    a.array(|a| assert!(a.is_empty()));
                });
                o.null("e");
            },
            r#"{"a":{"b":null},"c":["x",1e3,{"d":null},[]],"e":null}"#,
        ),
        ("texts", |o| o.texts("a", &["x".into(), "\"".into()]), r#"{"a":["x","\""]}"#),
    ];
    for (name, write, expected) in cases {
        let text = written(write);
        assert_eq!(text, *expected, "{name}");
        assert!(parse(text.as_bytes()).is_ok(), "{name}");
    }
}

/// Text in which what is escaped stands at each place of a block, and often.
fn hard_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof!["[ -~]{0,70}", "[\\x00-\\x1f\"\\\\\x7f\u{e9}]{0,3}"];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn strings_are_written_as_others_write_them(text in prop_oneof![hard_text(), any::<String>()]) {
        prop_assert_eq!(quoted(&text), serde_json::to_string(&text).expect("a string can be written"));
    }

    #[test]
    fn what_is_written_is_read_again(name in any::<String>(), text in any::<String>(), cut in any::<prop::sample::Index>()) {
        let cut = (0..=cut.index(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (first, second) = text.split_at(cut);
        for json in [written(|o| o.text(&name, &text)), written(|o| o.joined(&name, [first, second]))] {
            let node = parse(json.as_bytes()).expect("it is JSON");
            prop_assert_eq!(node.get(&name).and_then(Node::as_text), Some(&*text));
        }
    }
}
