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
        self.send(&format!(
            "echo '<''ask {number}>'; {{ {command}; }} 2>&1; echo '<''end {number}' $?'>'\n"
        ))?;
        self.wait_for(&[&format!("<ask {number}>\n")], PROMPT)?;
        let (_, text) = self.wait_for(&[&format!("<end {number} ")], limit)?;
        let (_, status) = self.wait_for(&[">"], PROMPT)?;
        let text = without_kernel_messages(&text);
        // A shell prints its status as a small number; anything else on the line would be noise.
        Ok(Answer {
            text,
            status: status.trim().parse().unwrap_or(-1),
        })
    }

    /// Switches the system off as its administrator would. Whether it went off shows in its machine, not here.
    pub fn power_off(&mut self) -> Result<(), ConsoleError> {
        self.send("systemctl poweroff\n")
    }
}

/// What a command printed, without what the kernel wrote on the console meanwhile and without the last line end.
fn without_kernel_messages(text: &str) -> String {
    text.lines()
        .filter(|line| !is_kernel_message(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a line begins like `[   12.345678] `.
fn is_kernel_message(line: &str) -> bool {
    let time = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .map(|(time, _)| time.trim_start());
    let parts = time.and_then(|time| time.split_once('.'));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.is_some_and(|(seconds, fraction)| digits(seconds) && fraction.len() == 6 && digits(fraction))
}

/// How long a prompt may take to answer a key; generous, because the machines are emulated.
const PROMPT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_messages_between_the_lines_of_an_answer_are_left_out() {
        let text = "enp0s25 UP\n[   17.775494] e1000e 0000:00:19.0 enp0s25: NIC Link is Up\nlo UNKNOWN\n";
        assert_eq!(without_kernel_messages(text), "enp0s25 UP\nlo UNKNOWN");
    }

    #[test]
    fn other_lines_with_brackets_stay() {
        for line in [
            "[  OK  ] Started getty",
            "[1] 4711",
            "[12.3] short",
            "[] ",
            "[a.123456] x",
        ] {
            assert!(!is_kernel_message(line), "{line}");
        }
    }
}
