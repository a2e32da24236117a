//! Reads tables of models. What cannot be is an error that names the field; a field that nobody knows is one, too: a price
//! under a name that is misspelt would be no price.

use super::price::MAX_RATE;
use super::{Card, Entry, MAX_MODELS, MAX_NAME, Modality, Prices, Rates};
use crate::invalid::{Invalid, Reason};
use crate::json::{Fields, Node, Path, Reader, parse};
use crate::target::Thinking;

/// How many other names a model may have.
const MAX_ALIASES: usize = 64;

/// Changes entries by a table.
pub(super) fn merge(file: &str, entries: &mut Vec<Entry>) -> Result<(), Invalid> {
    let mut reader = Reader::default();
    let node = parse(file.as_bytes())?;
    reader.object(node, &Path::Root, |fields, reader| {
        let as_of = date(fields, "as_of")?.ok_or_else(|| Path::Root.misses("as_of"))?;
        let models = fields.need("models")?;
        reader.array(models, &Path::Root.field("models"), |model, path, reader| {
            entry(model, path, reader, &as_of, entries)
        })?;
        Ok(())
    })?;
    match reader.losses.kept().first() {
        Some(unknown) => Err(Invalid::new(Reason::Value, unknown.at.clone(), "There is no such field.")),
        None => Ok(()),
    }
}

fn entry(
    node: Node<'_>,
    path: &Path<'_>,
    reader: &mut Reader,
    as_of: &str,
    entries: &mut Vec<Entry>,
) -> Result<(), Invalid> {
    reader.object(node, path, |fields, reader| {
        let id = fields.need_text("id")?;
        check_name(&id, &path.field("id"))?;
        let at = entries.iter().position(|known| known.id == *id);
        let mut entry =
            at.map_or_else(|| Entry { id: id.to_string(), ..Entry::default() }, |at| entries[at].clone());
        entry.as_of = date(fields, "as_of")?.unwrap_or_else(|| as_of.to_owned());
        change(&mut entry, fields, reader)?;
        match at {
            Some(at) => entries[at] = entry,
            None if entries.len() == MAX_MODELS => {
                return Err(Invalid::new(
                    Reason::TooLarge,
                    path.to_string(),
                    format!("There may be {MAX_MODELS} models, and not more."),
                ));
            }
            None => entries.push(entry),
        }
        Ok(())
    })
}

/// Takes what an entry says.
fn change(entry: &mut Entry, fields: &mut Fields<'_, '_>, reader: &mut Reader) -> Result<(), Invalid> {
    let path = fields.path();
    if let Some(aliases) = fields.texts("aliases")? {
        let at = path.field("aliases");
        if aliases.len() > MAX_ALIASES {
            return Err(at.refused(format!("There may be {MAX_ALIASES}, and not more.")));
        }
        for (index, alias) in aliases.iter().enumerate() {
            check_name(alias, &at.item(index))?;
        }
        entry.aliases = aliases.iter().map(ToString::to_string).collect();
    }
    let owner = fields.text("owner")?.map(|owner| owner.into_owned());
    keep(&mut entry.owner, owner);
    keep(&mut entry.context_tokens, fields.whole("context_tokens")?);
    keep(&mut entry.output_tokens, fields.whole("output_tokens")?);
    keep(&mut entry.input, modalities(fields, "input")?);
    keep(&mut entry.output, modalities(fields, "output")?);
    keep(&mut entry.tools, fields.boolean("tools")?);
    keep(&mut entry.parallel_tools, fields.boolean("parallel_tools")?);
    keep(&mut entry.structured_output, fields.boolean("structured_output")?);
    let at = path.field("thinking");
    keep(&mut entry.thinking, fields.take("thinking").map(|node| thinking(node, &at, reader)).transpose()?);
    keep(&mut entry.takes_sampling, fields.boolean("sampling")?);
    keep(&mut entry.system_turns, fields.boolean("system_turns")?);
    let at = path.field("prices");
    keep(&mut entry.prices, fields.take("prices").map(|node| prices(node, &at, reader)).transpose()?);
    Ok(())
}

/// What was said replaces what was known.
fn keep<T>(known: &mut Option<T>, said: Option<T>) {
    if said.is_some() {
        *known = said;
    }
}

fn check_name(name: &str, path: &Path<'_>) -> Result<(), Invalid> {
    let is_whole = !name.trim_end_matches('*').is_empty() && !name.trim_end_matches('*').contains('*');
    if is_whole && name.len() <= MAX_NAME && !name.ends_with("**") {
        Ok(())
    } else {
        Err(path.refused(format!(
            "This must be a model's name of 1 to {MAX_NAME} bytes; `*` may stand at its end only."
        )))
    }
}

/// A month, or a day.
fn date(fields: &mut Fields<'_, '_>, name: &str) -> Result<Option<String>, Invalid> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if matches!(shape.as_str(), "0000-00" | "0000-00-00") {
        Ok(Some(text.into_owned()))
    } else {
        Err(fields.path().field(name).refused("This must be a month or a day, as 2026-11 or 2026-11-27."))
    }
}

fn modalities(fields: &mut Fields<'_, '_>, name: &str) -> Result<Option<Vec<Modality>>, Invalid> {
    let Some(words) = fields.texts(name)? else { return Ok(None) };
    let at = fields.path().field(name);
    let read = words.iter().enumerate().map(|(index, word)| match &**word {
        "text" => Ok(Modality::Text),
        "image" => Ok(Modality::Image),
        "document" => Ok(Modality::Document),
        "audio" => Ok(Modality::Audio),
        "video" => Ok(Modality::Video),
        _ => Err(at.item(index).refused("This must be text, image, document, audio or video.")),
    });
    read.collect::<Result<_, _>>().map(Some)
}

fn thinking(node: Node<'_>, path: &Path<'_>, reader: &mut Reader) -> Result<Thinking, Invalid> {
    match node.as_text() {
        Some("none") => return Ok(Thinking::None),
        Some("effort") => return Ok(Thinking::Effort),
        Some("adaptive") => return Ok(Thinking::Adaptive),
        Some(_) => {
            return Err(path.refused("This must be none, effort, adaptive or an object with a budget."));
        }
        None => {}
    }
    reader.object(node, path, |fields, reader| {
        let path = path.field("budget");
        let budget = fields.need("budget")?;
        reader.object(budget, &path, |fields, _| {
            let min = fields.whole("min")?.ok_or_else(|| path.misses("min"))?;
            let max = fields.whole("max")?.ok_or_else(|| path.misses("max"))?;
            let can_be_off = fields.boolean("can_be_off")?.ok_or_else(|| path.misses("can_be_off"))?;
            if min > max {
                return Err(path.field("min").refused("This must not be more than `max`."));
            }
            Ok(Thinking::Budget { min, max, can_be_off })
        })
    })
}

fn prices(node: Node<'_>, path: &Path<'_>, reader: &mut Reader) -> Result<Prices, Invalid> {
    reader.object(node, path, |fields, reader| {
        let standard = card(fields, reader)?;
        let mut tier = |name: &str, reader: &mut Reader| {
            let at = path.field(name);
            fields.take(name).map(|node| reader.object(node, &at, card)).transpose()
        };
        let batch = tier("batch", reader)?;
        let flex = tier("flex", reader)?;
        let priority = tier("priority", reader)?;
        let search = rate(fields, "search")?.unwrap_or(0);
        Ok(Prices { standard, batch, flex, priority, search })
    })
}

fn card(fields: &mut Fields<'_, '_>, reader: &mut Reader) -> Result<Card, Invalid> {
    let rates = rates(fields, None)?;
    let at = fields.path().field("above");
    let above = fields.take("above").map(|node| {
        reader.object(node, &at, |fields, _| {
            let tokens = fields.whole("tokens")?.ok_or_else(|| at.misses("tokens"))?;
            self::rates(fields, Some(&rates)).map(|rates| (tokens, rates))
        })
    });
    Ok(Card { rates, above: above.transpose()? })
}

/// Prices that are not named are those of plain input and output. None is lower than its `floor`: a request that is longer
/// must not cost less.
fn rates(fields: &mut Fields<'_, '_>, floor: Option<&Rates>) -> Result<Rates, Invalid> {
    let path = fields.path();
    let mut read = |name: &str, otherwise: Option<u64>, floor: Option<u64>| {
        let said = rate(fields, name)?;
        let value = said.or(otherwise).ok_or_else(|| path.misses(name))?;
        if floor.is_some_and(|floor| value < floor) {
            return Err(path.field(name).refused("This must not be less than what shorter requests cost."));
        }
        Ok(value)
    };
    let input = read("input", None, floor.map(|floor| floor.input))?;
    let output = read("output", None, floor.map(|floor| floor.output))?;
    let cache_read = read("cache_read", Some(input), floor.map(|floor| floor.cache_read))?;
    let cache_write_5m = read("cache_write_5m", Some(input), floor.map(|floor| floor.cache_write_5m))?;
    let cache_write_1h =
        read("cache_write_1h", Some(cache_write_5m), floor.map(|floor| floor.cache_write_1h))?;
    let audio_input = read("audio_input", Some(input), floor.map(|floor| floor.audio_input))?;
    let audio_output = read("audio_output", Some(output), floor.map(|floor| floor.audio_output))?;
    Ok(Rates { input, output, cache_read, cache_write_5m, cache_write_1h, audio_input, audio_output })
}

fn rate(fields: &mut Fields<'_, '_>, name: &str) -> Result<Option<u64>, Invalid> {
    let rate = fields.whole(name)?;
    if rate.is_some_and(|rate| rate > MAX_RATE) {
        let message =
            format!("This must be micro-dollars for a million tokens, and not more than {MAX_RATE}.");
        return Err(fields.path().field(name).refused(message));
    }
    Ok(rate)
}
