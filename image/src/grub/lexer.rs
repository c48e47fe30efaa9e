//! The words of GRUB's script language: quoting, variables, comments, separators.

use super::script::{Piece, Text, Word};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    /// The end of a line, or a semicolon.
    Separator,
    Open,
    Close,
    End,
}

impl Token {
    /// The word, if it is a plain one without quotes: only then it can be one of the language.
    pub(super) fn keyword(&self) -> Option<&str> {
        let Self::Word(word) = self else { return None };
        match &word[..] {
            [
                Piece {
                    text: Text::Literal(text),
                    quoted: false,
                },
            ] => Some(text),
            _ => None,
        }
    }
}

pub(super) struct Lexer<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    /// The line being read, from 1.
    pub(super) line: u32,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            rest: text.chars().peekable(),
            line: 1,
        }
    }

    pub(super) fn next(&mut self) -> Result<Token, String> {
        loop {
            match self.rest.peek() {
                None => return Ok(Token::End),
                Some(' ' | '\t' | '\r') => {
                    self.rest.next();
                }
                Some('#') => while self.rest.next_if(|&c| c != '\n').is_some() {},
                Some('\n') => {
                    self.rest.next();
                    self.line += 1;
                    return Ok(Token::Separator);
                }
                Some(';') => {
                    self.rest.next();
                    return Ok(Token::Separator);
                }
                Some('{') => {
                    self.rest.next();
                    return Ok(Token::Open);
                }
                Some('}') => {
                    self.rest.next();
                    return Ok(Token::Close);
                }
                Some(c @ ('|' | '&' | '<' | '>')) => {
                    return Err(format!(
                        "line {}: {c} outside of quotes, which GRUB does not have",
                        self.line
                    ));
                }
                Some(_) => match self.word()? {
                    // Only a line that goes on: no word yet.
                    word if word.is_empty() => {}
                    word => return Ok(Token::Word(word)),
                },
            }
        }
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut word = Word::new();
        loop {
            match self.rest.peek().copied() {
                None | Some(' ' | '\t' | '\r' | '\n' | ';' | '{' | '}' | '|' | '&' | '<' | '>') => {
                    return Ok(word);
                }
                Some('\'') => self.single(&mut word)?,
                Some('"') => self.double(&mut word)?,
                Some('$') => self.dollar(&mut word, false)?,
                Some('\\') => {
                    self.rest.next();
                    match self.rest.next() {
                        Some('\n') => self.line += 1,
                        Some(c) => push(&mut word, c, true),
                        None => {}
                    }
                }
                Some(c) => {
                    self.rest.next();
                    push(&mut word, c, false);
                }
            }
        }
    }

    fn single(&mut self, word: &mut Word) -> Result<(), String> {
        let line = self.line;
        self.rest.next();
        add(word, Text::Literal(String::new()), true);
        loop {
            match self.take() {
                Some('\'') => return Ok(()),
                Some(c) => push(word, c, true),
                None => return Err(format!("line {line}: a quote that is never closed")),
            }
        }
    }

    fn double(&mut self, word: &mut Word) -> Result<(), String> {
        let line = self.line;
        self.rest.next();
        add(word, Text::Literal(String::new()), true);
        loop {
            match self.rest.peek() {
                Some('$') => {
                    self.dollar(word, true)?;
                    continue;
                }
                Some(_) => {}
                None => return Err(format!("line {line}: a quote that is never closed")),
            }
            match self.take() {
                Some('"') => return Ok(()),
                Some('\\') => match self.take() {
                    Some('\n') | None => {}
                    Some(c @ ('$' | '"' | '\\')) => push(word, c, true),
                    Some(c) => {
                        push(word, '\\', true);
                        push(word, c, true);
                    }
                },
                Some(c) => push(word, c, true),
                None => {}
            }
        }
    }

    /// `$name`, `${name}`, `$1`, `$?`, `$"translated text"`; else a plain dollar sign.
    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<(), String> {
        self.rest.next();
        let mut name = String::new();
        match self.rest.peek().copied() {
            Some('{') => {
                self.rest.next();
                loop {
                    match self.take() {
                        Some('}') => break,
                        Some(c) if c != '\n' => name.push(c),
                        _ => {
                            return Err(format!(
                                "line {}: a variable's brace that is never closed",
                                self.line
                            ));
                        }
                    }
                }
            }
            Some('"') if !quoted => return self.double(word),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                while let Some(c) = self.rest.next_if(|&c| c.is_ascii_alphanumeric() || c == '_') {
                    name.push(c);
                }
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some(c @ ('?' | '#' | '@' | '*')) => {
                self.rest.next();
                name.push(c);
            }
            _ => {
                push(word, '$', quoted);
                return Ok(());
            }
        }
        add(word, Text::Variable(name), quoted);
        Ok(())
    }

    fn take(&mut self) -> Option<char> {
        let taken = self.rest.next();
        self.line += u32::from(taken == Some('\n'));
        taken
    }
}

/// Appends a character to the last piece, or begins one.
fn push(word: &mut Word, c: char, quoted: bool) {
    match word.last_mut() {
        Some(Piece {
            text: Text::Literal(text),
            quoted: same,
        }) if *same == quoted => text.push(c),
        _ => add(word, Text::Literal(c.to_string()), quoted),
    }
}

fn add(word: &mut Word, text: Text, quoted: bool) {
    word.push(Piece { text, quoted });
}
