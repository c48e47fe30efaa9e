//! What is said of a script: bounded in number and length, since the words are the disk's.

use super::machine::Machine;

impl Machine<'_> {
    /// Notes why the outcome cannot be told.
    pub(super) fn doubt(&mut self, reason: &str) {
        note(&mut self.doubts, reason);
    }

    /// Notes what changes nothing.
    pub(super) fn warn(&mut self, text: &str) {
        note(&mut self.warnings, text);
    }
}

fn note(notes: &mut Vec<String>, text: &str) {
    let text = shown(text);
    if notes.len() < MAX_NOTES && !notes.contains(&text) {
        notes.push(text);
    }
}

/// Text of the disk as people can be shown it: on one line, of bounded length, without anything that a terminal obeys.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_NOTE).collect()
}

const MAX_NOTES: usize = 16;
const MAX_NOTE: usize = 400;
