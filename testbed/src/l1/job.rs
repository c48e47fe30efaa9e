//! A command to be run in the machine: its words, environment, folder and limits.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A command for the machine.
#[derive(Debug, Clone)]
pub struct Job {
    words: Vec<String>,
    variables: Vec<(String, String)>,
    folder: PathBuf,
    guard: Duration,
    silence: Option<Duration>,
    input: Input,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Nothing,
    Stream,
    Terminal,
}

impl Job {
    /// Runs `words` in the current folder with the part of this process's environment
    /// that makes sense there; no input; a guard of ten minutes.
    pub fn new<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(words: I) -> Self {
        let words = words
            .into_iter()
            .map(|word| word.as_ref().to_string_lossy().into_owned())
            .collect();
        let variables = std::env::vars().filter(|(name, _)| is_passed_on(name)).collect();
        let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self {
            words,
            variables,
            folder,
            guard: Duration::from_secs(600),
            silence: None,
            input: Input::Nothing,
        }
    }

    /// A job with the program, arguments, folder and added variables of `command`.
    pub fn from_command(command: &Command) -> Self {
        let mut job = Self::new(std::iter::once(command.get_program()).chain(command.get_args()));
        if let Some(folder) = command.get_current_dir() {
            job.folder = folder.to_owned();
        }
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                job = job.variable(name.to_string_lossy(), value.to_string_lossy());
            }
        }
        job
    }

    /// With one variable more.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// In another folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Ended when it takes longer than `limit`.
    #[must_use]
    pub fn guard(mut self, limit: Duration) -> Self {
        self.guard = limit;
        self
    }

    /// Ended when it has said nothing for longer than `limit`: what is slow goes on, what hangs does not.
    #[must_use]
    pub fn silence(mut self, limit: Duration) -> Self {
        self.silence = Some(limit);
        self
    }

    /// With an input that `Running::input` writes to.
    #[must_use]
    pub fn with_input(mut self) -> Self {
        self.input = Input::Stream;
        self
    }

    /// On the machine's terminal instead of the channels.
    #[must_use]
    pub fn on_terminal(mut self) -> Self {
        self.input = Input::Terminal;
        self
    }

    /// How long it may take.
    pub(crate) fn limit(&self) -> Duration {
        self.guard
    }

    /// How long it may say nothing.
    pub(crate) fn longest_silence(&self) -> Duration {
        self.silence.unwrap_or(self.guard)
    }

    pub(crate) fn has_input(&self) -> bool {
        self.input == Input::Stream
    }

    /// What the agent calls the source of its input.
    pub(crate) fn source(&self) -> &'static str {
        match self.input {
            Input::Nothing => "nothing",
            Input::Stream => "stdin",
            Input::Terminal => "tty",
        }
    }

    /// The command as a person would type it.
    pub(crate) fn title(&self) -> String {
        self.words.join(" ")
    }

    /// The shell script the agent runs.
    pub(crate) fn script(&self) -> String {
        let mut script = format!(
            "cd {} || exit 127\nexec env -i",
            quoted(&self.folder.to_string_lossy())
        );
        for (name, value) in &self.variables {
            script.push_str(&format!(" {}", quoted(&format!("{name}={value}"))));
        }
        for word in &self.words {
            script.push_str(&format!(" {}", quoted(word)));
        }
        script.push('\n');
        script
    }
}

/// A word that the shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn is_passed_on(name: &str) -> bool {
    const NAMES: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "TERM", "NO_COLOR", "CI"];
    const PREFIXES: [&str; 5] = ["RUST_", "CARGO_", "PELLUCID_", "LC_", "PROPTEST_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_passes_words_and_variables_through_a_shell_unharmed() {
        let job = Job::new(["printf", "%s|", "it's", "a b", "$HOME", "`x`"])
            .folder("/")
            .variable("V", "a'b c");
        let output = Command::new("sh").arg("-c").arg(job.script()).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's|a b|$HOME|`x`|");
        let job = Job::new(["sh", "-c", "printf %s \"$V\"; pwd"])
            .folder("/usr")
            .variable("V", "a'b c\n");
        let output = Command::new("sh").arg("-c").arg(job.script()).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a'b c\n/usr\n");
    }

    #[test]
    fn a_folder_that_is_not_there_ends_the_job_with_127() {
        let job = Job::new(["true"]).folder("/no/such/folder");
        let output = Command::new("sh").arg("-c").arg(job.script()).output().unwrap();
        assert_eq!(output.status.code(), Some(127));
    }

    #[test]
    fn a_command_becomes_a_job_with_its_folder_and_variables() {
        let mut command = Command::new("prog");
        command.arg("x").current_dir("/usr").env("A", "1");
        let script = Job::from_command(&command).script();
        assert!(
            script.starts_with("cd '/usr' ") && script.contains("'A=1' 'prog' 'x'"),
            "{script}"
        );
    }

    #[test]
    fn only_the_environment_that_makes_sense_there_is_passed_on() {
        assert!(is_passed_on("PATH") && is_passed_on("RUST_BACKTRACE") && is_passed_on("PELLUCID_X"));
        assert!(!is_passed_on("SSH_AUTH_SOCK") && !is_passed_on("TMPDIR"));
    }
}
