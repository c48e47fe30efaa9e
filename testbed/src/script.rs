//! A debugger of the tests' own, which answers as a script says.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

/// Takes these requests in turn, gives each its answers, and returns what it was asked.
pub(crate) fn scripted(
    script: Vec<(&'static str, Vec<String>)>,
) -> (tempfile::TempDir, PathBuf, JoinHandle<Vec<String>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut asked = Vec::new();
        for (request, answers) in script {
            asked.push(match request {
                "\u{3}" => interrupt(&mut stream),
                _ => packet(&mut stream),
            });
            for answer in answers {
                let sent = stream.get_mut().write_all(format!("+${answer}#00").as_bytes());
                sent.unwrap();
            }
        }
        asked
    });
    (folder, path, thread)
}

/// One answer.
pub(crate) fn says(answer: &str) -> Vec<String> {
    vec![answer.to_owned()]
}

/// The answers to a command of the monitor that prints `text`.
pub(crate) fn printed(text: &str) -> Vec<String> {
    let parts = text.as_bytes().chunks(2000);
    let parts = parts.map(|part| format!("O{}", digits(part)));
    parts.chain(["OK".to_owned()]).collect()
}

/// How a command of the monitor is asked for.
pub(crate) fn request(command: &str) -> String {
    format!("qRcmd,{}", digits(command.as_bytes()))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn interrupt(stream: &mut BufReader<UnixStream>) -> String {
    while byte(stream) != 3 {}
    "\u{3}".to_owned()
}

/// What stands between the next `$` and its `#`; two digits follow.
fn packet(stream: &mut BufReader<UnixStream>) -> String {
    while byte(stream) != b'$' {}
    let mut packet = String::new();
    loop {
        match byte(stream) {
            b'#' => break,
            byte => packet.push(byte.into()),
        }
    }
    byte(stream);
    byte(stream);
    packet
}

fn byte(stream: &mut BufReader<UnixStream>) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}
