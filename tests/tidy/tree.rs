//! The source tree as values: every text file with its path, and Rust text without its comments and literals.

use std::fs;
use std::io;
use std::path::Path;

/// A text file of the project.
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is compiled into what users link: below a `src` folder.
    pub(crate) fn is_product(&self) -> bool {
        self.is_rust() && (self.path.starts_with("src/") || self.path.contains("/src/"))
    }

    pub(crate) fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// Lines before the inline tests.
    pub(crate) fn product_lines(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod tests")
        });
        tests.unwrap_or(lines.len())
    }

    /// The Rust text with comments and literals blanked out; lines stay where they were.
    pub(crate) fn code(&self) -> String {
        blank(&self.text)
    }
}

/// Every text file below `root`, sorted by path. Build output, histories and fuzzing corpora are left out.
pub(crate) fn read(root: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            // In a worktree `.git` is a file, which says where the history is.
            if LEFT_OUT.iter().any(|left_out| name == *left_out) {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            }
            let path = entry.path();
            let text = if kind.is_file() {
                String::from_utf8(fs::read(&path)?).ok()
            } else {
                None
            };
            if let (Some(text), Ok(relative)) = (text, path.strip_prefix(root)) {
                files.push(File {
                    path: relative.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

const LEFT_OUT: &[&str] = &[".git", "target", "corpus", "artifacts"];

/// Whether the character may be part of a word.
pub(crate) fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The byte positions at which `word` stands in `code` as a word of its own.
pub(crate) fn words<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + 'c {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let alone_before = !code[..at].ends_with(in_word);
        let alone_after = !word.ends_with(in_word) || !code[at + word.len()..].starts_with(in_word);
        alone_before && alone_after
    })
}

/// The number of the line that byte `at` is in.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The name that the code begins with.
pub(crate) fn name_after(code: &str) -> &str {
    let code = code.trim_start();
    &code[..code.find(|c| !in_word(c)).unwrap_or(code.len())]
}

/// The code up to the bracket that closes one that was opened before it.
pub(crate) fn enclosed(code: &str, open: char, close: char) -> &str {
    let mut depth = 1;
    for (at, c) in code.char_indices() {
        depth += i32::from(c == open) - i32::from(c == close);
        if depth == 0 {
            return &code[..at];
        }
    }
    code
}

pub(crate) fn spaceless(text: &str) -> String {
    text.split_whitespace().collect()
}

/// Replaces what is inside comments, strings and character literals by spaces.
pub(crate) fn blank(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let foreign = foreign_length(rest, code.ends_with(in_word));
        let (taken, is_code) = if foreign == 0 {
            (first.len_utf8(), true)
        } else {
            (foreign, false)
        };
        let piece = &rest[..taken];
        if is_code {
            code.push_str(piece);
        } else {
            code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = &rest[taken..];
    }
    code
}

/// The length of the comment or literal at the start of `rest`; 0: it starts with code.
fn foreign_length(rest: &str, after_word: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, 1);
    }
    if !after_word && let Some(length) = prefixed(rest) {
        return length;
    }
    if rest.starts_with('\'') {
        character(rest)
    } else {
        0
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        let marks = rest[at..].find("/*").into_iter().chain(rest[at..].find("*/"));
        let Some(next) = marks.min() else {
            return rest.len();
        };
        depth = if rest[at + next..].starts_with("/*") {
            depth + 1
        } else {
            depth - 1
        };
        at += next + 2;
        if depth == 0 {
            return at;
        }
    }
}

/// A string whose text begins at `start`, up to the quote that no backslash precedes.
fn quoted(rest: &str, start: usize) -> usize {
    let mut escaped = false;
    for (at, c) in rest[start..].char_indices() {
        if c == '"' && !escaped {
            return start + at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// Raw, byte and C strings.
fn prefixed(rest: &str) -> Option<usize> {
    let letters = rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    if letters == 0 || letters > 2 {
        return None;
    }
    let hashes = rest[letters..].chars().take_while(|&c| c == '#').count();
    let start = letters + hashes + 1;
    if !rest[letters + hashes..].starts_with('"') {
        return None;
    }
    if !rest[..letters].contains('r') {
        return (hashes == 0).then(|| quoted(rest, start));
    }
    let end = format!("\"{}", "#".repeat(hashes));
    Some(
        rest[start..]
            .find(&end)
            .map_or(rest.len(), |at| start + at + end.len()),
    )
}

/// A character literal; a lifetime is code.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    let Some((_, first)) = chars.next() else { return 0 };
    if first == '\\' {
        chars.next();
        return chars.find(|&(_, c)| c == '\'').map_or(0, |(at, _)| at + 1);
    }
    match chars.next() {
        Some((at, '\'')) => at + 1,
        _ => 0,
    }
}
