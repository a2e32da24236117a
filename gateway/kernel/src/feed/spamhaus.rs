//! The lists of Spamhaus as JSON: an object a line with `cidr` and `sblid`, and one that describes the file.

use std::borrow::Cow;

use serde::Deserialize;

use super::notation::scan_prefix;
use super::plain::{checked_text, next_line};
use super::{NOTHING_SAID, Reading, Refused};

/// The members that matter. Others, such as the registry, are what no entry holds.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    cidr: Option<Text<'a>>,
    #[serde(borrow)]
    sblid: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
}

/// A string of its own type, because serde does not borrow through `Option<Cow<str>>`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn read(bytes: &[u8], reading: &mut Reading) {
    let (mut rest, mut number) = (bytes, 1);
    while !rest.is_empty() {
        let (line, after) = next_line(rest);
        if let Err(refused) = read_line(number, line, reading) {
            reading.refuse(number, refused);
        }
        rest = after;
        number += 1;
    }
}

fn read_line<'a>(number: usize, line: &'a [u8], reading: &mut Reading) -> Result<(), Refused<'a>> {
    let text = checked_text(line)?.trim_ascii();
    if text.is_empty() {
        return Ok(());
    }
    let read: Line<'_> = serde_json::from_str(text)
        .map_err(|_| Refused::foreign(line, "the line is not a JSON object with a member `cidr`"))?;
    let Some(Text(cidr)) = read.cidr else {
        return match read.kind {
            Some(Text(kind)) if kind == "metadata" => Ok(()),
            _ => Err(Refused::foreign(line, "the object has no member `cidr`")),
        };
    };
    let prefix = match (scan_prefix(&cidr, reading.options.allow_everything), cidr) {
        (Ok(prefix), _) => prefix,
        (Err(fault), Cow::Borrowed(cidr)) => return Err(Refused::prefix(cidr, fault)),
        // What had escapes in it stands nowhere in the line as it was read.
        (Err(fault), Cow::Owned(_)) => return Err(Refused::prefix(text, fault)),
    };
    let mut said = NOTHING_SAID;
    if let Some(Text(id)) = read.sblid
        && !id.is_empty()
    {
        said.label = reading.label(&id).map_err(|why| Refused::new(line, why))?;
    }
    reading.add(number, prefix, said);
    Ok(())
}
