//! Runs a script: statements, words, functions, loops. It counts what it does, and ends with an error long before it is a burden.

use std::collections::HashMap;

use super::environment::Environment;
use super::menu::{RawEntry, Started};
use super::script::{Block, Command, Statement, parse};
use super::volumes::{Found, Volumes};
use super::{commands, device};

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break(u32),
    Continue(u32),
    Return,
    /// The script is over: a menu was shown, a kernel started.
    Stop,
}

/// Whether the last command succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    True,
    False,
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// A script's state.
pub(super) struct Machine<'v> {
    pub(super) volumes: &'v dyn Volumes,
    pub(super) environment: Environment,
    pub(super) functions: HashMap<String, Block>,
    /// Positional parameters of the function or entry that runs.
    pub(super) arguments: Vec<String>,
    /// The entries of the menu that is being made.
    pub(super) menu: Vec<RawEntry>,
    /// What `linux` and its like have prepared.
    pub(super) started: Started,
    pub(super) status: Status,
    /// Why the script's outcome cannot be told, in the order found.
    pub(super) doubts: Vec<String>,
    /// What was noticed and changes nothing.
    pub(super) warnings: Vec<String>,
    pub(super) limits: Limits,
    /// A finished menu that `configfile` showed.
    pub(super) shown: Option<super::menu::Menu>,
}

/// What a script may still do.
#[derive(Debug)]
pub(super) struct Limits {
    steps: u32,
    depth: u32,
}

pub(super) type Outcome = Result<Flow, String>;

impl<'v> Machine<'v> {
    pub(super) fn new(volumes: &'v dyn Volumes, environment: Environment) -> Self {
        Self {
            volumes,
            environment,
            functions: HashMap::new(),
            arguments: Vec::new(),
            menu: Vec::new(),
            started: Started::default(),
            status: Status::True,
            doubts: Vec::new(),
            warnings: Vec::new(),
            limits: Limits {
                steps: MAX_STEPS,
                depth: 0,
            },
            shown: None,
        }
    }

    /// Runs the first configuration file, as GRUB does when it has started from `device`.
    pub(super) fn begin(&mut self, device: &str, prefix: &str, file: &str) -> Result<(), String> {
        self.environment.set("root", device)?;
        self.environment.set("prefix", prefix)?;
        self.environment.set("cmdpath", prefix)?;
        commands::configfile(self, &[file.to_owned()]).map(|_| ())
    }

    /// Takes from the work that the script may still do.
    pub(super) fn spend(&mut self, steps: u32) -> Result<(), String> {
        let left = self.limits.steps.checked_sub(steps);
        self.limits.steps = left.ok_or("the script does more than any boot menu (an endless loop?)")?;
        Ok(())
    }

    /// Parses and runs a file's content.
    pub(super) fn source(&mut self, name: &str, content: &[u8]) -> Outcome {
        self.spend(content.len() as u32 / 64 + 1)?;
        let text = String::from_utf8_lossy(content);
        let block = parse(&text).map_err(|error| format!("{name}, {error}"))?;
        self.run(&block)
    }

    /// Runs statements, inside one level more.
    pub(super) fn run(&mut self, block: &Block) -> Outcome {
        self.limits.depth += 1;
        if self.limits.depth > MAX_DEPTH {
            return Err("the script calls itself or nests too deep".to_owned());
        }
        for statement in block.iter() {
            match self.statement(statement)? {
                Flow::Next => {}
                other => {
                    self.limits.depth -= 1;
                    return Ok(other);
                }
            }
        }
        self.limits.depth -= 1;
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &Statement) -> Outcome {
        self.spend(1)?;
        match statement {
            Statement::Command(command) => self.command(command),
            Statement::If(clauses, otherwise) => self.conditional(clauses, otherwise),
            Statement::For(name, words, body) => {
                for value in self.expand(words)? {
                    self.environment.set(name, &value)?;
                    if let Some(flow) = self.round(body)? {
                        return Ok(flow);
                    }
                }
                Ok(Flow::Next)
            }
            Statement::While {
                until,
                condition,
                body,
            } => self.repeat(*until, condition, body),
            Statement::Function(name, body) => {
                self.functions.insert(name.clone(), body.clone());
                Ok(Flow::Next)
            }
        }
    }

    fn conditional(&mut self, clauses: &[(Block, Block)], otherwise: &Block) -> Outcome {
        let mut unknown = false;
        for (condition, body) in clauses {
            match self.run(condition)? {
                Flow::Next => {}
                other => return Ok(other),
            }
            match self.status.clone() {
                Status::False => {}
                Status::True if unknown => {
                    // Any of the clauses may be the one: the entries of all are listed.
                    self.possibly(body)?;
                    return Ok(Flow::Next);
                }
                Status::True => return self.run(body),
                Status::Unknown(reason) => {
                    self.doubt(&reason);
                    unknown = true;
                    self.possibly(body)?;
                }
            }
        }
        if unknown {
            self.possibly(otherwise)?;
            return Ok(Flow::Next);
        }
        self.status = Status::True;
        self.run(otherwise)
    }

    /// Runs what may or may not be run; it is not let end what is around it.
    fn possibly(&mut self, body: &Block) -> Result<(), String> {
        self.run(body).map(|_| ())
    }

    fn repeat(&mut self, until: bool, condition: &Block, body: &Block) -> Outcome {
        loop {
            self.spend(1)?;
            match self.run(condition)? {
                Flow::Next => {}
                other => return Ok(other),
            }
            let holds = match self.status.clone() {
                Status::True => true,
                Status::False => false,
                Status::Unknown(reason) => {
                    self.doubt(&reason);
                    until
                }
            };
            if holds == until {
                return Ok(Flow::Next);
            }
            if let Some(flow) = self.round(body)? {
                return Ok(flow);
            }
        }
    }

    /// One round of a loop; `Some` when the loop is over.
    fn round(&mut self, body: &Block) -> Result<Option<Flow>, String> {
        self.spend(1)?;
        Ok(match self.run(body)? {
            Flow::Next | Flow::Continue(0 | 1) => None,
            Flow::Break(0 | 1) => Some(Flow::Next),
            Flow::Break(levels) => Some(Flow::Break(levels - 1)),
            Flow::Continue(levels) => Some(Flow::Continue(levels - 1)),
            other => Some(other),
        })
    }

    fn command(&mut self, command: &Command) -> Outcome {
        let mut words = self.expand(&command.words)?;
        let negated = words.first().is_some_and(|word| word == "!") && words.len() > 1;
        if negated {
            words.remove(0);
        }
        let Some((name, arguments)) = words.split_first() else {
            return Ok(Flow::Next);
        };
        let flow = if let Some(body) = self.functions.get(name).cloned() {
            self.call(&body, arguments)?
        } else {
            self.status = Status::True;
            commands::run(self, name, arguments, command)?
        };
        if negated {
            self.status = match std::mem::replace(&mut self.status, Status::True) {
                Status::True => Status::False,
                Status::False => Status::True,
                unknown => unknown,
            };
        }
        Ok(flow)
    }

    fn call(&mut self, body: &Block, arguments: &[String]) -> Outcome {
        let before = std::mem::replace(&mut self.arguments, arguments.to_vec());
        let flow = self.run(body);
        self.arguments = before;
        Ok(match flow? {
            Flow::Return | Flow::Break(_) | Flow::Continue(_) => Flow::Next,
            other => other,
        })
    }

    /// What a path leads to, with or without a device in front; unreadable is not there.
    pub(super) fn look(&mut self, path: &str) -> Result<Option<Found>, String> {
        self.spend(FILE_STEPS)?;
        let Some((volume, path)) = device::locate(self, path) else {
            return Ok(None);
        };
        match self.volumes.look(volume, &path) {
            Ok(found) => Ok(found),
            Err(error) => {
                self.warn(&format!("{path} cannot be read: {error}"));
                Ok(None)
            }
        }
    }

    /// A file's content; `None` when it is not there or cannot be read, which is noted.
    pub(super) fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, String> {
        self.spend(FILE_STEPS)?;
        let Some((volume, path)) = device::locate(self, path) else {
            return Ok(None);
        };
        match self.volumes.read(volume, &path, MAX_FILE) {
            Ok(content) => Ok(content),
            Err(error) => {
                self.doubt(&format!("{path} cannot be read: {error}"));
                Ok(None)
            }
        }
    }
}

/// A menu of a few hundred entries takes some ten thousand.
const MAX_STEPS: u32 = 500_000;
/// What a look at a file costs: the disk is read for it.
const FILE_STEPS: u32 = 250;
/// Blocks, functions, files and submenus inside each other. The parser allows 32 blocks of them in each.
const MAX_DEPTH: u32 = 64;
const MAX_FILE: u64 = 1 << 20;
