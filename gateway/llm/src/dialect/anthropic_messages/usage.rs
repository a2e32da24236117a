//! Tokens, as this dialect counts them: what is read from a cache and written to one stands beside the fresh input, and
//! in a stream later figures replace earlier ones.

use super::DIALECT;
use crate::invalid::Invalid;
use crate::json::{Node, Number, Object, Path, Reader, Value};
use crate::loss::{Losses, What};
use crate::neutral::{Native, Text, Usage};

/// Details that only this dialect knows.
const OWN_DETAILS: &[&str] = &["fallback_credit", "inference_geo", "iterations", "speed"];

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    fresh: Option<u64>,
    cache_read: Option<u64>,
    cache_written: Option<u64>,
    cache_written_1h: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
    searches: Option<u64>,
    /// The tier that served the request.
    pub(super) service_tier: Option<String>,
    /// Names and values of what only this dialect knows.
    pub(super) details: Vec<(&'static str, String)>,
}

impl Counts {
    /// Reads `usage`. What it leaves out stays.
    pub(super) fn read(
        &mut self,
        node: Node<'_>,
        path: &Path<'_>,
        reader: &mut Reader,
    ) -> Result<(), Invalid> {
        reader.object(node, path, |fields, reader| {
            let update = |known: &mut Option<u64>, new: Option<u64>| *known = new.or(*known);
            update(&mut self.fresh, fields.whole("input_tokens")?);
            update(&mut self.output, fields.whole("output_tokens")?);
            update(&mut self.cache_read, fields.whole("cache_read_input_tokens")?);
            update(&mut self.cache_written, fields.whole("cache_creation_input_tokens")?);
            if let Some(node) = fields.take("cache_creation") {
                let path = path.field("cache_creation");
                reader.object(node, &path, |fields, _| {
                    // What was written for five minutes is the rest.
                    fields.whole("ephemeral_5m_input_tokens")?;
                    update(&mut self.cache_written_1h, fields.whole("ephemeral_1h_input_tokens")?);
                    Ok(())
                })?;
            }
            if let Some(node) = fields.take("output_tokens_details") {
                let path = path.field("output_tokens_details");
                reader.object(node, &path, |fields, _| {
                    update(&mut self.thinking, fields.whole("thinking_tokens")?);
                    Ok(())
                })?;
            }
            if let Some(node) = fields.take("server_tool_use") {
                let path = path.field("server_tool_use");
                reader.object(node, &path, |fields, _| {
                    update(&mut self.searches, fields.whole("web_search_requests")?);
                    if let Some(fetches) = fields.whole("web_fetch_requests")?.filter(|fetches| *fetches > 0)
                    {
                        self.keep("web_fetch_requests", &fetches.to_string());
                    }
                    Ok(())
                })?;
            }
            if let Some(tier) = fields.text("service_tier")? {
                // What others call it.
                let tier = if tier == "standard" { "default" } else { &*tier };
                self.service_tier = Some(tier.to_owned());
            }
            for name in OWN_DETAILS {
                // A place that is not told is none.
                if let Some(raw) = fields.raw(name).filter(|raw| *raw != "\"not_available\"") {
                    self.keep(name, raw);
                }
            }
            Ok(())
        })
    }

    fn keep(&mut self, name: &'static str, raw: &str) {
        match self.details.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => raw.clone_into(known),
            None => self.details.push((name, raw.to_owned())),
        }
    }

    /// In the neutral form, where input is all input.
    pub(super) fn usage(&self) -> Usage {
        let cached = self.cache_read.unwrap_or(0).saturating_add(self.cache_written.unwrap_or(0));
        Usage {
            input: self.fresh.map(|fresh| fresh.saturating_add(cached)),
            output: self.output,
            cache_read: self.cache_read,
            cache_written: self.cache_written,
            cache_written_1h: self.cache_written_1h,
            reasoning: self.thinking,
            web_searches: self.searches,
            ..Usage::default()
        }
    }

    /// What only this dialect knows, by name.
    pub(super) fn natives(&self) -> Vec<Native<'static>> {
        let mut natives: Vec<_> = self
            .details
            .iter()
            .map(|(name, raw)| Native::new(DIALECT, What::UsageDetail, format!("usage.{name}"), raw.clone()))
            .collect();
        natives.sort_by(|one, other| one.name.cmp(&other.name));
        natives
    }
}

/// Reads `usage` for metering: what is not as it should be counts as not said.
#[must_use]
pub fn decode_usage(node: &Node<'_>) -> Usage {
    let whole = |node: Option<&Node<'_>>| match node.map(|node| &node.value) {
        Some(Value::Number(number)) => Number::from_text(number).as_u64(),
        _ => None,
    };
    let within = |outer: &str, inner: &str| whole(node.get(outer).and_then(|node| node.get(inner)));
    let counts = Counts {
        fresh: whole(node.get("input_tokens")),
        cache_read: whole(node.get("cache_read_input_tokens")),
        cache_written: whole(node.get("cache_creation_input_tokens")),
        cache_written_1h: within("cache_creation", "ephemeral_1h_input_tokens"),
        output: whole(node.get("output_tokens")),
        thinking: within("output_tokens_details", "thinking_tokens"),
        searches: within("server_tool_use", "web_search_requests"),
        ..Counts::default()
    };
    counts.usage()
}

/// Whether `usage` opens a stream, or says all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// With the tier, and what was cached for how long.
    Whole,
    /// What a stream ends with.
    Final,
}

/// Writes `usage`.
pub(super) fn write(
    object: &mut Object<'_>,
    usage: &Usage,
    service_tier: Option<&Text<'_>>,
    native: &[&Native<'_>],
    extent: Extent,
    losses: &mut Losses,
) {
    let Usage {
        input: _,
        output,
        cache_read,
        cache_written,
        cache_written_1h,
        reasoning,
        audio_input,
        audio_output,
        prediction_accepted,
        prediction_rejected,
        tool_prompt,
        web_searches,
    } = *usage;
    for (name, count) in [
        ("usage.audio_input", audio_input),
        ("usage.audio_output", audio_output),
        ("usage.prediction_accepted", prediction_accepted),
        ("usage.prediction_rejected", prediction_rejected),
        ("usage.tool_prompt", tool_prompt),
    ] {
        if count.is_some_and(|count| count > 0) {
            losses.add(What::UsageDetail, name);
        }
    }
    let fetches = native.iter().find(|native| native.name == "usage.web_fetch_requests");
    object.object("usage", |object| {
        object.whole("input_tokens", usage.fresh_input().unwrap_or(0));
        object.some_whole("cache_creation_input_tokens", cache_written);
        object.some_whole("cache_read_input_tokens", cache_read);
        if extent == Extent::Whole
            && let (Some(written), Some(hour)) = (cache_written, cache_written_1h)
        {
            object.object("cache_creation", |object| {
                object.whole("ephemeral_5m_input_tokens", written.saturating_sub(hour));
                object.whole("ephemeral_1h_input_tokens", hour);
            });
        }
        object.whole("output_tokens", output.unwrap_or(0));
        if let Some(thinking) = reasoning {
            object.object("output_tokens_details", |object| object.whole("thinking_tokens", thinking));
        }
        if web_searches.is_some() || fetches.is_some() {
            object.object("server_tool_use", |object| {
                object.whole("web_search_requests", web_searches.unwrap_or(0));
                object.raw("web_fetch_requests", fetches.map_or("0", |native| &native.raw));
            });
        }
        if extent == Extent::Whole
            && let Some(tier) = service_tier
        {
            write_tier(object, tier, losses);
        }
        for native in native {
            if let Some(name) =
                native.name.strip_prefix("usage.").filter(|name| *name != "web_fetch_requests")
            {
                object.raw(name, &native.raw);
            }
        }
    });
}

fn write_tier(object: &mut Object<'_>, tier: &str, losses: &mut Losses) {
    match tier {
        "standard" | "default" | "standard_only" => object.text("service_tier", "standard"),
        known @ ("priority" | "batch") => object.text("service_tier", known),
        _ => losses.add(What::ServiceTier, "service_tier"),
    }
}
