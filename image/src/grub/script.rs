//! GRUB's script language, parsed: statements, commands, words. Blocks are shared, so an entry keeps its body without a copy.
//!
//! Source: the GRUB manual, chapter "Shell-like scripting". Nesting is bounded; what is not read (pipes, redirections, background) is
//! refused with its line.

use std::rc::Rc;

use super::lexer::{Lexer, Token};

pub(super) type Block = Rc<[Statement]>;

#[derive(Debug, Clone)]
pub(super) enum Statement {
    Command(Command),
    /// Conditions with what follows each, and what is run when none holds.
    If(Vec<(Block, Block)>, Block),
    /// A variable, the words that it takes in turn, and what is run for each.
    For(String, Vec<Word>, Block),
    While {
        /// Run until the condition holds, not while.
        until: bool,
        condition: Block,
        body: Block,
    },
    Function(String, Block),
}

#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) words: Vec<Word>,
    /// What stands in braces behind `menuentry` and `submenu`.
    pub(super) block: Option<Block>,
    pub(super) line: u32,
}

/// One word: pieces without a blank between them.
pub(super) type Word = Vec<Piece>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: Text,
    pub(super) quoted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Literal(String),
    Variable(String),
}

/// Parses a whole file.
pub(super) fn parse(text: &str) -> Result<Block, String> {
    let mut parser = Parser {
        lexer: Lexer::new(text),
        ahead: None,
        depth: 0,
    };
    let block = parser.block(&[])?;
    match parser.next()? {
        Token::End => Ok(block),
        _ => Err(parser.unexpected("a closing brace or word that nothing opened")),
    }
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    ahead: Option<Token>,
    depth: u32,
}

impl Parser<'_> {
    fn next(&mut self) -> Result<Token, String> {
        match self.ahead.take() {
            Some(token) => Ok(token),
            None => self.lexer.next(),
        }
    }

    fn peek(&mut self) -> Result<&Token, String> {
        let token = self.next()?;
        Ok(self.ahead.insert(token))
    }

    fn unexpected(&self, what: &str) -> String {
        format!("line {}: {what}", self.lexer.line)
    }

    /// Statements up to one of the words in `ends`, a closing brace, or the end; the end is left.
    fn block(&mut self, ends: &[&str]) -> Result<Block, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.unexpected("more than 32 blocks inside each other"));
        }
        let mut statements = Vec::new();
        loop {
            match self.peek()? {
                Token::Separator => {
                    self.next()?;
                }
                Token::End | Token::Close => break,
                token if token.keyword().is_some_and(|word| ends.contains(&word)) => break,
                _ => statements.push(self.statement()?),
            }
        }
        self.depth -= 1;
        Ok(statements.into())
    }

    fn statement(&mut self) -> Result<Statement, String> {
        let keyword = self.peek()?.keyword().map(str::to_owned);
        match keyword.as_deref() {
            Some("if") => self.conditional(),
            Some("for") => self.each(),
            Some("while") => self.repeat(false),
            Some("until") => self.repeat(true),
            Some("function") => {
                self.next()?;
                let name = self.name()?;
                Ok(Statement::Function(name, self.braces()?))
            }
            Some(word @ ("then" | "else" | "elif" | "fi" | "do" | "done" | "in" | "case" | "select")) => {
                let what = format!("the word {word} where a command should be");
                Err(self.unexpected(&what))
            }
            _ => self.command(),
        }
    }

    fn conditional(&mut self) -> Result<Statement, String> {
        let mut clauses = Vec::new();
        let mut otherwise: Block = Rc::from([]);
        self.next()?;
        loop {
            let condition = self.block(&["then"])?;
            self.expect("then")?;
            clauses.push((condition, self.block(&["elif", "else", "fi"])?));
            let word = self.next()?;
            match word.keyword() {
                Some("elif") => continue,
                Some("else") => {
                    otherwise = self.block(&["fi"])?;
                    self.expect("fi")?;
                }
                Some("fi") => {}
                _ => return Err(self.unexpected("an if without its fi")),
            }
            return Ok(Statement::If(clauses, otherwise));
        }
    }

    fn each(&mut self) -> Result<Statement, String> {
        self.next()?;
        let name = self.name()?;
        self.expect("in")?;
        let mut words = Vec::new();
        while let Token::Word(_) = self.peek()? {
            if let Token::Word(word) = self.next()? {
                words.push(word);
            }
        }
        Ok(Statement::For(name, words, self.looped()?))
    }

    fn repeat(&mut self, until: bool) -> Result<Statement, String> {
        self.next()?;
        let condition = self.block(&["do"])?;
        let body = self.looped()?;
        Ok(Statement::While {
            until,
            condition,
            body,
        })
    }

    /// `do ... done`, after any separators.
    fn looped(&mut self) -> Result<Block, String> {
        self.skip_separators()?;
        self.expect("do")?;
        let body = self.block(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    fn command(&mut self) -> Result<Statement, String> {
        let mut command = Command {
            words: Vec::new(),
            block: None,
            line: self.lexer.line,
        };
        loop {
            match self.peek()? {
                Token::Word(_) => {
                    if let Token::Word(word) = self.next()? {
                        command.words.push(word);
                    }
                }
                Token::Open if !command.words.is_empty() => {
                    command.block = Some(self.braces()?);
                    break;
                }
                Token::Open => return Err(self.unexpected("a brace where a command should be")),
                _ => break,
            }
        }
        Ok(Statement::Command(command))
    }

    fn braces(&mut self) -> Result<Block, String> {
        self.skip_separators()?;
        let (Token::Open, line) = (self.next()?, self.lexer.line) else {
            return Err(self.unexpected("a block without its brace"));
        };
        let block = self.block(&[])?;
        match self.next()? {
            Token::Close => Ok(block),
            _ => Err(format!("line {line}: the brace that opens here is never closed")),
        }
    }

    fn skip_separators(&mut self) -> Result<(), String> {
        while matches!(self.peek()?, Token::Separator) {
            self.next()?;
        }
        Ok(())
    }

    fn name(&mut self) -> Result<String, String> {
        match self.next()? {
            Token::Word(word) => match &word[..] {
                [
                    Piece {
                        text: Text::Literal(name),
                        ..
                    },
                ] => Ok(name.clone()),
                _ => Err(self.unexpected("a name that is not a plain word")),
            },
            _ => Err(self.unexpected("a name is missing")),
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.next()?.keyword() == Some(word) {
            return Ok(());
        }
        Err(self.unexpected(&format!("the word {word} is missing")))
    }
}

const MAX_DEPTH: u32 = 32;
