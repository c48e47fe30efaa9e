//! Runs the programs of the distribution and keeps what they said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::SetupError;

/// Runs `command` to its end and returns its standard output; a failure carries the
/// end of its standard error.
pub(crate) fn output_of(command: &mut Command) -> Result<String, SetupError> {
    let program = described(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SetupError::Start {
            program: program.clone(),
            source,
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = last_lines(stderr.trim(), 6);
    Err(SetupError::Program {
        program,
        status: output.status.to_string(),
        stderr,
    })
}

/// The program `name` in the search path or the folders of system programs.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

/// The last `count` lines of `text`.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn described(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_quoted() {
        let refusal = output_of(Command::new("sh").args(["-c", "echo reason >&2; exit 3"])).unwrap_err();
        let text = refusal.to_string();
        assert!(
            text.contains("reason") && text.contains("exit status: 3"),
            "{text}"
        );
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let refusal = output_of(&mut Command::new("no-such-program"))
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("no-such-program"), "{refusal}");
        assert_eq!(find("no-such-program"), None);
        assert!(find("sh").is_some());
    }
}
