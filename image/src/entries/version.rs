//! The order of version strings in the Boot Loader Specification (UAPI.10), as systemd compares them.

use std::cmp::Ordering;

/// Compares two versions: `6.1.0-9` is older than `6.1.0-10`, `1~rc1` is older than `1`, and anything is newer than nothing.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        (a, b) = (skip_separators(a), skip_separators(b));
        if let Some(order) = compare_mark(&mut a, &mut b, b'~') {
            return order;
        }
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        for mark in [b'-', b'^', b'.'] {
            if let Some(order) = compare_mark(&mut a, &mut b, mark) {
                return order;
            }
        }
        let order = if starts_with_digit(a) || starts_with_digit(b) {
            compare_numbers(&mut a, &mut b)
        } else {
            compare_words(&mut a, &mut b)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The side that has `mark` here is older; when both have it, both step over it.
fn compare_mark(a: &mut &[u8], b: &mut &[u8], mark: u8) -> Option<Ordering> {
    match (a.strip_prefix(&[mark]), b.strip_prefix(&[mark])) {
        (Some(rest_a), Some(rest_b)) => {
            (*a, *b) = (rest_a, rest_b);
            None
        }
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

/// A number is newer than a word; numbers compare by value, of any length.
fn compare_numbers(a: &mut &[u8], b: &mut &[u8]) -> Ordering {
    let (first, second) = (take(a, u8::is_ascii_digit), take(b, u8::is_ascii_digit));
    if first.is_empty() || second.is_empty() {
        return second.is_empty().cmp(&first.is_empty());
    }
    let (first, second) = (without_zeros(first), without_zeros(second));
    first.len().cmp(&second.len()).then_with(|| first.cmp(second))
}

/// Words compare by their bytes, capitals first; a longer word is newer than its beginning.
fn compare_words(a: &mut &[u8], b: &mut &[u8]) -> Ordering {
    let (first, second) = (take(a, u8::is_ascii_alphabetic), take(b, u8::is_ascii_alphabetic));
    first.cmp(second)
}

fn take<'t>(text: &mut &'t [u8], belongs: impl Fn(&u8) -> bool) -> &'t [u8] {
    let end = text.iter().position(|byte| !belongs(byte)).unwrap_or(text.len());
    let (taken, rest) = text.split_at(end);
    *text = rest;
    taken
}

fn skip_separators(text: &[u8]) -> &[u8] {
    let counts = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'-' | b'^' | b'.');
    let start = text.iter().position(counts).unwrap_or(text.len());
    &text[start..]
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let start = digits
        .iter()
        .position(|&digit| digit != b'0')
        .unwrap_or(digits.len());
    &digits[start..]
}

fn starts_with_digit(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit)
}
