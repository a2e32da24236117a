//! Lists of models, in each dialect's shape.

use crate::dialect::Dialect;
use crate::json::{Object, object};

/// A model, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// As clients ask for it.
    pub id: String,
    /// For people; the identity where there is none.
    pub name: Option<String>,
    /// Whose it is.
    pub owner: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Tokens of prompt and answer together.
    pub context_tokens: Option<u64>,
    /// Tokens of an answer at most.
    pub output_tokens: Option<u64>,
    /// Whether it makes vectors, and no answers.
    pub embeds: bool,
}

/// Writes the list of all models that a client may use.
#[must_use]
pub fn encode_list(dialect: Dialect, models: &[Listed]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + models.len() * 128);
    object(&mut out, |object| match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses => {
            object.text("object", "list");
            each("data", models, object, openai);
        }
        Dialect::AnthropicMessages => {
            each("data", models, object, anthropic);
            object.boolean("has_more", false);
            // The ends of a page, of which there is one.
            match (models.first(), models.last()) {
                (Some(first), Some(last)) => {
                    object.text("first_id", &first.id);
                    object.text("last_id", &last.id);
                }
                _ => {
                    object.null("first_id");
                    object.null("last_id");
                }
            }
        }
        Dialect::Gemini => each("models", models, object, gemini),
    });
    out
}

/// Writes one model.
#[must_use]
pub fn encode_model(dialect: Dialect, model: &Listed) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    object(&mut out, |object| match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses => openai(model, object),
        Dialect::AnthropicMessages => anthropic(model, object),
        Dialect::Gemini => gemini(model, object),
    });
    out
}

fn each(name: &str, models: &[Listed], object: &mut Object<'_>, write: fn(&Listed, &mut Object<'_>)) {
    object.array(name, |array| models.iter().for_each(|model| array.object(|object| write(model, object))));
}

fn openai(model: &Listed, object: &mut Object<'_>) {
    let Listed { id, name: _, owner, created, context_tokens, output_tokens, embeds: _ } = model;
    object.text("id", id);
    object.text("object", "model");
    object.whole("created", *created);
    object.text("owned_by", owner);
    // OpenAI has neither; OpenRouter, Groq and vLLM have, and clients that look for them find them under these names.
    object.some_whole("context_length", *context_tokens);
    object.some_whole("max_completion_tokens", *output_tokens);
}

fn anthropic(model: &Listed, object: &mut Object<'_>) {
    let Listed { id, name, owner: _, created, context_tokens, output_tokens, embeds: _ } = model;
    object.text("type", "model");
    object.text("id", id);
    object.text("display_name", name.as_ref().unwrap_or(id));
    object.text("created_at", &date(*created));
    object.some_whole("max_input_tokens", *context_tokens);
    object.some_whole("max_tokens", *output_tokens);
}

fn gemini(model: &Listed, object: &mut Object<'_>) {
    let Listed { id, name, owner: _, created: _, context_tokens, output_tokens, embeds } = model;
    let full = if id.starts_with("models/") || id.starts_with("tunedModels/") {
        id.clone()
    } else {
        format!("models/{id}")
    };
    object.text("name", &full);
    object.text("displayName", name.as_ref().unwrap_or(id));
    object.some_whole("inputTokenLimit", *context_tokens);
    object.some_whole("outputTokenLimit", *output_tokens);
    object.array("supportedGenerationMethods", |array| {
        let methods: &[&str] = if *embeds {
            &["embedContent", "batchEmbedContents"]
        } else {
            &["generateContent", "streamGenerateContent", "countTokens"]
        };
        methods.iter().for_each(|method| array.text(method));
    });
}

/// A time as RFC 3339 writes it. Of the calendar no more is needed than this, and a crate for it would be the largest that
/// this one has.
fn date(seconds: u64) -> String {
    // Up to the year 9999, beyond which the format ends.
    let seconds = seconds.min(253_402_300_799);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Counted from the first of March of the year 0, so that a leap day is the last of its year: 400 years have 146097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str, embeds: bool) -> Listed {
        Listed {
            id: id.to_owned(),
            name: (!embeds).then(|| "A \"Model\"".to_owned()),
            owner: "openai".to_owned(),
            created: 1_721_172_741,
            context_tokens: Some(128_000),
            output_tokens: (!embeds).then_some(16_384),
            embeds,
        }
    }

    #[test]
    fn lists_have_each_dialects_shape() {
        let models = [model("gpt-6", false), model("text-embedding-3-small", true)];
        let openai = r#"{"object":"list","data":[{"id":"gpt-6","object":"model","created":1721172741,"owned_by":"openai","context_length":128000,"max_completion_tokens":16384},{"id":"text-embedding-3-small","object":"model","created":1721172741,"owned_by":"openai","context_length":128000}]}"#;
        for (dialect, expected) in [
            (Dialect::OpenaiChat, openai),
            (Dialect::OpenaiResponses, openai),
            (
                Dialect::AnthropicMessages,
                r#"{"data":[{"type":"model","id":"gpt-6","display_name":"A \"Model\"","created_at":"2024-07-16T23:32:21Z","max_input_tokens":128000,"max_tokens":16384},{"type":"model","id":"text-embedding-3-small","display_name":"text-embedding-3-small","created_at":"2024-07-16T23:32:21Z","max_input_tokens":128000}],"has_more":false,"first_id":"gpt-6","last_id":"text-embedding-3-small"}"#,
            ),
            (
                Dialect::Gemini,
                r#"{"models":[{"name":"models/gpt-6","displayName":"A \"Model\"","inputTokenLimit":128000,"outputTokenLimit":16384,"supportedGenerationMethods":["generateContent","streamGenerateContent","countTokens"]},{"name":"models/text-embedding-3-small","displayName":"text-embedding-3-small","inputTokenLimit":128000,"supportedGenerationMethods":["embedContent","batchEmbedContents"]}]}"#,
            ),
        ] {
            assert_eq!(String::from_utf8_lossy(&encode_list(dialect, &models)), expected);
            let one = encode_model(dialect, &models[0]);
            assert!(expected.contains(&*String::from_utf8_lossy(&one)), "{dialect}");
        }
        let none = encode_list(Dialect::AnthropicMessages, &[]);
        assert_eq!(none, br#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
