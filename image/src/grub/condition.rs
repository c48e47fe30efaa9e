//! `test` and `[ ]`: strings, numbers, files. Times of files are not looked at: a test of them has no answer.

use super::machine::Machine;

/// The answer of a test; an error is a reason why it cannot be told, or a limit.
pub(super) fn holds(machine: &mut Machine<'_>, words: &[String]) -> Result<bool, Trouble> {
    let mut terms = Terms {
        words,
        at: 0,
        depth: 0,
    };
    let answer = terms.any(machine)?;
    match words.get(terms.at) {
        None => Ok(answer),
        Some(word) => Err(Trouble::Unknown(format!("a test with {word}"))),
    }
}

/// Why a test has no answer.
pub(super) enum Trouble {
    /// It asks what this reader does not know.
    Unknown(String),
    /// The script is at its limits.
    Limit(String),
}

struct Terms<'w> {
    words: &'w [String],
    at: usize,
    depth: u32,
}

impl Terms<'_> {
    fn peek(&self, ahead: usize) -> Option<&str> {
        self.words.get(self.at + ahead).map(String::as_str)
    }

    fn any(&mut self, machine: &mut Machine<'_>) -> Result<bool, Trouble> {
        let mut answer = self.all(machine)?;
        while self.peek(0) == Some("-o") {
            self.at += 1;
            answer |= self.all(machine)?;
        }
        Ok(answer)
    }

    fn all(&mut self, machine: &mut Machine<'_>) -> Result<bool, Trouble> {
        let mut answer = true;
        loop {
            match self.peek(0) {
                None | Some(")" | "-o") => return Ok(answer),
                Some("-a") => self.at += 1,
                Some(_) => answer &= self.one(machine)?,
            }
        }
    }

    fn one(&mut self, machine: &mut Machine<'_>) -> Result<bool, Trouble> {
        let mut negated = false;
        while self.peek(0) == Some("!") && self.peek(1).is_some() {
            self.at += 1;
            negated = !negated;
        }
        Ok(self.plain(machine)? != negated)
    }

    fn plain(&mut self, machine: &mut Machine<'_>) -> Result<bool, Trouble> {
        let first = self.peek(0).unwrap_or_default().to_owned();
        if first == "(" {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(Trouble::Limit(
                    "a test with more than 16 parentheses inside each other".to_owned(),
                ));
            }
            self.at += 1;
            let answer = self.any(machine)?;
            // GRUB does not mind a missing one at the end.
            self.at += usize::from(self.peek(0) == Some(")"));
            self.depth -= 1;
            return Ok(answer);
        }
        if let (Some(operator), Some(second)) = (self.peek(1), self.peek(2)) {
            if let Some(answer) = compare(&first, operator, second) {
                self.at += 3;
                return Ok(answer);
            }
            if ["-nt", "-ot", "-pgt", "-plt"]
                .iter()
                .any(|known| operator.starts_with(known))
            {
                return Err(Trouble::Unknown(format!("a test with {operator}")));
            }
        }
        let Some(second) = self.peek(1).map(str::to_owned) else {
            self.at += 1;
            return Ok(!first.is_empty());
        };
        let answer = match first.as_str() {
            "-z" => second.is_empty(),
            "-n" => !second.is_empty(),
            "-d" | "-e" | "-f" | "-s" => {
                let found = machine.look(&second).map_err(Trouble::Limit)?;
                match (first.as_str(), found) {
                    (_, None) => false,
                    ("-d", Some(found)) => found.is_none(),
                    ("-f", Some(found)) => found.is_some(),
                    ("-s", Some(found)) => found.is_some_and(|size| size > 0),
                    _ => true,
                }
            }
            _ => {
                self.at += 1;
                return Ok(!first.is_empty());
            }
        };
        self.at += 2;
        Ok(answer)
    }
}

/// Two operands; `None` when the middle word is no operator.
fn compare(first: &str, operator: &str, second: &str) -> Option<bool> {
    let numbers = || number(first).cmp(&number(second));
    Some(match operator {
        "=" | "==" => first == second,
        "!=" => first != second,
        "<" => first < second,
        "<=" => first <= second,
        ">" => first > second,
        ">=" => first >= second,
        "-eq" => numbers().is_eq(),
        "-ne" => numbers().is_ne(),
        "-lt" => numbers().is_lt(),
        "-le" => numbers().is_le(),
        "-gt" => numbers().is_gt(),
        "-ge" => numbers().is_ge(),
        _ => return None,
    })
}

/// The number at the start of a word, as C reads it; 0 when there is none.
fn number(text: &str) -> i64 {
    let text = text.trim_start();
    let end = text
        .char_indices()
        .find(|&(at, c)| !(c.is_ascii_digit() || at == 0 && c == '-'))
        .map_or(text.len(), |(at, _)| at);
    text[..end].parse().unwrap_or(0)
}

const MAX_DEPTH: u32 = 16;
