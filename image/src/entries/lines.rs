//! Configuration lines as systemd-boot reads them: key, blanks (or `=`), value; `#` comments; quotes around a whole value go.

/// The lines of a configuration file that have a key and a value.
///
/// Text ends at the first NUL. Bytes that are not UTF-8, and characters that UCS-2 does not have, are dropped, as the boot loader does.
pub(crate) fn key_values(content: &[u8]) -> Vec<(String, String)> {
    pairs(content, is_blank)
}

/// The lines of an os-release file or of one written like it: `KEY=value`.
pub(crate) fn assignments(content: &[u8]) -> Vec<(String, String)> {
    pairs(content, |byte| byte == b'=')
}

fn pairs(content: &[u8], separates: fn(u8) -> bool) -> Vec<(String, String)> {
    let end = content
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(content.len());
    content[..end]
        .split(|&byte| byte == b'\n' || byte == b'\r')
        .filter_map(|line| key_value(line, separates))
        .collect()
}

/// The pattern that `loader.conf` gives as default, in lower case as entry names are compared; `None` when it gives none that
/// holds without firmware variables.
pub(crate) fn default_pattern(content: &[u8]) -> Option<String> {
    let mut pattern = None;
    for (key, value) in key_values(content) {
        let is_saved = value.eq_ignore_ascii_case("@saved");
        if key == "default" && (!value.starts_with('@') || is_saved) {
            pattern = Some(value.to_ascii_lowercase());
        }
    }
    pattern.filter(|pattern| pattern != "@saved")
}

fn key_value(line: &[u8], separates: fn(u8) -> bool) -> Option<(String, String)> {
    let line = trim(line);
    if line.first() == Some(&b'#') {
        return None;
    }
    let split = line.iter().position(|&byte| separates(byte))?;
    let (key, mut value) = line.split_at(split);
    while let [first, rest @ ..] = value
        && separates(*first)
    {
        value = rest;
    }
    let unquoted = value
        .strip_prefix(b"\"")
        .map(|rest| rest.strip_suffix(b"\"").unwrap_or(rest));
    let value = match unquoted {
        Some(inner) if value.ends_with(b"\"") => inner,
        _ => value,
    };
    Some((lossy(key), lossy(value)))
}

fn trim(mut line: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = line {
        if !is_blank(*first) {
            break;
        }
        line = rest;
    }
    while let [rest @ .., last] = line {
        if !is_blank(*last) {
            break;
        }
        line = rest;
    }
    line
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn lossy(bytes: &[u8]) -> String {
    let valid = bytes.utf8_chunks().flat_map(|chunk| chunk.valid().chars());
    valid.filter(|&c| u32::from(c) <= 0xffff).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn blanks_comments_and_quotes_are_read_as_the_boot_loader_reads_them() {
        let content = b"# note\n\n  title\t  \"Debian 12\"  \r\noptions root=/dev/x  quiet \nbare\nlinux /vmlinuz\0linux /other";
        let expected = vec![
            pair("title", "Debian 12"),
            pair("options", "root=/dev/x  quiet"),
            pair("linux", "/vmlinuz"),
        ];
        assert_eq!(key_values(content), expected);
    }

    #[test]
    fn a_lone_quote_is_an_empty_value() {
        assert_eq!(key_values(b"title \""), vec![pair("title", "")]);
        assert_eq!(key_values(b"title \"open"), vec![pair("title", "\"open")]);
    }

    #[test]
    fn bytes_that_are_no_text_are_dropped() {
        assert_eq!(
            key_values(b"title D\xff\xfeebian \xf0\x9f\x90\xa7 12"),
            vec![pair("title", "Debian  12")]
        );
    }

    #[test]
    fn the_last_default_holds_but_an_unknown_special_name_is_ignored() {
        assert_eq!(
            default_pattern(b"timeout 3\ndefault A*\ndefault @bogus\n"),
            Some("a*".to_owned())
        );
        assert_eq!(default_pattern(b"default debian-*\ndefault @saved\n"), None);
        assert_eq!(default_pattern(b"timeout 3\n"), None);
    }
}
