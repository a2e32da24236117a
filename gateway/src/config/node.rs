//! YAML as a tree whose every node knows its place. The parser's events are used and not a ready-made
//! document, because only so depth, size, aliases and duplicate keys are judged while the tree grows,
//! and a scalar keeps the text that its author wrote.

use std::collections::HashMap;
use std::collections::hash_map;

use gateway_kernel::feed::shown;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// Nesting beyond this is refused; the configuration itself needs 6 levels.
const MAX_DEPTH: usize = 32;
/// Values in all files, repeated ones counted as often as they are repeated.
const MAX_NODES: usize = 500_000;

/// Where something stands: the file by its number, line and column from 1, and its length on that line (0 for what
/// is not written).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// 0 is the main file.
    pub(crate) file: usize,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) length: usize,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

impl Node {
    /// A value that nobody wrote.
    pub(crate) fn null() -> Self {
        Self { place: Place { file: 0, line: 1, column: 1, length: 0 }, value: Value::Null }
    }

    /// A scalar that nobody wrote: a field's default.
    pub(crate) fn text(text: &str) -> Self {
        Self { value: Value::Scalar(Scalar { text: text.to_owned(), written: None }), ..Self::null() }
    }
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Nothing: `key:`, `~` or `null`.
    Null,
    /// Text, which the reader of a field gives its type.
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// A value whose mistake is already reported.
    Broken,
}

/// A scalar's text.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    /// With every `${…}` replaced.
    pub(crate) text: String,
    /// As it was written, when something in it was replaced: what a message may repeat.
    pub(crate) written: Option<String>,
}

/// The name before a colon.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// What stands before a colon.
#[derive(Debug)]
enum Waiting {
    Key(Key),
    /// Something that is reported; its value is read and dropped.
    NoName,
}

/// Something wrong with the YAML itself.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Reads files, one after the other: what is counted is counted over all of them.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// The number of the next one.
    file: usize,
    nodes: usize,
}

impl Files {
    /// Reads the next file: one document. `None` is an empty file. Flaws that leave the rest readable are handed to
    /// `report`; one that does not ends the reading.
    pub(crate) fn read(&mut self, text: &str, report: &mut dyn FnMut(Flaw)) -> Result<Option<Node>, Flaw> {
        let mut tree = Tree {
            file: self.file,
            report,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            nodes: self.nodes,
            remembered: 0,
        };
        self.file += 1;
        let read = read(text, &mut tree);
        self.nodes = tree.nodes;
        read.map(|()| tree.root)
    }
}

fn read(text: &str, tree: &mut Tree<'_>) -> Result<(), Flaw> {
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(tree.file, &error))?;
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(Flaw {
                        place: place(tree.file, &span),
                        message: "a configuration is one YAML document; take this `---` out".to_owned(),
                    });
                }
            }
            event => tree.take(event, &span)?,
        }
    }
    Ok(())
}

/// A collection that is still growing.
struct Open {
    node: Node,
    anchor: usize,
    /// A map's key that waits for its value.
    key: Option<Waiting>,
    /// The lines of the keys so far.
    names: HashMap<String, usize>,
    size: Size,
}

/// What an alias to a node would add.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    height: usize,
}

struct Tree<'a> {
    file: usize,
    report: &'a mut dyn FnMut(Flaw),
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, Size)>,
    nodes: usize,
    /// Values kept for aliases: an anchor inside of an anchor keeps its values twice.
    remembered: usize,
}

impl Tree<'_> {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Flaw> {
        let leaf = Size { nodes: 1, height: 1 };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let node = scalar(text.into_owned(), style, place(self.file, span));
                self.remember(anchor, &node, leaf)?;
                self.add(node, leaf)
            }
            Event::SequenceStart(anchor, _) => self.open(Value::List(Vec::new()), anchor, span),
            Event::MappingStart(anchor, _) => self.open(Value::Map(Vec::new()), anchor, span),
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, size)) => self.add(node, size),
                None => Err(Flaw {
                    place: place(self.file, span),
                    message: "an alias cannot stand inside of itself".into(),
                }),
            },
            _ => Ok(()),
        }
    }

    fn remember(&mut self, anchor: usize, node: &Node, size: Size) -> Result<(), Flaw> {
        // 0 is no anchor.
        if anchor > 0 {
            self.remembered += size.nodes;
            if self.remembered > MAX_NODES {
                return Err(Flaw {
                    place: node.place,
                    message: format!("anchors on more than {MAX_NODES} values"),
                });
            }
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(())
    }

    fn open(&mut self, value: Value, anchor: usize, span: &Span) -> Result<(), Flaw> {
        let place = place(self.file, span);
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        let size = Size { nodes: 1, height: 1 };
        self.open.push(Open { node: Node { place, value }, anchor, key: None, names: HashMap::new(), size });
        Ok(())
    }

    fn close(&mut self, span: &Span) -> Result<(), Flaw> {
        let Some(mut closed) = self.open.pop() else { return Ok(()) };
        let start = closed.node.place;
        // A flow collection on one line is marked whole, anything else where it begins.
        if span.start.line() == start.line && span.end.col() + 1 > start.column && !span.is_empty() {
            closed.node.place.length = span.end.col() + 1 - start.column;
        }
        self.remember(closed.anchor, &closed.node, closed.size)?;
        // What is inside was counted when it was added; here only the collection itself is new.
        let inside = closed.size.nodes - 1;
        self.nodes -= inside.min(self.nodes);
        self.add(closed.node, closed.size)
    }

    /// Puts a finished node where it belongs: into the open collection, or at the root.
    fn add(&mut self, mut node: Node, size: Size) -> Result<(), Flaw> {
        self.nodes += size.nodes;
        if self.nodes > MAX_NODES {
            let message = format!(
                "more than {MAX_NODES} values, aliases counted as often as they are used; keep long lists in \
                 files of their own"
            );
            return Err(Flaw { place: node.place, message });
        }
        if self.open.len() + size.height > MAX_DEPTH {
            return Err(too_deep(node.place));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size.nodes += size.nodes;
        open.size.height = open.size.height.max(size.height + 1);
        match (&mut open.node.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(_), None) => open.key = Some(key(node, self.report)),
            (Value::Map(_), Some(Waiting::NoName)) => {}
            (Value::Map(entries), Some(Waiting::Key(key))) => match open.names.entry(key.name.clone()) {
                hash_map::Entry::Vacant(free) => {
                    free.insert(key.place.line);
                    if matches!(node.value, Value::Null) && node.place.length == 0 {
                        node.place = key.place;
                    }
                    entries.push((key, node));
                }
                hash_map::Entry::Occupied(first) => {
                    let message = format!(
                        "`{}` is given twice; the first is on line {}",
                        shown(&key.name),
                        first.get()
                    );
                    (self.report)(Flaw { place: key.place, message });
                }
            },
            _ => {}
        }
        Ok(())
    }
}

fn key(node: Node, report: &mut dyn FnMut(Flaw)) -> Waiting {
    let place = node.place;
    match node.value {
        Value::Scalar(scalar) => Waiting::Key(Key { name: scalar.text, place }),
        // `~` or nothing before a colon: as a name it is refused with the names that are valid there.
        Value::Null => Waiting::Key(Key { name: "null".to_owned(), place }),
        _ => {
            report(Flaw { place, message: "a key is a name, not a list or a map".to_owned() });
            Waiting::NoName
        }
    }
}

fn scalar(text: String, style: ScalarStyle, place: Place) -> Node {
    let plain = style == ScalarStyle::Plain;
    let value = match text.as_str() {
        "" | "~" | "null" if plain => Value::Null,
        _ => Value::Scalar(Scalar { text, written: None }),
    };
    Node { place, value }
}

fn too_deep(place: Place) -> Flaw {
    Flaw { place, message: format!("nested deeper than {MAX_DEPTH} levels") }
}

fn syntax(file: usize, error: &ScanError) -> Flaw {
    let marker = error.marker();
    let place = Place { file, line: marker.line().max(1), column: marker.col() + 1, length: 1 };
    Flaw { place, message: format!("not YAML: {}", error.info()) }
}

fn place(file: usize, span: &Span) -> Place {
    let one_line = span.start.line() == span.end.line();
    let length = if one_line { span.end.index().saturating_sub(span.start.index()) } else { 1 };
    Place { file, line: span.start.line().max(1), column: span.start.col() + 1, length }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every node as `line:column+length value`, in order.
    fn outline(text: &str) -> String {
        fn walk(node: &Node, out: &mut Vec<String>) {
            let Place { line, column, length, .. } = node.place;
            let at = format!("{line}:{column}+{length}");
            match &node.value {
                Value::Null => out.push(format!("{at} null")),
                Value::Broken => out.push(format!("{at} broken")),
                Value::Scalar(scalar) => out.push(format!("{at} {:?}", scalar.text)),
                Value::List(items) => {
                    out.push(format!("{at} ["));
                    items.iter().for_each(|item| walk(item, out));
                    out.push("]".into());
                }
                Value::Map(entries) => {
                    out.push(format!("{at} {{"));
                    for (key, node) in entries {
                        out.push(format!(
                            "{}:{}+{} {}:",
                            key.place.line, key.place.column, key.place.length, key.name
                        ));
                        walk(node, out);
                    }
                    out.push("}".into());
                }
            }
        }
        let mut out = Vec::new();
        let tree = Files::default().read(text, &mut |flaw| {
            let Place { line, column, length, .. } = flaw.place;
            out.push(format!("flaw {line}:{column}+{length} {}", flaw.message));
        });
        if let Some(node) = tree.expect("the table has only readable files") {
            walk(&node, &mut out);
        }
        out.join(" ")
    }

    #[test]
    fn every_value_has_its_place() {
        let table: &[(&str, &str, &str)] = &[
            ("empty", "", ""),
            ("comment", "# nothing\n", ""),
            ("scalars", "a: b\nc: 'd''e'\n", r#"1:1+0 { 1:1+1 a: 1:4+1 "b" 2:1+1 c: 2:4+6 "d'e" }"#),
            (
                "wide characters",
                "a: {é: ü, k: v}",
                r#"1:1+0 { 1:1+1 a: 1:4+12 { 1:5+1 é: 1:8+1 "ü" 1:11+1 k: 1:14+1 "v" } }"#,
            ),
            ("byte order mark", "\u{feff}a: b", r#"1:1+0 { 1:1+1 a: 1:4+1 "b" }"#),
            ("CRLF", "a:\r\n  b: c\r\n", r#"1:1+0 { 1:1+1 a: 2:3+0 { 2:3+1 b: 2:6+1 "c" } }"#),
            ("no value", "a:\nb: ~\n", "1:1+0 { 1:1+1 a: 1:1+1 null 2:1+1 b: 2:4+1 null }"),
            ("quoted null", "a: \"\"\nb: 'null'\n", r#"1:1+0 { 1:1+1 a: 1:4+2 "" 2:1+1 b: 2:4+6 "null" }"#),
            ("block scalar", "a: |\n  b\n  c\n", r#"1:1+0 { 1:1+1 a: 2:3+1 "b\nc\n" }"#),
            ("list", "- a\n-   b\n", r#"1:1+0 [ 1:3+1 "a" 2:5+1 "b" ]"#),
            ("flow over lines", "a: [1,\n 2]\n", r#"1:1+0 { 1:1+1 a: 1:4+1 [ 1:5+1 "1" 2:2+1 "2" ] }"#),
            ("tag", "a: !!int 3\n", r#"1:1+0 { 1:1+1 a: 1:4+7 "3" }"#),
            (
                "alias",
                "a: &x {b: 1}\nc: *x\n",
                r#"1:1+0 { 1:1+1 a: 1:4+9 { 1:8+1 b: 1:11+1 "1" } 2:1+1 c: 1:4+9 { 1:8+1 b: 1:11+1 "1" } }"#,
            ),
            (
                "key of a list",
                "[a]: b\nc: d",
                r#"flaw 1:1+3 a key is a name, not a list or a map 1:1+0 { 2:1+1 c: 2:4+1 "d" }"#,
            ),
            (
                "twice",
                "a: b\na: c",
                r#"flaw 2:1+1 `a` is given twice; the first is on line 1 1:1+0 { 1:1+1 a: 1:4+1 "b" }"#,
            ),
        ];
        for (name, text, expected) in table {
            assert_eq!(outline(text), *expected, "{name}");
        }
    }

    #[test]
    fn hostile_files_are_refused_while_they_are_read() {
        let nested_lists = "[".repeat(100_000);
        let nested_maps: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        let mut chain = "a0: &a0 x\n".to_owned();
        let mut anchors = "- x\n".repeat(100_000);
        for level in 1..=40 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{below}]\n");
            chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        for level in 0..8 {
            anchors = format!("&a{level}\n- {}\n", anchors.trim_end().replace('\n', "\n  "));
        }
        let table = [
            ("lists", nested_lists, "not YAML: recursion limit exceeded"),
            ("maps", nested_maps, "nested deeper than 32 levels"),
            ("aliases that multiply", laughs, "more than 500000 values"),
            ("aliases that nest", chain, "nested deeper than 32 levels"),
            ("anchors that nest", anchors, "anchors on more than 500000 values"),
            ("a long list", "- x\n".repeat(500_001), "more than 500000 values"),
        ];
        for (name, text, expected) in table {
            let flaw = Files::default().read(&text, &mut |_| {}).expect_err(name);
            assert!(flaw.message.starts_with(expected), "{name}: {}", flaw.message);
        }
    }
}
