//! QEMU's debugger at a Unix socket, by the remote protocol of gdb: as much of it as is needed to look at a machine that stands
//! still, and to make one step in it.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to the emulator's debugger. The machine stands still from its beginning to [`Debugger::leave`].
#[derive(Debug)]
pub(crate) struct Debugger(BufReader<UnixStream>);

impl Debugger {
    /// Connects to the debugger that listens at `socket`, which stops its machine.
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let mut debugger = Self(BufReader::new(UnixStream::connect(socket)?));
        debugger.bears(ANSWER)?;
        if let Err(error) = debugger.ask("?") {
            // It may have been stopped all the same.
            let _ = debugger.leave();
            return Err(error);
        }
        Ok(debugger)
    }

    /// What the emulator's monitor for people prints on `command`.
    pub(crate) fn monitor(&mut self, command: &str) -> io::Result<String> {
        let command: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut printed = Vec::new();
        let mut answer = self.ask(&format!("qRcmd,{command}"))?;
        while let Some(part) = answer.strip_prefix('O').filter(|part| *part != "K") {
            printed.extend(bytes_of(part).ok_or(io::ErrorKind::InvalidData)?);
            if printed.len() > LONGEST_PRINT {
                return Err(io::ErrorKind::InvalidData.into());
            }
            answer = self.answer()?;
        }
        match answer.as_str() {
            "OK" => Ok(String::from_utf8_lossy(&printed).into_owned()),
            other => Err(io::Error::other(format!("the monitor was not asked: {other:?}"))),
        }
    }

    /// One instruction of this CPU. No other is asked: its step would stop the machine once more, when nobody is there to let it go.
    ///
    /// # Errors
    /// There is no such CPU, or it sleeps; then no step was made.
    pub(crate) fn step(&mut self, cpu: usize) -> io::Result<()> {
        self.bears(STEP)?;
        let stepped = self.ask(&format!("vCont;s:{:x}", cpu + 1));
        if stepped.is_err() {
            // The interrupt of the debugger's protocol stops the machine again.
            self.0.get_mut().write_all(&[3])?;
            self.answer()?;
        }
        self.bears(ANSWER)?;
        match stepped?.as_str() {
            stop if stop.starts_with('T') || stop.starts_with('S') => Ok(()),
            other => Err(io::Error::other(format!("no step was made: {other:?}"))),
        }
    }

    /// Lets the machine go on.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        match self.ask("D")?.as_str() {
            "OK" => Ok(()),
            other => Err(io::Error::other(format!("the debugger did not leave: {other:?}"))),
        }
    }

    /// Waits no longer than this for an answer.
    fn bears(&mut self, limit: Duration) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(Some(limit))
    }

    fn ask(&mut self, request: &str) -> io::Result<String> {
        let sum = request.bytes().fold(0_u8, u8::wrapping_add);
        self.0
            .get_mut()
            .write_all(format!("+${request}#{sum:02x}").as_bytes())?;
        self.answer()
    }

    /// What stands between `$` and `#`; two digits of a sum follow.
    fn answer(&mut self) -> io::Result<String> {
        while self.byte()? != b'$' {}
        let mut answer = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte if answer.len() < LONGEST => answer.push(byte),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        self.byte()?;
        self.byte()?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

/// The bytes that pairs of hexadecimal digits stand for.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Of a machine that is being stopped, on a host that is busy.
const ANSWER: Duration = Duration::from_secs(20);
/// Until the next interrupt of a machine that sleeps, on a host that is busy.
const STEP: Duration = Duration::from_secs(5);
/// QEMU's packets have at most 4,096 bytes, each of which may be escaped.
const LONGEST: usize = 8192;
/// Far more than the registers of all CPUs.
const LONGEST_PRINT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{printed, request, says, scripted};

    fn steps(path: &Path) -> io::Result<()> {
        let mut debugger = Debugger::connect(path)?;
        let stepped = debugger.step(0);
        let left = debugger.leave();
        stepped.and(left)
    }

    #[test]
    fn a_step_is_made_and_the_machine_let_go() {
        let (_folder, path, asked) = scripted(vec![
            ("?", says("T05")),
            ("vCont;s:1", says("T05thread:01;")),
            ("D", says("OK")),
        ]);
        steps(&path).unwrap();
        assert_eq!(asked.join().unwrap(), ["?", "vCont;s:1", "D"]);
    }

    #[test]
    fn a_machine_that_sleeps_is_let_go_too() {
        let (_folder, path, asked) = scripted(vec![
            ("?", says("T05")),
            ("vCont;s:1", vec![]),
            ("\u{3}", says("T02")),
            ("D", says("OK")),
        ]);
        assert!(steps(&path).is_err(), "no step was made");
        assert_eq!(asked.join().unwrap(), ["?", "vCont;s:1", "\u{3}", "D"]);
    }

    #[test]
    fn another_cpu_is_named_as_the_protocol_counts_and_one_that_is_not_there_is_an_error() {
        let script = vec![("?", says("T05")), ("step", says("E22"))];
        let (_folder, path, asked) = scripted(script);
        let mut debugger = Debugger::connect(&path).unwrap();
        assert!(debugger.step(10).unwrap_err().to_string().contains("E22"));
        assert_eq!(asked.join().unwrap(), ["?", "vCont;s:b"]);
    }

    #[test]
    fn no_debugger_and_one_that_talks_nonsense_are_errors() {
        assert!(Debugger::connect(Path::new("/nonexistent/d")).is_err());
        let (_folder, path, _asked) = scripted(vec![
            ("?", says("T05")),
            ("vCont;s:1", says("T05")),
            ("D", says("E22")),
        ]);
        assert!(steps(&path).unwrap_err().to_string().contains("E22"));
        let (_folder, path, _asked) = scripted(vec![("?", says("T05")), ("", says("O0x"))]);
        let mut debugger = Debugger::connect(&path).unwrap();
        assert!(debugger.monitor("info lapic 0").is_err());
    }

    #[test]
    fn what_the_monitor_prints_is_put_together() {
        let text = "CPU#0\nRAX=0\n".repeat(900);
        let (_folder, path, asked) = scripted(vec![("?", says("T05")), ("", printed(&text))]);
        let mut debugger = Debugger::connect(&path).unwrap();
        assert_eq!(debugger.monitor("info registers -a").unwrap(), text);
        assert_eq!(asked.join().unwrap()[1], request("info registers -a"));
    }
}
