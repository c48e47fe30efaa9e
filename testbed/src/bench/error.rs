//! Why nothing could be measured.

use crate::{L1Error, SetupError};

/// A benchmark that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The developer's machine could not be made ready.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The physical server failed.
    #[error(transparent)]
    Server(#[from] L1Error),
    /// A boot could not be measured.
    #[error("{contender}: {problem}{}", words(said))]
    Measure {
        /// Which VMM was started.
        contender: String,
        /// What went wrong.
        problem: String,
        /// The end of what the VMM wrote to standard error.
        said: String,
    },
    /// A file of the server could not be read or written.
    #[error("{path}: {source}; the benchmark runs as root in the emulated server")]
    File {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The measuring part said something that is not understood.
    #[error("the measuring part answered {answer:?}, which is no sample: {source}")]
    Answer {
        /// What it said.
        answer: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The measuring part failed in the server.
    #[error("measuring in the emulated server failed with status {status}: {said}")]
    Failed {
        /// Its exit status.
        status: i32,
        /// What it wrote to standard error.
        said: String,
    },
}

impl BenchError {
    pub(crate) fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            source,
        }
    }
}

fn words(said: &str) -> String {
    match said.trim() {
        "" => String::new(),
        said => format!("; it said: {said}"),
    }
}
