//! What commands print. A reader that goes before all is printed, as `head` does, is no failure; a disk that is full is one, and is told when
//! the command ends.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

/// Prints a line on standard output, as `println!` would with a reader that stays.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::out(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints a line on standard error, as `eprintln!` would with a reader that stays.
macro_rules! tell {
    ($($text:tt)*) => { $crate::output::err(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints on standard output, until that fails.
pub(crate) fn out(text: Arguments<'_>) {
    if FAILURE.get().is_none()
        && let Err(error) = io::stdout().lock().write_fmt(text)
    {
        let _only_the_first = FAILURE.set(error);
    }
}

/// Prints on standard error; that it cannot be written can be told nowhere.
pub(crate) fn err(text: Arguments<'_>) {
    let _unread = io::stderr().lock().write_fmt(text);
}

/// Why not all was printed that somebody would have read.
pub(crate) fn failure() -> Option<String> {
    let flushed = io::stdout().lock().flush().err();
    let error = FAILURE.get().or(flushed.as_ref())?;
    (error.kind() != ErrorKind::BrokenPipe).then(|| format!("standard output: {error}"))
}

static FAILURE: OnceLock<io::Error> = OnceLock::new();
