//! Words of a command with the values of variables in their places.

use super::machine::{Machine, Status};
use super::script::{Text, Word};

impl Machine<'_> {
    /// The words with their variables' values. Values outside of quotes are split at blanks, and vanish when empty.
    pub(super) fn expand(&mut self, words: &[Word]) -> Result<Vec<String>, String> {
        let (mut expanded, mut size) = (Vec::new(), 0);
        for word in words {
            let mut current: Option<String> = None;
            for piece in word {
                let value = match &piece.text {
                    Text::Literal(text) => {
                        current.get_or_insert_default().push_str(text);
                        size += text.len();
                        continue;
                    }
                    Text::Variable(name) => self.value(name),
                };
                size += value.len();
                if size > MAX_COMMAND {
                    return Err("a command has more than 64 KiB".to_owned());
                }
                if piece.quoted {
                    current.get_or_insert_default().push_str(&value);
                    continue;
                }
                let mut parts = value.split([' ', '\t', '\n']);
                if let Some(first) = parts.next().filter(|first| !first.is_empty()) {
                    current.get_or_insert_default().push_str(first);
                }
                for part in parts {
                    expanded.extend(current.take());
                    if !part.is_empty() {
                        current = Some(part.to_owned());
                    }
                }
            }
            expanded.extend(current);
        }
        self.spend(1 + size as u32 / 64 + expanded.len() as u32)?;
        Ok(expanded)
    }

    fn value(&mut self, name: &str) -> String {
        match name {
            "?" => match self.status.clone() {
                Status::True => "0".to_owned(),
                Status::False => "1".to_owned(),
                Status::Unknown(reason) => {
                    self.doubt(&reason);
                    String::new()
                }
            },
            "#" => self.arguments.len().to_string(),
            "@" | "*" => self.arguments.join(" "),
            _ => match name.parse::<usize>() {
                Ok(number) => {
                    let place = number.checked_sub(1);
                    place
                        .and_then(|place| self.arguments.get(place))
                        .cloned()
                        .unwrap_or_default()
                }
                Err(_) => self.environment.get(name).unwrap_or_default().to_owned(),
            },
        }
    }
}

const MAX_COMMAND: usize = 64 << 10;
