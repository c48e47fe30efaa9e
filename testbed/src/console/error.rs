//! What can go wrong at a serial console, with the last words that were seen on it.

use std::io;
use std::time::Duration;

/// A conversation at a serial console that did not go as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// What was waited for did not come in time.
    #[error("{awaited} did not appear on the serial console within {} s; its last lines:\n{tail}", limit.as_secs())]
    Late {
        /// What was waited for.
        awaited: String,
        /// How long.
        limit: Duration,
        /// What was seen last.
        tail: String,
    },
    /// The other side closed the line.
    #[error("the serial console ended while waiting for {awaited}; its last lines:\n{tail}")]
    Ended {
        /// What was waited for.
        awaited: String,
        /// What was seen last.
        tail: String,
    },
    /// The system said that it cannot go on.
    #[error("the system gave up while waiting for {awaited}: {words}; its last lines:\n{tail}")]
    GaveUp {
        /// What was waited for.
        awaited: String,
        /// What the system said.
        words: &'static str,
        /// What was seen last.
        tail: String,
    },
    /// Name or password were not accepted.
    #[error("the system refused the login of {user}: name or password are wrong")]
    LoginRefused {
        /// Who wanted to log in.
        user: String,
    },
    /// The line itself failed.
    #[error("the serial console cannot be used: {source}")]
    Line {
        /// What the system said.
        #[from]
        source: io::Error,
    },
}
