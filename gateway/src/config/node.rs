//! YAML as a tree whose every node knows its place. The parser's events are used and not a ready-made
//! document, because only so depth, size, aliases and duplicate keys are judged while the tree grows,
//! and a scalar keeps the text that its author wrote.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// Nesting beyond this is refused; the configuration itself needs 6 levels.
const MAX_DEPTH: usize = 32;
/// Values in one file, repeated ones counted as often as they are repeated.
const MAX_NODES: usize = 500_000;

/// Where something stands in the file: line and column from 1, and its length on that line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
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

/// Something wrong with the YAML itself.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Reads one document. `None` is an empty file. Flaws that leave the rest readable are handed to
/// `report`; one that does not ends the reading.
pub(crate) fn read(text: &str, report: &mut dyn FnMut(Flaw)) -> Result<Option<Node>, Flaw> {
    let mut tree = Tree { report, open: Vec::new(), root: None, anchors: HashMap::new(), nodes: 0 };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(Flaw {
                        place: place(&span),
                        message: "a configuration is one YAML document; take this `---` out".to_owned(),
                    });
                }
            }
            event => tree.take(event, &span)?,
        }
    }
    Ok(tree.root)
}

/// A collection that is still growing.
struct Open {
    node: Node,
    anchor: usize,
    /// A map's key that waits for its value.
    key: Option<Key>,
    names: HashSet<String>,
    size: Size,
}

/// What an alias to a node would add.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    height: usize,
}

struct Tree<'a> {
    report: &'a mut dyn FnMut(Flaw),
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, Size)>,
    nodes: usize,
}

impl Tree<'_> {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Flaw> {
        let leaf = Size { nodes: 1, height: 1 };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let node = scalar(text.into_owned(), style, span);
                self.remember(anchor, &node, leaf);
                self.add(node, leaf)
            }
            Event::SequenceStart(anchor, _) => self.open(Value::List(Vec::new()), anchor, span),
            Event::MappingStart(anchor, _) => self.open(Value::Map(Vec::new()), anchor, span),
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, size)) => self.add(node, size),
                None => Err(Flaw { place: place(span), message: "an alias cannot stand inside of itself".into() }),
            },
            _ => Ok(()),
        }
    }

    fn remember(&mut self, anchor: usize, node: &Node, size: Size) {
        // 0 is no anchor.
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
    }

    fn open(&mut self, value: Value, anchor: usize, span: &Span) -> Result<(), Flaw> {
        let place = place(span);
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        let size = Size { nodes: 1, height: 1 };
        self.open.push(Open { node: Node { place, value }, anchor, key: None, names: HashSet::new(), size });
        Ok(())
    }

    fn close(&mut self, span: &Span) -> Result<(), Flaw> {
        let Some(mut closed) = self.open.pop() else { return Ok(()) };
        let start = closed.node.place;
        // A flow collection on one line is marked whole, anything else where it begins.
        if span.start.line() == start.line && span.end.col() + 1 > start.column && !span.is_empty() {
            closed.node.place.length = span.end.col() + 1 - start.column;
        }
        self.remember(closed.anchor, &closed.node, closed.size);
        // What is inside was counted when it was added; here only the collection itself is new.
        let inside = closed.size.nodes - 1;
        self.nodes -= inside.min(self.nodes);
        self.add(closed.node, closed.size)
    }

    /// Puts a finished node where it belongs: into the open collection, or at the root.
    fn add(&mut self, node: Node, size: Size) -> Result<(), Flaw> {
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
            (Value::Map(_), None) => open.key = Some(self.key(node)),
            (Value::Map(entries), Some(key)) => {
                if open.names.insert(key.name.clone()) {
                    entries.push((key, node));
                } else {
                    let first = entries.iter().find(|(known, _)| known.name == key.name);
                    let line = first.map_or(key.place.line, |(known, _)| known.place.line);
                    let message = format!("`{}` is given twice; the first is on line {line}", key.name);
                    (self.report)(Flaw { place: key.place, message });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn key(&mut self, node: Node) -> Key {
        let place = node.place;
        match node.value {
            Value::Scalar(scalar) => Key { name: scalar.text, place },
            // `~` and `null` before a colon; no field is called so, and a map's names are checked.
            Value::Null => Key { name: "null".to_owned(), place },
            _ => {
                (self.report)(Flaw { place, message: "a key is a name, not a list or a map".to_owned() });
                Key { name: String::new(), place }
            }
        }
    }
}

fn scalar(text: String, style: ScalarStyle, span: &Span) -> Node {
    let plain = style == ScalarStyle::Plain;
    let value = match text.as_str() {
        "" | "~" | "null" if plain => Value::Null,
        _ => Value::Scalar(Scalar { text, written: None }),
    };
    Node { place: place(span), value }
}

fn too_deep(place: Place) -> Flaw {
    Flaw { place, message: format!("nested deeper than {MAX_DEPTH} levels") }
}

fn syntax(error: &ScanError) -> Flaw {
    let marker = error.marker();
    let place = Place { line: marker.line().max(1), column: marker.col() + 1, length: 1 };
    Flaw { place, message: format!("not YAML: {}", error.info()) }
}

fn place(span: &Span) -> Place {
    let one_line = span.start.line() == span.end.line();
    let length = if one_line { span.len() } else { 1 };
    Place { line: span.start.line().max(1), column: span.start.col() + 1, length: length.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every node as `line:column+length value`, in order.
    fn outline(text: &str) -> String {
        fn walk(node: &Node, out: &mut Vec<String>) {
            let Place { line, column, length } = node.place;
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
                        out.push(format!("{}:{}+{} {}:", key.place.line, key.place.column, key.place.length, key.name));
                        walk(node, out);
                    }
                    out.push("}".into());
                }
            }
        }
        let mut out = Vec::new();
        let read = read(text, &mut |flaw| {
            let Place { line, column, length } = flaw.place;
            println!("flaw {line}:{column}+{length} {}", flaw.message);
        });
        match read {
            Ok(Some(node)) => walk(&node, &mut out),
            Ok(None) => {}
            Err(flaw) => {
                let Place { line, column, length } = flaw.place;
                out.push(format!("error {line}:{column}+{length} {}", flaw.message));
            }
        }
        out.join(" ")
    }

    #[test]
    fn probe() {
        for text in ["", "a: b", "a:\n  b: \"cé\"\n  c: 'd''e' # x\n  'q' : |\n    text\n    more\n  z: {x: y, v: [1, 2]}\n",
            "a: é\nb:\n- 1\n-   two\n- {é: ü, k: v}\n-\n- ~\n", "a: [1,\n 2]\nb: x y  \nc: multi\n  line\n", "a: &x {b: 1}\nc: *x\n", "a: &x [*x]\n",
            "a: \"b", "a: [b", "a: b: c", "\ta: b", "a: 1\na: 2", "---\na: 1\n---\nb: 2", "{a: b}: c", "a: !!int 3\n", "&a : b", "? a\n: b", "%YAML 1.2\n---\na: b", "\u{feff}a: b", "a:\r\n  b: c\r\n", "- a\n-\n b", "@a", "a: *nope", "x: >-\n  f\n  g\n", "a:\n b: 1\n  c: 2\n", "a: [b, c", "k: {a: b, a: c}", "list:\n    - cidr: x\n      reason: y\n"] {
            println!("{text:?}\n   {}", outline(text));
        }
        let deep = "[".repeat(1000);
        println!("{}", outline(&deep));
        let deep: String = (0..1000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        println!("{}", outline(&deep));
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..10 { laughs += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i-1); 10].join(",")); }
        println!("{}", &outline(&laughs)[..100]);
    }
}
