//! Shows a console to a person: line by line, in plain text, each line with the console's name in front.

use std::io::{self, Write};

use super::plain::Plain;

/// A copy of a console's output for a terminal that several consoles share.
#[derive(Debug)]
pub struct Shown<W> {
    name: &'static str,
    out: W,
    plain: Plain,
    line: Vec<u8>,
}

impl<W: Write> Shown<W> {
    /// Writes each whole line of the console `name` to `out`.
    pub fn new(name: &'static str, out: W) -> Shown<W> {
        Shown {
            name,
            out,
            plain: Plain::default(),
            line: Vec::new(),
        }
    }

    fn write_lines(&mut self) -> io::Result<()> {
        while let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            write!(self.out, "{} | ", self.name)?;
            self.out.write_all(&line)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.plain.push(bytes, &mut self.line);
        self.write_lines()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_their_consoles_name_and_no_control_sequences() {
        let mut out = Vec::new();
        let mut shown = Shown::new("logical", &mut out);
        for part in [
            &b"\x1b[2J[  \x1b[32mOK\x1b[0m  ] Star"[..],
            b"ted\r\n\r\ndb1 log",
            b"in: root\r\nPass",
        ] {
            shown.write_all(part).expect("write");
        }
        drop(shown);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "logical | [  OK  ] Started\nlogical | \nlogical | db1 login: root\n"
        );
    }
}
