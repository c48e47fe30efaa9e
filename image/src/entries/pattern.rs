//! Shell patterns as systemd-boot matches them: `*`, `?`, `[set]`, `[a-z]` and `\` before a plain character.
//!
//! Matching takes time proportional to pattern times text at most: only the last `*` is ever widened.

/// Whether all of `text` matches `pattern`. Both are expected in lower case.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut here) = (0, 0);
    // Where to resume when a plain piece fails: behind the last `*`, one character later than the last try.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&'*') {
            at += 1;
            star = Some((at, here));
            continue;
        }
        if at == pattern.len() && here == text.len() {
            return true;
        }
        match text.get(here).and_then(|&c| match_one(&pattern[at..], c)) {
            Some(width) => (at, here) = (at + width, here + 1),
            None => match star {
                Some((resume, tried)) if tried < text.len() => {
                    (at, here) = (resume, tried + 1);
                    star = Some((resume, tried + 1));
                }
                _ => return false,
            },
        }
    }
}

/// How much of the pattern's start matches the character `c`.
fn match_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['\\'] | [] => None,
        ['?', ..] => Some(1),
        ['[', set @ ..] => match_set(set, c).map(|width| width + 1),
        [plain, ..] => (*plain == c).then_some(1),
    }
}

/// Matches the inside of `[...]`; returns its length with the closing bracket. An unclosed set matches nothing.
fn match_set(set: &[char], c: char) -> Option<usize> {
    let (mut found, mut can_range, mut at) = (false, true, 0);
    loop {
        match *set.get(at)? {
            ']' if at > 0 => return found.then_some(at + 1),
            '\\' => {
                at += 1;
                found |= *set.get(at)? == c;
                can_range = true;
            }
            '-' if can_range && at > 0 && set.get(at + 1) != Some(&']') => {
                let low = set[at - 1];
                at += 1;
                if set.get(at) == Some(&'\\') {
                    at += 1;
                }
                found |= (low..=*set.get(at)?).contains(&c);
                can_range = false;
            }
            plain => {
                found |= plain == c;
                can_range = true;
            }
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_the_boot_loader_matches_them() {
        for (pattern, text) in [
            ("debian-*", "debian-6.1.conf"),
            ("*", ""),
            ("*.conf", "a.conf.conf"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[]]", "]"),
            ("[a-]", "-"),
            ("[a-c-f]", "-"),
            ("\\*", "*"),
            ("[\\]]", "]"),
            ("*a*b*c", "xxaxxbxxc"),
        ] {
            assert!(matches(pattern, text), "{pattern} should match {text}");
        }
        for (pattern, text) in [
            ("debian", "debian.conf"),
            ("?", ""),
            ("[a-c", "a"),
            ("a\\", "a"),
            ("*x", "xy"),
            ("[a-c-f]", "e"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} should not match {text}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends_and_a_plain_text_matches_itself(pattern in ".{0,40}", text in "[a-z0-9.+-]{0,40}") {
            let _ = matches(&pattern, &text);
            prop_assert!(matches(&text, &text));
            prop_assert!(matches("*", &text));
        }
    }
}
