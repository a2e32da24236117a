//! Reads objects field by field, so that what nobody asked for is noticed.
//!
//! An object is read inside [`Reader::object`]: what the closure has not taken by then is noted as a loss. No decoder
//! can forget a field in silence.

use std::borrow::Cow;
use std::fmt;

use super::{Node, Number, Value};
use crate::invalid::{Invalid, Reason};
use crate::loss::{Loss, Losses, What};

/// Where in a body something stands, as in `messages[2].content`.
#[derive(Debug, Clone, Copy)]
pub enum Path<'p> {
    /// The body itself.
    Root,
    /// A field of an object.
    Field(&'p Path<'p>, &'p str),
    /// An item of an array.
    Item(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    /// The path of a field of what is here.
    #[must_use]
    pub const fn field(&'p self, name: &'p str) -> Self {
        Self::Field(self, name)
    }

    /// The path of an item of what is here.
    #[must_use]
    pub const fn item(&'p self, index: usize) -> Self {
        Self::Item(self, index)
    }

    /// An error about what is here: it is of the right type, and still cannot be.
    #[must_use]
    pub fn refused(&self, message: impl Into<String>) -> Invalid {
        Invalid::new(Reason::Value, self.to_string(), message)
    }

    /// An error about a field that is not here.
    #[must_use]
    pub fn misses(&self, name: &str) -> Invalid {
        Invalid::new(Reason::Missing, self.field(name).to_string(), "This field is required.")
    }

    fn is_no(&self, expected: &str, value: &Value<'_>) -> Invalid {
        let message = format!("This must be {expected}, and is {}.", value.kind());
        Invalid::new(Reason::Type, self.to_string(), message)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What reading a body gathers beside its values.
#[derive(Debug, Default)]
pub struct Reader {
    /// What was there and has no place in the neutral form.
    pub losses: Losses,
}

impl Reader {
    /// Reads an object; what `read` leaves of it is noted as lost.
    ///
    /// # Errors
    /// When it is no object, and whatever `read` says.
    pub fn object<'a, T>(
        &mut self,
        node: Node<'a>,
        path: &Path<'_>,
        read: impl FnOnce(&mut Fields<'a, '_>, &mut Self) -> Result<T, Invalid>,
    ) -> Result<T, Invalid> {
        let members = match node.value {
            Value::Object(members) => members,
            other => return Err(path.is_no("an object", &other)),
        };
        let mut fields = Fields { members: members.into_iter().map(Some).collect(), path };
        let result = read(&mut fields, self)?;
        for (name, value) in fields.members.into_iter().flatten() {
            // `null` says that a field is not there.
            if value.value != Value::Null {
                self.losses.note(Loss::new(What::UnknownField, path.field(&name).to_string()));
            }
        }
        Ok(result)
    }

    /// Reads each item of an array.
    ///
    /// # Errors
    /// When it is no array, and whatever `read` says.
    pub fn array<'a, T>(
        &mut self,
        node: Node<'a>,
        path: &Path<'_>,
        mut read: impl FnMut(Node<'a>, &Path<'_>, &mut Self) -> Result<T, Invalid>,
    ) -> Result<Vec<T>, Invalid> {
        let items = match node.value {
            Value::Array(items) => items,
            other => return Err(path.is_no("an array", &other)),
        };
        items.into_iter().enumerate().map(|(index, item)| read(item, &path.item(index), self)).collect()
    }

    /// Notes that what is here is lost.
    pub fn loses(&mut self, what: What, path: &Path<'_>) {
        self.losses.note(Loss::new(what, path.to_string()));
    }
}

/// The fields of an object that nobody has taken yet.
#[derive(Debug)]
pub struct Fields<'a, 'p> {
    members: Vec<Option<(Cow<'a, str>, Node<'a>)>>,
    path: &'p Path<'p>,
}

impl<'a, 'p> Fields<'a, 'p> {
    /// Where the object stands.
    #[must_use]
    pub const fn path(&self) -> &'p Path<'p> {
        self.path
    }

    /// Takes a field. One that is null counts as one that is not there.
    pub fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let found =
            self.members.iter_mut().find(|member| member.as_ref().is_some_and(|(known, _)| known == name))?;
        found.take().map(|(_, node)| node).filter(|node| node.value != Value::Null)
    }

    /// Takes the field of either name: Google's APIs take `camelCase` and `snake_case`.
    pub fn take_either(&mut self, name: &str, other: &str) -> Option<Node<'a>> {
        self.take(name).or_else(|| self.take(other))
    }

    /// Looks at a string without taking it: the `type` that decides how the rest is read.
    #[must_use]
    pub fn peek_text(&self, name: &str) -> Option<&str> {
        self.members.iter().flatten().find_map(|(known, node)| match &node.value {
            Value::Text(text) if known == name => Some(&**text),
            _ => None,
        })
    }

    /// Whether a field is there and not null.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().flatten().any(|(known, node)| known == name && node.value != Value::Null)
    }

    /// Takes whatever is left, names and values, so that nothing of it counts as lost.
    pub fn take_rest(&mut self) -> Vec<(Cow<'a, str>, Node<'a>)> {
        self.members.drain(..).flatten().collect()
    }

    /// A string.
    ///
    /// # Errors
    /// When the field is there and is none.
    pub fn text(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, Invalid> {
        self.take(name).map(|node| node.into_text(&self.path.field(name))).transpose()
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need_text(&mut self, name: &str) -> Result<Cow<'a, str>, Invalid> {
        self.text(name)?.ok_or_else(|| self.path.misses(name))
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&mut self, name: &str) -> Result<Node<'a>, Invalid> {
        self.take(name).ok_or_else(|| self.path.misses(name))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When the field is there and is neither.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, Invalid> {
        self.take(name)
            .map(|node| match node.value {
                Value::Bool(value) => Ok(value),
                other => Err(self.path.field(name).is_no("a boolean", &other)),
            })
            .transpose()
    }

    /// A number, in its own digits.
    ///
    /// # Errors
    /// When the field is there and is none.
    pub fn number(&mut self, name: &str) -> Result<Option<Number<'a>>, Invalid> {
        self.take(name).map(|node| node.into_number(&self.path.field(name))).transpose()
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// When the field is there and is none.
    pub fn whole(&mut self, name: &str) -> Result<Option<u64>, Invalid> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        let whole = number.as_u64();
        whole
            .map(Some)
            .ok_or_else(|| self.path.field(name).refused("This must be a whole number, and not negative."))
    }

    /// The text of whatever stands there.
    pub fn raw(&mut self, name: &str) -> Option<&'a str> {
        self.take(name).map(|node| node.raw)
    }

    /// Strings, in an array.
    ///
    /// # Errors
    /// When the field is there and is no array of strings.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<Cow<'a, str>>>, Invalid> {
        let Some(node) = self.take(name) else { return Ok(None) };
        let path = self.path.field(name);
        match node.value {
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| item.into_text(&path.item(index)))
                .collect::<Result<_, _>>()
                .map(Some),
            other => Err(path.is_no("an array of strings", &other)),
        }
    }
}

impl<'a> Node<'a> {
    /// A string.
    ///
    /// # Errors
    /// When it is none.
    pub fn into_text(self, path: &Path<'_>) -> Result<Cow<'a, str>, Invalid> {
        match self.value {
            Value::Text(text) => Ok(text),
            other => Err(path.is_no("a string", &other)),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// When it is none.
    pub fn into_number(self, path: &Path<'_>) -> Result<Number<'a>, Invalid> {
        match self.value {
            Value::Number(text) => Ok(Number::from_text(text)),
            other => Err(path.is_no("a number", &other)),
        }
    }

    /// A field of an object, to look at.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Object(members) => members.iter().find(|(known, _)| known == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// A string, to look at.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}
