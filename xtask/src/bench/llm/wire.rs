//! What goes over the wire: requests as SDKs write them, replies and streams as the two providers send them. The origin
//! sends these bytes, and the load looks for what they say.

use super::scene::{Lane, Scene};

/// Bytes of a whole reply in Chat Completions; one in Messages is as long.
const REPLY_BYTES: usize = 1024;

/// The model that the provider of Chat Completions knows.
pub(crate) const CHAT_MODEL: &str = "gpt-4o";
/// The name that clients use where the provider is told [`CHAT_MODEL`].
pub(crate) const SPLICED_MODEL: &str = "house-model";
/// The model of the provider of Messages.
pub(crate) const MESSAGES_MODEL: &str = "claude-haiku-4-5";

/// What providers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Messages,
}

/// The body of a client's request, in Chat Completions, of as many bytes as the scene says.
pub(crate) fn request(scene: Scene) -> String {
    let model = match scene.lane() {
        Lane::Pass => CHAT_MODEL,
        Lane::Splice => SPLICED_MODEL,
        Lane::Translate => MESSAGES_MODEL,
    };
    // The origin takes the number of words from here.
    let max_tokens = scene.events().unwrap_or(256);
    let stream = if scene.events().is_some() { ",\"stream\":true" } else { "" };
    let body = |messages: &str| {
        format!(
            r#"{{"model":"{model}","max_tokens":{max_tokens},"temperature":0.5{stream},"messages":[{{"role":"system","content":"You answer in one sentence."}}{messages}]}}"#
        )
    };
    // Turns of a kibibyte and less, as a conversation has them: 1 KiB is one of them, 1 MiB are many.
    let question = |bytes: usize| format!(r#",{{"role":"user","content":"{}"}}"#, prose(bytes));
    let answer = |bytes: usize| format!(r#",{{"role":"assistant","content":"{}"}}"#, prose(bytes));
    let mut messages = String::new();
    while body(&messages).len() + 2048 < scene.request_bytes() {
        messages.push_str(&question(480));
        messages.push_str(&answer(480));
    }
    let missing = scene.request_bytes() - body(&(messages.clone() + &question(0))).len();
    messages.push_str(&question(missing));
    body(&messages)
}

/// The text of a whole reply.
pub(crate) fn reply_text(dialect: Dialect) -> String {
    prose(REPLY_BYTES - reply_of(dialect, "").len())
}

/// The body of a whole reply.
pub(crate) fn reply(dialect: Dialect) -> String {
    reply_of(dialect, &reply_text(dialect))
}

fn reply_of(dialect: Dialect, text: &str) -> String {
    match dialect {
        Dialect::Chat => format!(
            r#"{{"id":"chatcmpl-BkYh2mVsCIGhqVfyQ","object":"chat.completion","created":1764000000,"model":"{CHAT_MODEL}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":210,"completion_tokens":180,"total_tokens":390,"prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0}}}}}}"#
        ),
        Dialect::Messages => format!(
            r#"{{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"{MESSAGES_MODEL}","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":210,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":180}}}}"#
        ),
    }
}

/// A stream in three: what comes before the first word, an event a word, and what comes behind the last.
pub(crate) struct Stream {
    pub(crate) begin: String,
    pub(crate) words: Vec<String>,
    pub(crate) end: String,
}

pub(crate) fn stream(dialect: Dialect, words: usize) -> Stream {
    match dialect {
        Dialect::Chat => {
            let chunk = |delta: &str, reason: &str| {
                format!(
                    "data: {{\"id\":\"chatcmpl-BkYh2mVsCIGhqVfyQ\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\
                     \"model\":\"{CHAT_MODEL}\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{{\"index\":0,\"delta\":{delta},\
                     \"logprobs\":null,\"finish_reason\":{reason}}}]}}\n\n"
                )
            };
            Stream {
                begin: chunk(r#"{"role":"assistant","content":"","refusal":null}"#, "null"),
                words: (0..words)
                    .map(|number| chunk(&format!(r#"{{"content":"{}"}}"#, word(number)), "null"))
                    .collect(),
                end: chunk("{}", "\"stop\"") + "data: [DONE]\n\n",
            }
        }
        Dialect::Messages => {
            let event =
                |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n");
            let delta = |number| {
                let text = word(number);
                event(
                    "content_block_delta",
                    &format!(r#","index":0,"delta":{{"type":"text_delta","text":"{text}"}}"#),
                )
            };
            Stream {
                begin: event(
                    "message_start",
                    &format!(
                        r#","message":{{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"{MESSAGES_MODEL}","content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":210,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}}"#
                    ),
                ) + &event(
                    "content_block_start",
                    r#","index":0,"content_block":{"type":"text","text":""}"#,
                ),
                words: (0..words).map(delta).collect(),
                end: event("content_block_stop", r#","index":0"#)
                    + &event(
                        "message_delta",
                        r#","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":180}"#,
                    )
                    + &event("message_stop", ""),
            }
        }
    }
}

/// The words of streams can be told from each other, and from everything else.
pub(crate) fn word(number: usize) -> String {
    format!("word{number:03} ")
}

/// Text that needs no escapes, of so many bytes.
fn prose(bytes: usize) -> String {
    "The quick brown fox jumps over the lazy dog, and then it rests. ".chars().cycle().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_long_as_their_scene_says() {
        for scene in Scene::ALL {
            let body = request(scene);
            assert_eq!(body.len(), scene.request_bytes(), "{}", scene.title());
            assert_eq!(body.contains("\"stream\":true"), scene.events().is_some(), "{}", scene.title());
        }
    }

    #[test]
    fn replies_and_streams() {
        for dialect in [Dialect::Chat, Dialect::Messages] {
            assert_eq!(reply(dialect).len(), REPLY_BYTES);
            assert!(reply(dialect).contains(&format!("\"{}\"", reply_text(dialect))));
            let stream = stream(dialect, 3);
            assert!(stream.words.iter().enumerate().all(|(number, event)| event.contains(&word(number))));
            assert!(stream.begin.ends_with("\n\n") && stream.end.ends_with("\n\n"));
        }
    }
}
