//! Turns what a terminal is sent into plain text: no colours, no cursor movements, no window titles.
//! Works on a stream: a sequence may be cut anywhere.

/// Where in a control sequence the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Plain {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate byte: one byte follows.
    Intermediate,
    /// In a control sequence (ESC `[`), up to its final byte.
    Control,
    /// In a string (ESC `]` and others), up to BEL or ESC `\`.
    String,
    /// In a string, after ESC.
    StringEscape,
}

impl Plain {
    /// Appends the plain part of `bytes` to `text`. Of the control characters only line feed and tabulator stay.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::String, 0x07) => State::Text,
                (State::String, ESC) => State::StringEscape,
                (State::String, _) => State::String,
                (State::StringEscape, b'\\') => State::Text,
                (_, ESC) => State::Escape,
                (State::Escape | State::StringEscape, b'[') => State::Control,
                (State::Escape | State::StringEscape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
                (State::Escape | State::Intermediate, 0x20..=0x2f) => State::Intermediate,
                (State::Escape | State::StringEscape | State::Intermediate, _) => State::Text,
                (State::Control, 0x40..=0x7e) => State::Text,
                (State::Control, _) => State::Control,
                (State::Text, _) => {
                    if byte >= 0x20 && byte != 0x7f || byte == b'\n' || byte == b'\t' {
                        text.push(byte);
                    }
                    State::Text
                }
            };
        }
    }
}

const ESC: u8 = 0x1b;

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(parts: &[&[u8]]) -> String {
        let (mut plain, mut text) = (Plain::default(), Vec::new());
        for part in parts {
            plain.push(part, &mut text);
        }
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn colours_and_cursor_movements_disappear() {
        assert_eq!(
            plain(&[b"\x1b[0;1;31mfailed\x1b[0m \x1b[2J\x1b[01;01Hdone\r\n"]),
            "failed done\n"
        );
        assert_eq!(plain(&[b"\x1b[?2004hroot@db1:~# \x1b[?2004l"]), "root@db1:~# ");
    }

    #[test]
    fn strings_end_with_a_bell_or_a_terminator() {
        assert_eq!(plain(&[b"a\x1b]0;root@db1\x07b"]), "ab");
        assert_eq!(plain(&[b"a\x1b]3008;start=1\x1b\\b"]), "ab");
        assert_eq!(plain(&[b"a\x1bP+q544e\x1b\\b\x1b(Bc"]), "abc");
    }

    #[test]
    fn a_sequence_may_be_cut_anywhere() {
        let whole = b"x\x1b[0;1mbold\x1b]0;t\x1b\\y\x1b(Bz\n";
        for cut in 0..whole.len() {
            assert_eq!(
                plain(&[&whole[..cut], &whole[cut..]]),
                "xboldyz\n",
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn letters_beyond_ascii_stay() {
        assert_eq!(plain(&["● übrig\n".as_bytes()]), "● übrig\n");
    }
}
