//! The language by which a request says what the mock is to answer.
//!
//! Directives stand in double brackets in the last text of the user, `[[tool=weather cut=1]]`, or behind the
//! model's name, `gpt-5--tool.weather--cut.1`: both survive every translation between dialects, which a header
//! would not. Values with spaces are quoted, `[[say="two words"]]`. An unknown directive is an error of the
//! request: a test that misspells one must not pass.

use std::time::Duration;

/// The longest time that a script may ask for.
const LONGEST: Duration = Duration::from_secs(600);
/// The most words, pieces or tokens that a script may ask for.
const MOST: usize = 1_000_000;

/// What a request asks the mock to do. Each field is the directive of the same name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Script {
    /// `words=N`: a text of N words.
    pub(super) words: Option<usize>,
    /// `say="…"`: this text.
    pub(super) say: Option<String>,
    /// `echo`: a JSON text of what the mock has understood of the request.
    pub(super) echo: bool,
    /// `unicode`: characters of two to four bytes everywhere.
    pub(super) unicode: bool,
    /// `tool=A,B`: calls of these tools, in parallel.
    pub(super) tool: Vec<String>,
    /// `args='{…}'`: the arguments of each call, instead of some that fit its schema.
    pub(super) args: Option<String>,
    /// `empty_args`: calls without any piece of arguments.
    pub(super) empty_args: bool,
    /// `args_in_done`: arguments come whole in the last event of a call (Responses).
    pub(super) args_in_done: bool,
    /// `thinking=N`: N words of reasoning, shown where the request lets them be shown.
    pub(super) thinking: Option<usize>,
    /// `reasoning_content`: they are shown in the field of that name, as compatible servers do (Chat).
    pub(super) reasoning_content: bool,
    /// `refusal`: the model refuses.
    pub(super) refusal: bool,
    /// `filter`: a filter of the provider blocks the answer.
    pub(super) filter: bool,
    /// `length`: the answer ends because it got too long.
    pub(super) length: bool,
    /// `cached=N`: tokens of the input that were read from the cache.
    pub(super) cached: usize,
    /// `written=N`: tokens of the input that were written to the cache (Anthropic).
    pub(super) written: usize,
    /// `reasoning=N`: tokens of reasoning that are not shown.
    pub(super) reasoning: usize,
    /// `status=S`: an error with this status.
    pub(super) status: Option<u16>,
    /// `retry_after=N`: and this field.
    pub(super) retry_after: Option<String>,
    /// `times=N`: only the first N requests of this script fail.
    pub(super) times: Option<usize>,
    /// `html`: the error is a page.
    pub(super) html: bool,
    /// `errors_array`: the error is in an array (Gemini).
    pub(super) errors_array: bool,
    /// `int_code`: the error's code is a number (Chat, Responses).
    pub(super) int_code: bool,
    /// `delay_head=MS`, `delay_first=MS`, `delay=MS`: before the head, the first event, each further one.
    pub(super) delay_head: Duration,
    pub(super) delay_first: Duration,
    pub(super) delay: Duration,
    /// `reset=head|N`: the connection is reset before the head or after N events.
    pub(super) reset: Option<At>,
    /// `half=N`: it is closed in the middle of the event after N.
    pub(super) half: Option<usize>,
    /// `end=N`: the stream ends, as if it were whole, after N events.
    pub(super) end: Option<usize>,
    /// `error_at=N`: an error in the stream after N events.
    pub(super) error_at: Option<usize>,
    /// `hang=head|N`: nothing more comes, and the connection stays.
    pub(super) hang: Option<At>,
    /// `endless`: the stream goes on until the client leaves.
    pub(super) endless: bool,
    /// `cut=K`: the body comes in pieces of K bytes.
    pub(super) cut: Option<usize>,
    /// `gzip`: compressed, where the request accepts that or not.
    pub(super) gzip: bool,
    /// `usage_twice`: the usage comes in two events.
    pub(super) usage_twice: bool,
    /// `short_usage`: a stream's end repeats nothing of what its beginning said (Anthropic).
    pub(super) short_usage: bool,
    /// `usage_on_choice`: it rides on a chunk with a choice (Chat).
    pub(super) usage_on_choice: bool,
    /// `azure`: the first chunk has no choice, and filter results ride along (Chat).
    pub(super) azure: bool,
    /// `crlf`: lines of events end so.
    pub(super) crlf: bool,
    /// `comments`: comments (and pings, Anthropic) between events.
    pub(super) comments: bool,
    /// The script as it was written: what `times` counts by.
    pub(super) source: String,
}

/// A place in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Head,
    Event(usize),
}

impl Script {
    /// Reads the directives of a model's name and a text.
    pub(super) fn read(model: &str, text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        for directive in model.split("--").skip(1) {
            let (key, value) = directive.split_once('.').unwrap_or((directive, ""));
            script.take(key, value)?;
        }
        let mut rest = text;
        while let Some((_, after)) = rest.split_once("[[") {
            let Some((inside, after)) = after.split_once("]]") else { break };
            for (key, value) in directives(inside)? {
                script.take(&key, &value)?;
            }
            rest = after;
        }
        Ok(script)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.source = format!("{}{key}={value};", self.source);
        match key {
            "words" => self.words = Some(number(key, value)?),
            "say" => self.say = Some(value.to_owned()),
            "tool" => self.tool = value.split(',').map(str::to_owned).collect(),
            "args" => self.args = Some(value.to_owned()),
            "thinking" => self.thinking = Some(if value.is_empty() { 4 } else { number(key, value)? }),
            "cached" => self.cached = number(key, value)?,
            "written" => self.written = number(key, value)?,
            "reasoning" => self.reasoning = number(key, value)?,
            "status" => {
                self.status =
                    Some(value.parse().ok().filter(|status| (400..600).contains(status)).ok_or(key)?);
            }
            "retry_after" => self.retry_after = Some(value.to_owned()),
            "times" => self.times = Some(number(key, value)?),
            "delay_head" => self.delay_head = time(key, value)?,
            "delay_first" => self.delay_first = time(key, value)?,
            "delay" => self.delay = time(key, value)?,
            "reset" => self.reset = Some(at(key, value)?),
            "hang" => self.hang = Some(at(key, value)?),
            "half" => self.half = Some(number(key, value)?),
            "end" => self.end = Some(number(key, value)?),
            "error_at" => self.error_at = Some(number(key, value)?),
            "cut" => self.cut = Some(number(key, value)?.max(1)),
            _ => *self.switch(key).ok_or_else(|| format!("the mock knows no directive {key:?}"))? = true,
        }
        Ok(())
    }

    fn switch(&mut self, key: &str) -> Option<&mut bool> {
        Some(match key {
            "echo" => &mut self.echo,
            "unicode" => &mut self.unicode,
            "empty_args" => &mut self.empty_args,
            "args_in_done" => &mut self.args_in_done,
            "reasoning_content" => &mut self.reasoning_content,
            "refusal" => &mut self.refusal,
            "filter" => &mut self.filter,
            "length" => &mut self.length,
            "html" => &mut self.html,
            "errors_array" => &mut self.errors_array,
            "int_code" => &mut self.int_code,
            "endless" => &mut self.endless,
            "gzip" => &mut self.gzip,
            "usage_twice" => &mut self.usage_twice,
            "short_usage" => &mut self.short_usage,
            "usage_on_choice" => &mut self.usage_on_choice,
            "azure" => &mut self.azure,
            "crlf" => &mut self.crlf,
            "comments" => &mut self.comments,
            _ => return None,
        })
    }
}

/// Splits at spaces outside of quotes.
fn directives(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let (value, after) = match after.strip_prefix('=') {
            None => ("", after),
            Some(value) => match value.chars().next().filter(|quote| matches!(quote, '"' | '\'')) {
                Some(quote) => value[1..].split_once(quote).ok_or("a quote of a directive is not closed")?,
                None => value.split_at(value.find(' ').unwrap_or(value.len())),
            },
        };
        found.push((key.to_owned(), value.to_owned()));
        rest = after.trim_start();
    }
    Ok(found)
}

fn number(key: &str, value: &str) -> Result<usize, String> {
    let read = value.parse().ok().filter(|number| *number <= MOST);
    read.ok_or_else(|| format!("the mock cannot take {value:?} for {key}"))
}

fn time(key: &str, value: &str) -> Result<Duration, String> {
    Ok(Duration::from_millis(number(key, value)? as u64).min(LONGEST))
}

fn at(key: &str, value: &str) -> Result<At, String> {
    if value == "head" { Ok(At::Head) } else { Ok(At::Event(number(key, value)?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        let none = Script::default();
        let cases: &[(&str, &str, Result<Script, ()>)] = &[
            ("gpt-5", "hello [world] [[", Ok(none.clone())),
            ("gpt-5", "hello [[words=3]] there", Ok(Script { words: Some(3), ..none.clone() })),
            ("gpt-5--words.3--gzip", "", Ok(Script { words: Some(3), gzip: true, ..none.clone() })),
            (
                "m",
                "[[say=\"a b\" cut=0]]",
                Ok(Script { say: Some("a b".into()), cut: Some(1), ..none.clone() }),
            ),
            (
                "m",
                "[[tool=a,b]] x [[reset=head hang=2]]",
                Ok(Script {
                    tool: vec!["a".into(), "b".into()],
                    reset: Some(At::Head),
                    hang: Some(At::Event(2)),
                    ..none.clone()
                }),
            ),
            ("m", "[[word=3]]", Err(())),
            ("m", "[[words=many]]", Err(())),
            ("m", "[[status=200]]", Err(())),
            ("m", "[[say=\"open]]", Err(())),
        ];
        for (model, text, expected) in cases {
            let read = Script::read(model, text).map(|script| Script { source: String::new(), ..script });
            assert_eq!(read.map_err(drop), *expected, "{model} {text}");
        }
    }
}
