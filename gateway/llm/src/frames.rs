//! How streams are cut into pieces: server-sent events (HTML's event streams) and the items of a JSON array, which
//! Gemini sends to whoever does not ask for events.
//!
//! Bytes come as the network cuts them, in the middle of a character too. A frame that came whole is not copied.

use std::borrow::Cow;

/// How long a frame may be. A picture in one is some MiB.
pub const MAX_FRAME: usize = 16 << 20;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The event's name, if it has one.
    pub event: Option<&'a str>,
    /// What it says: the data of an event, or an item.
    pub data: Cow<'a, str>,
    /// All of it, with the line ends behind it.
    pub raw: &'a [u8],
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A frame that is longer than [`MAX_FRAME`].
    #[error("an event of the stream is too long")]
    TooLong,
    /// What should be UTF-8 is not.
    #[error("an event of the stream is no UTF-8")]
    NotUtf8,
    /// What should be an array of JSON is none.
    #[error("the stream is no JSON array")]
    NotAnArray,
}

/// How a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Events,
    /// Items of one JSON array.
    Items,
}

/// Cuts a stream into frames.
#[derive(Debug)]
pub struct Frames {
    framing: Framing,
    /// What has come of a frame that is not complete.
    kept: Vec<u8>,
    /// How much of it was looked at.
    seen: usize,
    /// Whether the first bytes of the stream were seen.
    has_begun: bool,
    items: Items,
}

/// Where in the array an item splitter is.
#[derive(Debug, Clone, Copy, Default)]
struct Items {
    depth: u32,
    in_text: bool,
    is_escaped: bool,
    /// Where the item began that is being read.
    start: Option<usize>,
    has_ended: bool,
}

impl Frames {
    /// At the beginning of a stream.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        let items = Items { depth: 0, in_text: false, is_escaped: false, start: None, has_ended: false };
        Self { framing, kept: Vec::new(), seen: 0, has_begun: false, items }
    }

    /// Reads what came next, and says each frame that is complete with it.
    ///
    /// # Errors
    /// When the stream cannot be read on. Frames before that were said.
    pub fn feed(&mut self, bytes: &[u8], mut say: impl FnMut(Frame<'_>)) -> Result<(), Broken> {
        if self.kept.is_empty() {
            let used = self.cut(bytes, &mut say)?;
            self.seen -= used;
            self.kept.extend_from_slice(&bytes[used..]);
        } else {
            self.kept.extend_from_slice(bytes);
            let kept = std::mem::take(&mut self.kept);
            let used = self.cut(&kept, &mut say);
            self.kept = kept;
            let used = used?;
            self.seen -= used;
            self.kept.drain(..used);
        }
        if self.kept.len() > MAX_FRAME { Err(Broken::TooLong) } else { Ok(()) }
    }

    /// The stream has ended. An event without the empty line behind it is said all the same: some servers forget it.
    ///
    /// # Errors
    /// As in [`Self::feed`].
    pub fn finish(&mut self, say: impl FnMut(Frame<'_>)) -> Result<(), Broken> {
        if self.framing == Framing::Events && !self.kept.is_empty() {
            self.feed(b"\n\n", say)
        } else {
            Ok(())
        }
    }

    /// Takes what has come of a frame that is not complete.
    pub fn take(&mut self) -> Vec<u8> {
        self.seen = 0;
        std::mem::take(&mut self.kept)
    }

    /// Whether an array ended, or no event is half read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self.framing {
            Framing::Events => self.kept.is_empty(),
            Framing::Items => self.items.has_ended,
        }
    }

    /// Says the frames of `bytes` and returns how many bytes they take.
    fn cut(&mut self, bytes: &[u8], say: &mut impl FnMut(Frame<'_>)) -> Result<usize, Broken> {
        match self.framing {
            Framing::Events => self.cut_events(bytes, say),
            Framing::Items => self.cut_items(bytes, say),
        }
    }

    fn cut_events(&mut self, bytes: &[u8], say: &mut impl FnMut(Frame<'_>)) -> Result<usize, Broken> {
        let mut start = 0;
        if !self.has_begun && !bytes.is_empty() {
            const MARK: &[u8] = "\u{feff}".as_bytes();
            if MARK.starts_with(&bytes[..bytes.len().min(MARK.len())]) {
                if bytes.len() < MARK.len() {
                    return Ok(0);
                }
                start = MARK.len();
                self.seen = start;
            }
            self.has_begun = true;
        }
        // `seen` is where the line begins that was not complete.
        let mut line = self.seen.max(start);
        while let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[line..]) {
            let end = line + found;
            let next = match (bytes[end], bytes.get(end + 1)) {
                // A line feed may follow, and belongs to this line's end.
                (b'\r', None) => break,
                (b'\r', Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            if end == line {
                if let Some(frame) = event(&bytes[start..next])? {
                    say(frame);
                }
                start = next;
            }
            line = next;
        }
        self.seen = line;
        Ok(start)
    }

    fn cut_items(&mut self, bytes: &[u8], say: &mut impl FnMut(Frame<'_>)) -> Result<usize, Broken> {
        let mut items = self.items;
        let mut used = 0;
        let mut at = self.seen;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            if items.in_text {
                match byte {
                    _ if items.is_escaped => items.is_escaped = false,
                    b'\\' => items.is_escaped = true,
                    b'"' => items.in_text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                _ if items.has_ended => return Err(Broken::NotAnArray),
                b'[' if items.depth == 0 => items.depth = 1,
                _ if items.depth == 0 => return Err(Broken::NotAnArray),
                b'"' => items.in_text = true,
                b'{' | b'[' => {
                    if items.depth == 1 {
                        items.start = Some(at - 1);
                    }
                    items.depth += 1;
                }
                b'}' | b']' => {
                    items.depth -= 1;
                    items.has_ended = items.depth == 0;
                    if items.depth == 1
                        && let Some(start) = items.start.take()
                    {
                        let raw = &bytes[start..at];
                        let data = std::str::from_utf8(raw).map_err(|_| Broken::NotUtf8)?;
                        say(Frame { event: None, data: Cow::Borrowed(data), raw });
                        used = at;
                    }
                }
                _ => {}
            }
        }
        // Between items nothing is worth keeping.
        if items.start.is_none() {
            used = at;
        }
        items.start = items.start.map(|start| start - used);
        self.items = items;
        self.seen = at;
        Ok(used)
    }
}

/// Reads the lines of an event. One without data is none.
fn event(raw: &[u8]) -> Result<Option<Frame<'_>>, Broken> {
    let text = std::str::from_utf8(raw).map_err(|_| Broken::NotUtf8)?;
    let mut name = None;
    let mut data: Option<Cow<'_, str>> = None;
    for line in text.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = Some(value),
            "data" => match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(before) => {
                    let before = before.to_mut();
                    before.push('\n');
                    before.push_str(value);
                }
            },
            // Identities and times to wait before the next try: no dialect has them. Comments have no field.
            _ => {}
        }
    }
    Ok(data.map(|data| Frame { event: name, data, raw }))
}

/// Writes an event whose data is the JSON that `write` writes.
pub fn write_event(out: &mut Vec<u8>, name: Option<&str>, write: impl FnOnce(&mut Vec<u8>)) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    let start = out.len();
    write(out);
    // What is passed on as it was written may have lines. In JSON they stand between values only, where a space says the
    // same.
    while let Some(found) = memchr::memchr2(b'\n', b'\r', &out[start..]) {
        out[start + found] = b' ';
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(framing: Framing, pieces: &[&[u8]]) -> Result<Vec<(Option<String>, String)>, Broken> {
        let mut frames = Frames::new(framing);
        let mut said = Vec::new();
        let mut say = |frame: Frame<'_>| said.push((frame.event.map(str::to_owned), frame.data.into_owned()));
        for piece in pieces {
            frames.feed(piece, &mut say)?;
        }
        frames.finish(&mut say)?;
        Ok(said)
    }

    #[test]
    fn events_are_read() {
        for (name, stream, expected) in [
            ("one", "data: a\n\n", &[(None, "a")][..]),
            ("a name", "event: x\ndata: a\n\n", &[(Some("x"), "a")]),
            ("name after data", "data: a\nevent: x\n\n", &[(Some("x"), "a")]),
            ("no space", "data:a\n\n", &[(None, "a")]),
            ("two spaces", "data:  a\n\n", &[(None, " a")]),
            ("several lines", "data: a\ndata: b\n\n", &[(None, "a\nb")]),
            ("CR LF", "event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", &[(Some("x"), "a"), (None, "b")]),
            ("CR", "data: a\r\rdata: b\r\r", &[(None, "a"), (None, "b")]),
            ("comments", ": ping\n\ndata: a\n: x\n\n", &[(None, "a")]),
            ("no data", "event: x\n\ndata: a\n\n", &[(None, "a")]),
            ("empty data", "data\n\n", &[(None, "")]),
            ("other fields", "id: 1\nretry: 5\ndata: a\n\n", &[(None, "a")]),
            ("no empty line at the end", "data: a\n\ndata: b", &[(None, "a"), (None, "b")]),
            ("a byte order mark", "\u{feff}data: a\n\n", &[(None, "a")]),
            ("empty lines", "\n\n\ndata: a\n\n\n\n", &[(None, "a")]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(n, d)| (n.map(str::to_owned), (*d).to_owned())).collect();
            assert_eq!(read(Framing::Events, &[stream.as_bytes()]), Ok(expected.clone()), "{name}");
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(read(Framing::Events, &bytes), Ok(expected), "{name}, byte by byte");
        }
        assert_eq!(read(Framing::Events, &[b"data: \xff\n\n"]), Err(Broken::NotUtf8));
    }

    #[test]
    fn items_are_read() {
        for (name, stream, expected) in [
            ("none", "[]", Ok(&[][..])),
            ("two", "[{\"a\":1}\n,\r\n{\"b\":[2]}\n]\n", Ok(&["{\"a\":1}", "{\"b\":[2]}"][..])),
            ("brackets in texts", r#"[{"a":"]}\"{"}]"#, Ok(&[r#"{"a":"]}\"{"}"#][..])),
            ("an object", "{\"error\":1}", Err(Broken::NotAnArray)),
            ("more", "[{}] x", Err(Broken::NotAnArray)),
        ] {
            let expected =
                expected.map(|items| items.iter().map(|item| (None, (*item).to_owned())).collect::<Vec<_>>());
            assert_eq!(read(Framing::Items, &[stream.as_bytes()]), expected, "{name}");
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(read(Framing::Items, &bytes), expected, "{name}, byte by byte");
        }
    }

    #[test]
    fn a_frame_has_a_bound() {
        let mut frames = Frames::new(Framing::Events);
        let piece = vec![b'a'; 1 << 20];
        let fed = (0..32).map(|_| frames.feed(&piece, |_| {})).find(Result::is_err);
        assert_eq!(fed, Some(Err(Broken::TooLong)));
        assert!(frames.kept.len() <= MAX_FRAME + piece.len());
    }

    #[test]
    fn what_is_written_is_one_event() {
        let mut out = Vec::new();
        write_event(&mut out, Some("x"), |out| out.extend_from_slice(b"{\r\n\"a\":\n1}"));
        assert_eq!(out, b"event: x\ndata: {  \"a\": 1}\n\n");
    }

    proptest! {
        /// Wherever a stream is cut, it says the same.
        #[test]
        fn cuts_change_nothing(
            text in "(data: [a-zé]{0,3}|event: b|: c|\n|\r\n|\r|\u{feff}){0,20}",
            cuts in proptest::collection::vec(0usize..200, 0..8),
            items in any::<bool>(),
        ) {
            let framing = if items { Framing::Items } else { Framing::Events };
            let text = if items { format!("[{{{:?}:[]}},{{}}]", text) } else { text };
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(0);
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(framing, &pieces), read(framing, &[bytes]));
        }
    }
}
