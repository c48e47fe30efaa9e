//! The emulator's monitor (QMP): one JSON object per line, in both directions.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::L1Error;

/// A connection to the monitor.
#[derive(Debug)]
pub struct Monitor {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the monitor at `path`; it serves one connection at a time.
    ///
    /// # Errors
    /// Nothing listens there, or something that is no monitor.
    pub fn connect(path: &Path) -> Result<Self, L1Error> {
        let stream = UnixStream::connect(path).map_err(|source| L1Error::io(path, source))?;
        let limit = Some(Duration::from_secs(30));
        stream
            .set_read_timeout(limit)
            .map_err(|source| L1Error::io(path, source))?;
        let mut monitor = Self {
            path: path.to_owned(),
            stream: BufReader::new(stream),
        };
        let greeting = monitor.read_line()?;
        if greeting.get("QMP").is_none() {
            return Err(unexpected("its greeting", &greeting));
        }
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Executes a command and returns what it answers; events in between are dropped.
    ///
    /// # Errors
    /// The monitor is gone or refuses the command.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, L1Error> {
        let request = json!({ "execute": command, "arguments": arguments }).to_string();
        let sent = self.stream.get_mut().write_all(format!("{request}\n").as_bytes());
        sent.map_err(|source| L1Error::io(&self.path, source))?;
        loop {
            let mut answer = self.read_line()?;
            if answer.get("event").is_some() {
                continue;
            }
            return match answer.get_mut("return") {
                Some(value) => Ok(value.take()),
                None => Err(unexpected(&request, &answer)),
            };
        }
    }

    /// Executes a command of the monitor for people and returns the text it prints.
    ///
    /// # Errors
    /// The monitor is gone.
    pub fn human(&mut self, line: &str) -> Result<String, L1Error> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    fn read_line(&mut self) -> Result<Value, L1Error> {
        let mut line = String::new();
        let length = self
            .stream
            .read_line(&mut line)
            .map_err(|source| L1Error::io(&self.path, source))?;
        if length == 0 {
            return Err(L1Error::io(&self.path, std::io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_str(&line).map_err(|_| unexpected("a request", &Value::String(line)))
    }
}

fn unexpected(request: &str, answer: &Value) -> L1Error {
    L1Error::Protocol {
        peer: "the emulator's monitor",
        request: request.to_owned(),
        answer: answer.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn scripted(lines: &'static str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(lines.as_bytes()).unwrap();
            let mut rest = String::new();
            while BufReader::new(&stream).read_line(&mut rest).unwrap_or(0) > 0 {}
        });
        (folder, path)
    }

    #[test]
    fn events_between_request_and_answer_are_passed_over() {
        let (_folder, path) = scripted(
            "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"RESUME\"}\n{\"return\": \"PCI tree\\n\"}\n",
        );
        let mut monitor = Monitor::connect(&path).unwrap();
        assert_eq!(monitor.human("info pci").unwrap(), "PCI tree\n");
    }

    #[test]
    fn a_refused_command_is_quoted() {
        let (_folder, path) =
            scripted("{\"QMP\": {}}\n{\"return\": {}}\n{\"error\": {\"desc\": \"no such command\"}}\n");
        let mut monitor = Monitor::connect(&path).unwrap();
        let refusal = monitor.execute("x", json!({})).unwrap_err().to_string();
        assert!(refusal.contains("no such command"), "{refusal}");
    }

    #[test]
    fn something_that_is_no_monitor_is_refused() {
        let (_folder, path) = scripted("SSH-2.0\n");
        assert!(Monitor::connect(&path).is_err());
    }
}
