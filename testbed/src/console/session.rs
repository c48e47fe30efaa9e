//! What a person does at a login prompt: log in, ask, switch the system off.

use std::time::Duration;

use super::{Console, ConsoleError};

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Standard output and standard error, without the last line end.
    pub text: String,
    /// The exit status.
    pub status: i32,
}

impl Console {
    /// Waits up to `limit` for a login prompt, logs in and waits for the shell's prompt.
    pub fn log_in(&mut self, user: &str, password: &str, limit: Duration) -> Result<(), ConsoleError> {
        self.wait_for(&["login: "], limit)?;
        self.send(&format!("{user}\n"))?;
        self.wait_for(&["assword: "], PROMPT)?;
        self.send(&format!("{password}\n"))?;
        match self.wait_for(&["# ", "$ ", "Login incorrect"], PROMPT)? {
            (2, _) => Err(ConsoleError::LoginRefused { user: user.into() }),
            _ => Ok(()),
        }
    }

    /// Runs a command in the shell and returns what it printed. Needs a shell's prompt.
    pub fn ask(&mut self, command: &str, limit: Duration) -> Result<Answer, ConsoleError> {
        self.questions += 1;
        let number = self.questions;
        // The shell's echo shows the marks with quotes inside, so only what the command prints lies between two marks.
        self.send(&format!("echo '<''ask {number}>'; {{ {command}; }} 2>&1; echo '<''end {number}' $?'>'\n"))?;
        self.wait_for(&[&format!("<ask {number}>\n")], PROMPT)?;
        let (_, text) = self.wait_for(&[&format!("<end {number} ")], limit)?;
        let (_, status) = self.wait_for(&[">"], PROMPT)?;
        let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        // A shell prints its status as a small number; anything else on the line would be noise.
        Ok(Answer { text, status: status.trim().parse().unwrap_or(-1) })
    }

    /// Switches the system off as its administrator would. Whether it went off shows in its machine, not here.
    pub fn power_off(&mut self) -> Result<(), ConsoleError> {
        self.send("systemctl poweroff\n")
    }
}

/// How long a prompt may take to answer a key; generous, because the machines are emulated.
const PROMPT: Duration = Duration::from_secs(60);
