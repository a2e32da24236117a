//! How turns become `system` and `messages`: whose turn it is alternates, results of tools come first in a user's turn,
//! and at most four cache marks are left.

use super::block::{Block, Kind, Place, lower};
use super::{DIALECT, Side};
use crate::invalid::{Invalid, Reason};
use crate::loss::{Losses, What};
use crate::neutral::{self, Native, Role, Turn};

/// How many cache marks a request may have.
const MAX_MARKS: usize = 4;

/// A request's instructions and conversation.
#[derive(Debug, Default)]
pub(super) struct Layout<'r> {
    /// Instructions before the conversation.
    pub(super) system: Vec<Block<'r>>,
    /// The conversation.
    pub(super) messages: Vec<Message<'r>>,
}

/// What one of them says.
#[derive(Debug)]
pub(super) struct Message<'r> {
    pub(super) role: Role,
    pub(super) blocks: Vec<Block<'r>>,
    /// Fields that only this dialect knows.
    pub(super) native: Vec<(&'r str, &'r str)>,
    /// Which turn it began with.
    turn: usize,
}

impl<'r> Layout<'r> {
    /// Lays out the turns of a request.
    ///
    /// # Errors
    /// When there is no conversation, or a call without a result.
    pub(super) fn of(
        turns: &'r [Turn<'_>],
        system_turns: bool,
        losses: &mut Losses,
    ) -> Result<Self, Invalid> {
        let mut layout = Self::default();
        for (at, turn) in turns.iter().enumerate() {
            layout.add(at, turn, system_turns, losses)?;
        }
        if layout.messages.is_empty() {
            layout.ask_instructions(turns, losses)?;
        }
        for message in &mut layout.messages {
            // Stable: results stay in the order of the calls, and what was said in that of its saying.
            message.blocks.sort_by_key(|block| !block.is_result());
        }
        layout.trim_prefill(losses);
        layout.check_calls()?;
        Ok(layout)
    }

    fn add(
        &mut self,
        at: usize,
        turn: &'r Turn<'_>,
        system_turns: bool,
        losses: &mut Losses,
    ) -> Result<(), Invalid> {
        let Turn { role, name, parts, native } = turn;
        if name.is_some() {
            losses.add(What::SpeakerName, format!("turns[{at}].name"));
        }
        let role = match role {
            Role::System | Role::Developer => Role::System,
            Role::User | Role::Tool => Role::User,
            Role::Assistant => Role::Assistant,
        };
        let native: Vec<&Native<'_>> =
            neutral::own(native, DIALECT, &format!("turns[{at}]"), losses).collect();
        // Instructions in the middle must follow the user, and not every model takes them.
        let is_hoisted = role == Role::System
            && !(system_turns && self.messages.last().is_some_and(|before| before.role == Role::User));
        if is_hoisted && !self.messages.is_empty() {
            losses.add(What::InstructionPlace, format!("turns[{at}]"));
        }
        // The fields of a turn stand beside what it says, where it has a message of its own.
        let mut unsaid = native;
        for (index, part) in parts.iter().enumerate() {
            let Some(block) = lower(part, role, Side::Provider, Place::Turn(at, index), losses)? else {
                continue;
            };
            if is_hoisted {
                self.system.push(block);
                continue;
            }
            match self.messages.last_mut() {
                Some(last) if last.role == role && (role != Role::System || last.turn == at) => {
                    last.blocks.push(block);
                }
                _ => {
                    let said = std::mem::take(&mut unsaid);
                    let native = said.iter().map(|native| (&*native.name, &*native.raw)).collect();
                    self.messages.push(Message { role, blocks: vec![block], native, turn: at });
                }
            }
        }
        for native in unsaid {
            losses.add(native.what, format!("turns[{at}].{}", native.name));
        }
        Ok(())
    }

    /// Where there are only instructions, the last of them is what is asked: there is no request without a message.
    fn ask_instructions(&mut self, turns: &[Turn<'_>], losses: &mut Losses) -> Result<(), Invalid> {
        let Some(block) = self.system.pop() else {
            let message = "There is nothing in the conversation that could be sent.";
            return Err(Invalid::new(Reason::Value, "messages".to_owned(), message));
        };
        let turn = turns.len().saturating_sub(1);
        losses.add(What::InstructionPlace, format!("turns[{turn}]"));
        self.messages.push(Message { role: Role::User, blocks: vec![block], native: Vec::new(), turn });
        Ok(())
    }

    /// An answer that is to be gone on with must not end in space.
    fn trim_prefill(&mut self, losses: &mut Losses) {
        let Some(last) = self.messages.last_mut().filter(|last| last.role == Role::Assistant) else { return };
        if let Some(Block { kind: Kind::Text { text, .. }, .. }) = last.blocks.last_mut() {
            let length = text.trim_end().len();
            if length < text.len() {
                losses.add(What::PartDetail, format!("turns[{}].text", last.turn));
                text.to_mut().truncate(length);
            }
        }
    }

    /// The results of calls must follow them at once.
    fn check_calls(&self) -> Result<(), Invalid> {
        for (at, message) in self.messages.iter().enumerate() {
            for block in &message.blocks {
                let Kind::ToolUse { id, .. } = &block.kind else { continue };
                let next = self.messages.get(at + 1).map_or(&[][..], |next| &next.blocks);
                let has_result = next
                    .iter()
                    .any(|block| matches!(&block.kind, Kind::ToolResult { id: of, .. } if of == id));
                if !has_result {
                    let path = format!("turns[{}]", message.turn);
                    let message = format!("The tool call {id:?} has no result in the turn that follows it.");
                    return Err(Invalid::new(Reason::Value, path, message));
                }
            }
        }
        Ok(())
    }

    /// Whether a budget for thinking would be refused: the turn that is being gone on with calls tools, and has no
    /// thoughts at its beginning.
    pub(super) fn lacks_thoughts(&self) -> bool {
        let is_result = |message: &Message<'_>| message.blocks.first().is_some_and(Block::is_result);
        let Some(last) = self.messages.len().checked_sub(1).filter(|last| is_result(&self.messages[*last]))
        else {
            return false;
        };
        let Some(before) = last.checked_sub(1).map(|before| &self.messages[before]) else { return false };
        !before.blocks.first().is_some_and(Block::is_thinking)
    }

    /// Leaves at most as many cache marks as a request may have, besides those that are fixed. The first of the
    /// conversation go first: a mark at the end of the instructions serves other conversations as well, and a later mark
    /// covers what an earlier one did.
    pub(super) fn limit_marks(&mut self, fixed: usize, losses: &mut Losses) {
        let mut left = MAX_MARKS.saturating_sub(fixed);
        let system = self.system.iter_mut().rev();
        let mut marks: Vec<(&mut Option<&str>, &str)> =
            system.filter(|block| block.cache.is_some()).map(|block| (&mut block.cache, "system")).collect();
        for message in self.messages.iter_mut().rev() {
            message.blocks.iter_mut().rev().for_each(|block| collect_marks(block, &mut marks));
        }
        for (mark, at) in marks {
            match left.checked_sub(1) {
                Some(rest) => left = rest,
                None => {
                    *mark = None;
                    losses.add(What::CacheControl, at);
                }
            }
        }
    }
}

/// The marks of a block and of what is in it, the last first. A block that travels whole keeps its mark.
fn collect_marks<'b, 'r>(block: &'b mut Block<'r>, marks: &mut Vec<(&'b mut Option<&'r str>, &'static str)>) {
    if block.cache.is_some() {
        marks.push((&mut block.cache, "messages"));
    }
    if let Kind::ToolResult { content, .. } = &mut block.kind {
        content.iter_mut().rev().for_each(|block| collect_marks(block, marks));
    }
}
