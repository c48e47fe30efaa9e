//! Rules about the shape of Rust sources: how long a file is, how it begins, how much one type holds.

use crate::tree::{File, enclosed, line_of, name_after, spaceless, words};

/// Files are short enough to be read in one go.
pub(crate) fn long_files(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let excused = LONGER.iter().any(|(path, _reason)| *path == file.path);
        let most = if excused || !file.is_product() {
            MOST_EXCUSED
        } else {
            MOST_LINES
        };
        let lines = file.product_lines();
        if lines > most {
            findings.push(format!(
                "{}: {lines} lines before its tests, {most} at most",
                file.path
            ));
        }
    }
    let listed = LONGER.iter().filter(|(path, _)| {
        let file = files.iter().find(|file| file.path == *path);
        file.is_none_or(|file| file.product_lines() <= MOST_LINES)
    });
    findings.extend(listed.map(|(path, _)| format!("{path}: listed as long, but is not")));
    findings
}

const MOST_LINES: usize = 300;
const MOST_EXCUSED: usize = 500;
/// Files that may be longer than [`MOST_LINES`], each with the reason.
const LONGER: &[(&str, &str)] = &[];

/// Every file says in one to six `//!` lines what it is; a library's root shows its README instead.
pub(crate) fn headers_missing(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let is_library = file.path == "src/lib.rs" || file.path.ends_with("/src/lib.rs");
        if is_library {
            if !spaceless(&file.text).contains("#![doc=include_str!(\"../README.md\")]") {
                findings.push(format!(
                    "{}: does not show README.md as its documentation",
                    file.path
                ));
            }
            continue;
        }
        let header = file.text.lines().take_while(|line| line.starts_with("//!"));
        let count = header.count();
        if !(1..=6).contains(&count) {
            findings.push(format!("{}: {count} lines of `//!`, 1 to 6 expected", file.path));
        }
    }
    findings
}

/// A type holds what a reader can keep in mind.
pub(crate) fn crowded_types(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = file.code();
        let structs = words(&code, "struct").map(|at| (at + "struct".len(), "fields"));
        let errors = words(&code, "enum").map(|at| (at + "enum".len(), "variants"));
        for (at, parts) in structs.chain(errors) {
            let name = name_after(&code[at..]);
            let Some(start) = code[at..].find(['{', ';', '(']).map(|start| at + start) else {
                continue;
            };
            let is_counted = parts == "fields" || name.ends_with("Error");
            if code[start..].starts_with('{') && is_counted {
                let count = count_parts(enclosed(&code[start + 1..], '{', '}'));
                if count > MOST_PARTS {
                    let line = line_of(&code, at);
                    findings.push(format!(
                        "{}:{line}: {name}: {count} {parts}, 12 at most",
                        file.path
                    ));
                }
            }
        }
    }
    findings
}

/// Counts what the commas outside of all brackets separate.
fn count_parts(body: &str) -> usize {
    let mut depth = 0;
    let mut parts = 0;
    let mut is_empty = true;
    for c in body.replace("->", "").chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => is_empty = true,
            c if depth == 0 && is_empty && c.is_alphabetic() => {
                parts += 1;
                is_empty = false;
            }
            _ => {}
        }
    }
    parts
}

const MOST_PARTS: usize = 12;
