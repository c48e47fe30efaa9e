//! Runs the programs that a disk is built with: quiet when they work, quoted when they fail.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::{DiskError, Subject};

/// One program with its arguments, run to its end with its standard error read line by line.
pub(crate) struct Tool {
    name: &'static str,
    package: &'static str,
    command: Command,
}

impl Tool {
    /// The program `name`, which the Debian package `package` has.
    pub(crate) fn new(name: &'static str, package: &'static str) -> Tool {
        Tool {
            name,
            package,
            command: Command::new(name),
        }
    }

    /// The same, run as root of a user namespace when the caller is not root, so that a tree of files with
    /// foreign owners can be written and read.
    pub(crate) fn as_root(name: &'static str, package: &'static str) -> Tool {
        if rustix::process::geteuid().is_root() {
            return Tool::new(name, package);
        }
        Tool::new("unshare", "uidmap").args(["--user", "--map-auto", "--map-root-user", "--", name])
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Tool {
        self.command.args(args);
        self
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Tool {
        self.command.env(name, value);
        self
    }

    /// Runs it and returns what it wrote to standard output; `line` hears each line of standard error.
    pub(crate) fn run(mut self, line: &dyn Fn(&str)) -> Result<String, DiskError> {
        // The programs of /sbin are not on every user's path.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        self.command
            .env("PATH", path)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DiskError::ToolMissing {
                tool: self.name.into(),
                package: self.package,
            },
            _ => DiskError::File {
                path: self.name.into(),
                source,
            },
        })?;
        let stdout = child
            .stdout
            .take()
            .map(|pipe| std::thread::spawn(move || io::read_to_string(pipe)));
        let mut tail = VecDeque::new();
        if let Some(pipe) = child.stderr.take() {
            for text in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&text).into_owned();
                line(&text);
                tail.push_back(text);
                if tail.len() > TAIL {
                    tail.pop_front();
                }
            }
        }
        let status = child.wait().of(self.name)?;
        let output = match stdout.map(std::thread::JoinHandle::join) {
            Some(Ok(text)) => text.of(self.name)?,
            _ => String::new(),
        };
        if !status.success() {
            let tail = tail.make_contiguous().join("\n");
            return Err(DiskError::ToolFailed {
                tool: self.name.into(),
                status,
                tail,
            });
        }
        Ok(output)
    }

    /// Runs it with nobody listening.
    pub(crate) fn run_quietly(self) -> Result<String, DiskError> {
        self.run(&|_| {})
    }
}

/// Copies an image, sharing blocks where the file system can and leaving holes where it cannot.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<(), DiskError> {
    let flags = ["--reflink=auto", "--sparse=always", "--"];
    Tool::new("cp", "coreutils")
        .args(flags)
        .args([from, to])
        .run_quietly()
        .map(drop)
}

/// How many lines of a failed tool are quoted.
const TAIL: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let error = Tool::new("no-such-tool", "some-package")
            .run_quietly()
            .expect_err("missing");
        let text = error.to_string();
        assert!(
            text.contains("no-such-tool") && text.contains("some-package"),
            "{text}"
        );
    }

    #[test]
    fn a_failed_tool_is_quoted() {
        let tool = Tool::new("sh", "dash").args(["-c", "echo first >&2; echo last >&2; exit 3"]);
        let text = tool.run_quietly().expect_err("failed").to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("first\nlast"),
            "{text}"
        );
    }

    #[test]
    fn a_sparse_copy_equals_its_original() {
        let dir = tempfile::tempdir().expect("dir");
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let mut bytes = vec![0u8; 1 << 20];
        bytes[777_777] = 9;
        std::fs::write(&from, &bytes).expect("write");
        copy_sparse(&from, &to).expect("copy");
        assert_eq!(std::fs::read(&to).expect("read"), bytes);
    }
}
