//! Reads the system's own apt sources, in both of their formats, to learn where
//! its Debian packages come from. No host name is known here.

use std::path::Path;

use crate::SetupError;

/// One place binary packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where the archive is.
    pub uri: String,
    /// The suites taken from it.
    pub suites: Vec<String>,
    /// The components taken from it.
    pub components: Vec<String>,
    /// The key ring or key that signs it, as written; empty for apt's default.
    pub signed_by: String,
}

/// Every source of the configuration in `folder`, normally `/etc/apt`.
///
/// # Errors
/// A file that is there cannot be read.
pub fn survey_at(folder: &Path) -> Result<Vec<Source>, SetupError> {
    let mut files = vec![folder.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(folder.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for path in files {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(SetupError::file(path, source)),
        };
        match path.extension().and_then(|name| name.to_str()) {
            Some("sources") => sources.extend(parse_deb822(&text)),
            Some("list") => sources.extend(text.lines().filter_map(parse_line)),
            _ => {}
        }
    }
    Ok(sources)
}

/// The source of the suite `codename` with the component `main`.
pub fn main_of<'a>(sources: &'a [Source], codename: &str) -> Option<&'a Source> {
    sources.iter().find(|source| {
        source.suites.iter().any(|suite| suite == codename) && source.components.iter().any(|c| c == "main")
    })
}

/// The deb822 text of a source for `suites` from the same archive as `main`.
pub fn derive(main: &Source, suites: &[String]) -> String {
    let mut text = format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n",
        main.uri,
        suites.join(" ")
    );
    if !main.signed_by.is_empty() {
        text.push_str(&format!("Signed-By: {}\n", main.signed_by));
    }
    text
}

/// The sources in a file of stanzas (`*.sources`).
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let stanzas = kept
        .split(|line| line.trim().is_empty())
        .filter(|lines| !lines.is_empty());
    stanzas.flat_map(parse_stanza).collect()
}

/// The source in one line of `sources.list`, if it has one.
pub fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut signed_by = String::new();
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (options, after) = bracketed.split_once(']')?;
        let option = options
            .split_whitespace()
            .find_map(|word| word.strip_prefix("signed-by="));
        signed_by = option.unwrap_or_default().to_owned();
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source {
        uri,
        suites: vec![suite],
        components: words.collect(),
        signed_by,
    })
}

fn parse_stanza(lines: &[&str]) -> Vec<Source> {
    let words = |name: &str| -> Vec<String> {
        field(lines, name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let disabled = words("Enabled")
        .first()
        .is_some_and(|word| word.eq_ignore_ascii_case("no"));
    if disabled || !words("Types").iter().any(|word| word == "deb") {
        return Vec::new();
    }
    let signed_by = field(lines, "Signed-By").unwrap_or_default();
    let source = |uri| Source {
        uri,
        suites: words("Suites"),
        components: words("Components"),
        signed_by: signed_by.clone(),
    };
    words("URIs").into_iter().map(source).collect()
}

/// A field with its continuation lines, which keep their leading space.
fn field(lines: &[&str], name: &str) -> Option<String> {
    let first = lines.iter().position(|line| {
        line.split_once(':')
            .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name) && !key.starts_with(' '))
    })?;
    let (_, value) = lines[first].split_once(':')?;
    let mut text = value.trim().to_owned();
    for line in lines[first + 1..]
        .iter()
        .take_while(|line| line.starts_with([' ', '\t']))
    {
        text.push('\n');
        text.push_str(line.trim_end());
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb deb-src\n# a remark\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: /keys/debian.gpg\n\n\
        Types: deb\nURIs: http://mirror.example/other\nSuites: stable\nComponents: main\nEnabled: no\n\n\
        Types: deb\nURIs: http://a.example/x http://b.example/x\nSuites: s\nComponents: main\n\
        Signed-By:\n -----BEGIN KEY-----\n .\n abc\n";

    #[test]
    fn stanzas_are_read_with_comments_disabled_ones_and_inline_keys() {
        let sources = parse_deb822(STANZAS);
        assert_eq!(
            sources.len(),
            3,
            "the disabled stanza is left out, two URIs make two sources"
        );
        assert_eq!(sources[0].uri, "http://mirror.example/debian");
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(sources[0].signed_by, "/keys/debian.gpg");
        assert_eq!(sources[2].uri, "http://b.example/x");
        assert_eq!(sources[2].signed_by, "\n -----BEGIN KEY-----\n .\n abc");
    }

    #[test]
    fn lines_are_read_with_options_and_remarks() {
        let source =
            parse_line("deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main # note")
                .unwrap();
        assert_eq!(source.uri, "http://m.example/debian");
        assert_eq!(source.components, ["main"]);
        assert_eq!(source.signed_by, "/k.gpg");
        assert_eq!(parse_line("deb-src http://m.example/debian bookworm main"), None);
        assert_eq!(parse_line("# deb http://m.example/debian bookworm main"), None);
        assert_eq!(parse_line("deb [unclosed http://m.example"), None);
    }

    #[test]
    fn the_main_suite_is_found_among_others_and_another_suite_derived_from_it() {
        let sources = parse_deb822(STANZAS);
        let main = main_of(&sources, "bookworm").unwrap();
        let text = derive(main, &["bookworm-backports".to_owned()]);
        assert_eq!(
            text,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n\
             Components: main\nSigned-By: /keys/debian.gpg\n"
        );
        assert_eq!(main_of(&sources, "trixie"), None);
    }

    #[test]
    fn a_missing_configuration_has_no_sources_and_both_formats_are_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(survey_at(folder.path()).unwrap(), []);
        std::fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        std::fs::write(
            folder.path().join("sources.list"),
            "deb http://one.example s main\n",
        )
        .unwrap();
        std::fs::write(folder.path().join("sources.list.d/two.sources"), STANZAS).unwrap();
        std::fs::write(
            folder.path().join("sources.list.d/old.list.save"),
            "deb http://no.example s main",
        )
        .unwrap();
        assert_eq!(survey_at(folder.path()).unwrap().len(), 4);
    }
}
