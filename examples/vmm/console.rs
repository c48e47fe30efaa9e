//! The guest's serial console on this side: standard streams, a pseudo terminal, or a file.
//! A terminal is put into raw mode and always put back.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::arguments::ConsoleTarget;

/// Where the guest reads from; its output is handed to the serial port when it is opened.
pub(crate) struct Console {
    input: Option<Input>,
    raw: Option<RawMode>,
}

enum Input {
    Stdin,
    /// The user's end is held open too: without one, reads fail as soon as a user leaves.
    Pty {
        ours: File,
        _users: OwnedFd,
    },
}

impl Console {
    /// Opens the console; the second value takes the guest's output.
    pub(crate) fn open(target: &ConsoleTarget) -> io::Result<(Self, Box<dyn Write + Send>)> {
        match target {
            ConsoleTarget::Stdio => {
                let raw = RawMode::of_stdin()?;
                let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Ok((
                    Self {
                        input: Some(Input::Stdin),
                        raw,
                    },
                    Box::new(output),
                ))
            }
            ConsoleTarget::Pty => {
                let (ours, users) = open_pty()?;
                let output = ours.try_clone()?;
                let input = Some(Input::Pty { ours, _users: users });
                Ok((Self { input, raw: None }, Box::new(output)))
            }
            ConsoleTarget::File(path) => {
                let output = File::options().create(true).append(true).open(path)?;
                Ok((
                    Self {
                        input: None,
                        raw: None,
                    },
                    Box::new(output),
                ))
            }
        }
    }

    /// What to wait on for input; `None` when there is or will be none.
    pub(crate) fn input(&self) -> Option<BorrowedFd<'_>> {
        match self.input.as_ref()? {
            Input::Stdin => Some(STDIN.as_fd()),
            Input::Pty { ours, .. } => Some(ours.as_fd()),
        }
    }

    /// Whether a person's terminal is in raw mode, so that only an escape key reaches the VMM itself.
    pub(crate) fn is_terminal(&self) -> bool {
        self.raw.is_some()
    }

    /// Reads what a person typed. After the end of input there is none any more.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let read = match self.input.as_mut() {
            None => return 0,
            Some(Input::Stdin) => rustix::io::read(STDIN.as_fd(), buffer).map_err(io::Error::from),
            Some(Input::Pty { ours, .. }) => ours.read(buffer),
        };
        match read {
            Ok(0) => self.input = None,
            Ok(count) => return count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(_) => self.input = None,
        }
        0
    }
}

/// A terminal in raw mode until dropped.
struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` if standard input is no terminal.
    fn of_stdin() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(STDIN.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(STDIN.as_fd(), OptionalActions::Now, &raw)?;
        tell!("console: press Ctrl-] to ask the guest to power off, twice to stop it\r");
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(STDIN.as_fd(), OptionalActions::Drain, &self.before) {
            tell!("vmm: the terminal could not be put back: {error}; type `reset`");
        }
    }
}

/// Standard input as a file descriptor that is never buffered.
struct Stdin;

impl AsFd for Stdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        rustix::stdio::stdin()
    }
}

static STDIN: Stdin = Stdin;

fn open_pty() -> io::Result<(File, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let users = rustix::fs::open(&name, flags, rustix::fs::Mode::empty())?;
    let mut raw = tcgetattr(&users)?;
    raw.make_raw();
    tcsetattr(&users, OptionalActions::Now, &raw)?;
    // A guest must not stop because nobody reads its console.
    rustix::io::ioctl_fionbio(&ours, true)?;
    tell!("console: {}", name.to_string_lossy());
    Ok((File::from(ours), users))
}
