//! Collects differences: values that are equal leave nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::{Class, Difference};

#[derive(Default)]
pub(super) struct Findings {
    part: &'static str,
    pub(super) differences: Vec<Difference>,
    pub(super) uncompared: Vec<String>,
}

/// What a difference does, and why.
pub(super) type Judgement<'a> = (Class, &'a str);

impl Findings {
    /// What follows is about this part.
    pub(super) fn part(&mut self, part: &'static str) {
        self.part = part;
    }

    /// A value before and after, either of which may be absent.
    pub(super) fn value<T: Display + PartialEq>(
        &mut self,
        subject: &str,
        (before, after): (Option<T>, Option<T>),
        (class, why): Judgement<'_>,
    ) {
        if before != after {
            self.differences.push(Difference {
                class,
                part: self.part.to_owned(),
                subject: shown(&subject),
                before: before.map(|value| shown(&value)),
                after: after.map(|value| shown(&value)),
                why: shown(&why),
            });
        }
    }

    /// What one set has and the other has not.
    pub(super) fn sets(
        &mut self,
        (gone, come): (&str, &str),
        (before, after): (&BTreeSet<String>, &BTreeSet<String>),
        judge: impl Fn(&str, bool) -> (Class, &'static str),
    ) {
        for (subject, is_gone, words) in [
            (gone, true, before.difference(after)),
            (come, false, after.difference(before)),
        ] {
            let mut by_class: BTreeMap<(Class, &'static str), Vec<&str>> = BTreeMap::new();
            for word in words {
                by_class.entry(judge(word, is_gone)).or_default().push(word);
            }
            for ((class, why), words) in by_class {
                let words = Some(words.join(" "));
                let values = if is_gone { (words, None) } else { (None, words) };
                self.value(subject, values, (class, why));
            }
        }
    }

    /// Says that something could not be compared.
    pub(super) fn uncompared(&mut self, what: &str) {
        if !self.uncompared.iter().any(|said| said == what) {
            self.uncompared.push(what.to_owned());
        }
    }
}

/// As text of bounded length that does nothing to a terminal, since captures come from elsewhere.
fn shown(value: &impl Display) -> String {
    let text = value.to_string();
    let mut letters = text.chars().map(plain);
    let start: String = letters.by_ref().take(MOST_SHOWN).collect();
    match letters.next() {
        Some(_) => format!("{start}..."),
        None => start,
    }
}

/// Control characters, and those that turn the direction of writing around, are replaced.
fn plain(letter: char) -> char {
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if letter.is_control() || turns {
        '\u{fffd}'
    } else {
        letter
    }
}

const MOST_SHOWN: usize = 1000;
