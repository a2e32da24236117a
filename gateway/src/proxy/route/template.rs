//! Paths with parameters: a tree of segments, in which a request's path is looked up by walking down.
//!
//! At each segment what is written out comes before a parameter; where that leads nowhere, the parameter is tried. So
//! a look-up visits a node at most once, and never more nodes than the routes have segments.

use std::collections::HashMap;

use crate::model::{Segment, Template};

/// The templates of one host; at each of them, something.
#[derive(Debug)]
pub(super) struct Tree<T> {
    literals: HashMap<Box<str>, Tree<T>>,
    parameter: Option<Box<Tree<T>>>,
    /// Of the templates that end here.
    whole: Option<T>,
    /// Of those that end here and take what is below.
    below: Option<T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), parameter: None, whole: None, below: None }
    }
}

impl<T: Default> Tree<T> {
    /// What stands at a template; it is made if there is nothing.
    pub(super) fn entry(&mut self, template: &Template) -> &mut T {
        let mut node = self;
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.as_str().into()).or_default(),
                Segment::Parameter(_) => node.parameter.get_or_insert_default(),
            };
        }
        if template.below { node.below.get_or_insert_default() } else { node.whole.get_or_insert_default() }
    }
}

impl<T> Tree<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.parameter.is_none() && self.whole.is_none() && self.below.is_none()
    }

    /// Everything, in whatever order.
    pub(super) fn each(&mut self, see: &mut impl FnMut(&mut T)) {
        self.whole.iter_mut().chain(&mut self.below).for_each(&mut *see);
        self.literals.values_mut().for_each(|tree| tree.each(see));
        self.parameter.iter_mut().for_each(|tree| tree.each(see));
    }

    /// Asks what stands at each template that is the whole path, those with more written out on the left first,
    /// until one of them has an answer.
    pub(super) fn whole<'a, R>(&'a self, path: &str, ask: &mut impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        let Some((segment, rest)) = next_segment(path) else {
            return self.whole.as_ref().and_then(ask);
        };
        let literal = self.literals.get(segment).and_then(|tree| tree.whole(rest, ask));
        literal.or_else(|| self.by_parameter(segment)?.whole(rest, ask))
    }

    /// Gathers what stands at each template that the path is below of, with how many of the path's bytes it takes:
    /// the longest last, and of those of one length, those with more written out on the left.
    pub(super) fn below<'a>(&'a self, path: &str, taken: usize, found: &mut Vec<(usize, &'a T)>) {
        if let Some(below) = &self.below {
            // It was found after those that write out more of the same segments.
            let at = found.partition_point(|(length, _)| *length < taken);
            found.insert(at, (taken, below));
        }
        let Some((segment, rest)) = next_segment(path) else { return };
        let taken = taken + 1 + segment.len();
        for tree in self.literals.get(segment).into_iter().chain(self.by_parameter(segment)) {
            tree.below(rest, taken, found);
        }
    }

    fn by_parameter(&self, segment: &str) -> Option<&Self> {
        self.parameter.as_deref().filter(|_| !segment.is_empty())
    }
}

/// The first segment of a path and what follows it; `None` at its end.
fn next_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let end = memchr::memchr(b'/', path.as_bytes()).unwrap_or(path.len());
    Some(path.split_at(end))
}

/// What a path has in the place of each parameter, in order, and how many of its bytes the template takes; `None` if it
/// does not match.
pub(in crate::proxy) fn captures<'a>(template: &Template, path: &'a str) -> Option<(Vec<&'a str>, usize)> {
    let (mut values, mut rest) = (Vec::new(), path);
    for expected in &template.segments {
        let (segment, behind) = next_segment(rest)?;
        match expected {
            Segment::Literal(text) if text == segment => {}
            Segment::Parameter(_) if !segment.is_empty() => values.push(segment),
            _ => return None,
        }
        rest = behind;
    }
    (template.below || rest.is_empty()).then_some((values, path.len() - rest.len()))
}
