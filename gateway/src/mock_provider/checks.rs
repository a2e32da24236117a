//! Reads requests as strictly as providers do: unknown fields, missing ones and wrong types are found with their
//! place, and each dialect says it in its own words.

use serde_json::{Map, Value};

/// What is wrong with a request, and where: `messages[0].content`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) at: String,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Missing,
    Unknown,
    /// Another type was expected.
    Type(&'static str),
    /// The value is none of these.
    Value(String),
    /// The provider has a sentence of its own for it.
    Sentence(String),
    /// The request failed by itself, with this status.
    Status(u16, String),
}

pub(super) type Checked<T = ()> = Result<T, Problem>;

/// A sentence about the whole request, or a place in it.
pub(super) fn wrong<T>(at: &str, sentence: impl Into<String>) -> Checked<T> {
    Err(Problem { at: at.to_owned(), what: What::Sentence(sentence.into()) })
}

/// An object of a request, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    pub(super) at: String,
}

impl<'a> Object<'a> {
    pub(super) fn of(value: &'a Value, at: impl Into<String>) -> Checked<Self> {
        let at = at.into();
        match value {
            Value::Object(map) => Ok(Self { map, at }),
            _ => Err(Problem { at, what: What::Type("object") }),
        }
    }

    pub(super) fn place(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// Refuses fields that are none of these.
    pub(super) fn only(&self, known: &[&str]) -> Checked {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Problem { at: self.place(key), what: What::Unknown }),
            None => Ok(()),
        }
    }

    /// A field; one that is null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The first of several spellings.
    pub(super) fn any(&self, keys: [&str; 2]) -> Option<&'a Value> {
        keys.iter().find_map(|key| self.get(key))
    }

    pub(super) fn need(&self, key: &str) -> Checked<&'a Value> {
        self.get(key).ok_or_else(|| Problem { at: self.place(key), what: What::Missing })
    }

    fn typed<T>(
        &self,
        key: &str,
        name: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Checked<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || Problem { at: self.place(key), what: What::Type(name) };
        read(value).map(Some).ok_or_else(wrong)
    }

    pub(super) fn text(&self, key: &str) -> Checked<Option<&'a str>> {
        self.typed(key, "string", Value::as_str)
    }

    pub(super) fn need_text(&self, key: &str) -> Checked<&'a str> {
        self.need(key)?;
        Ok(self.text(key)?.unwrap_or_default())
    }

    pub(super) fn flag(&self, key: &str) -> Checked<bool> {
        Ok(self.typed(key, "boolean", Value::as_bool)?.unwrap_or_default())
    }

    pub(super) fn integer(&self, key: &str) -> Checked<Option<u64>> {
        self.typed(key, "integer", Value::as_u64)
    }

    /// A number between two others.
    pub(super) fn number(&self, key: &str, least: f64, most: f64) -> Checked<Option<f64>> {
        let number = self.typed(key, "number", Value::as_f64)?;
        match number.filter(|number| !(least..=most).contains(number)) {
            Some(number) => Err(Problem {
                at: self.place(key),
                what: What::Value(format!("expected a value between {least} and {most}, but got {number}")),
            }),
            None => Ok(number),
        }
    }

    /// One of these words.
    pub(super) fn choice(&self, key: &str, words: &[&str]) -> Checked<Option<&'a str>> {
        let word = self.text(key)?;
        match word.filter(|word| !words.contains(word)) {
            Some(word) => Err(Problem { at: self.place(key), what: What::Value(not_of(word, words)) }),
            None => Ok(word),
        }
    }

    pub(super) fn need_choice(&self, key: &str, words: &[&str]) -> Checked<&'a str> {
        self.need(key)?;
        Ok(self.choice(key, words)?.unwrap_or_default())
    }

    pub(super) fn object(&self, key: &str) -> Checked<Option<Object<'a>>> {
        self.get(key).map(|value| Object::of(value, self.place(key))).transpose()
    }

    pub(super) fn need_object(&self, key: &str) -> Checked<Object<'a>> {
        Object::of(self.need(key)?, self.place(key))
    }

    /// An array's values, each with its place; none where it is absent.
    pub(super) fn list(&self, key: &str) -> Checked<Vec<(String, &'a Value)>> {
        let values = self.typed(key, "array", Value::as_array)?;
        let place = self.place(key);
        let each = values.into_iter().flatten().enumerate();
        Ok(each.map(|(index, value)| (format!("{place}[{index}]"), value)).collect())
    }

    /// The same, where each value is an object.
    pub(super) fn objects(&self, key: &str) -> Checked<Vec<Object<'a>>> {
        self.list(key)?.into_iter().map(|(at, value)| Object::of(value, at)).collect()
    }

    /// Strings of an array.
    pub(super) fn texts(&self, key: &str) -> Checked<Vec<String>> {
        let read = |(at, value): (String, &Value)| {
            value.as_str().map(str::to_owned).ok_or(Problem { at, what: What::Type("string") })
        };
        self.list(key)?.into_iter().map(read).collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }
}

pub(super) fn not_of(word: &str, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    format!("Invalid value: '{word}'. Supported values are: {}.", words.join(", "))
}

/// Whether a tool may be called so.
pub(super) fn is_name(name: &str, longest: usize) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    !name.is_empty() && name.len() <= longest && name.bytes().all(fits)
}
