//! Rules about Rust code: where unsafe may be and how it is argued, how things are named, what is never left in.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::tree::{File, enclosed, line_of, name_after, spaceless, words};

/// `unsafe` stands below a `src/sys/` folder and nowhere else, and only the crate root admits it.
pub(crate) fn unsafe_outside_sys(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = file.code();
        let in_sys = file.path.contains("src/sys/") || file.path.ends_with("src/sys.rs");
        for at in words(&code, "unsafe").filter(|_| !in_sys) {
            findings.push(format!(
                "{}:{}: unsafe outside src/sys/",
                file.path,
                line_of(&code, at)
            ));
        }
        let is_root = file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs");
        let admitted = code.contains("allow(unsafe_code") || code.contains("expect(unsafe_code");
        if spaceless(&code).contains("deny(unsafe_code)") || (admitted && !is_root) {
            findings.push(format!(
                "{}: unsafe code is admitted at `mod sys` in lib.rs only",
                file.path
            ));
        }
    }
    findings
}

/// The crates that parse foreign bytes, and the facade, forbid unsafe code.
pub(crate) fn forbids_missing(files: &[File]) -> Vec<String> {
    let roots = files
        .iter()
        .filter(|file| FORBIDDEN_ROOTS.contains(&file.path.as_str()));
    let lax = roots.filter(|file| !spaceless(&file.code()).contains("#![forbid(unsafe_code)]"));
    lax.map(|file| format!("{}: lacks #![forbid(unsafe_code)]", file.path))
        .collect()
}

const FORBIDDEN_ROOTS: [&str; 4] = [
    "image/src/lib.rs",
    "chipset/src/lib.rs",
    "twin/src/lib.rs",
    "src/lib.rs",
];

/// Names say what a thing is. Drawers and empty verbs do not.
pub(crate) fn empty_names(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let stem = file.path.trim_end_matches(".rs");
        if let Some(part) = stem.split('/').find(|part| is_drawer(part)) {
            findings.push(format!("{}: `{part}` names a drawer", file.path));
        }
        let code = file.code();
        let foreign = trait_impls(&code);
        for keyword in ["fn", "struct", "enum", "trait", "type", "mod", "union"] {
            for at in words(&code, keyword).filter(|at| !foreign.iter().any(|body| body.contains(at))) {
                let name = name_after(&code[at + keyword.len()..]);
                let bad = if keyword == "fn" {
                    is_empty_verb(name)
                } else {
                    is_drawer(name)
                };
                if bad {
                    findings.push(format!(
                        "{}:{}: `{keyword} {name}`",
                        file.path,
                        line_of(&code, at)
                    ));
                }
            }
        }
    }
    findings
}

/// The bodies of `impl Trait for Type`: the names in them are the trait's, which is looked at where it is ours.
fn trait_impls(code: &str) -> Vec<Range<usize>> {
    let bodies = words(code, "impl").filter_map(|at| {
        let start = at + code[at..].find(['{', ';'])?;
        let is_body = code[start..].starts_with('{') && code[at..start].contains(" for ");
        is_body.then(|| start..start + 1 + enclosed(&code[start + 1..], '{', '}').len())
    });
    bodies.collect()
}

fn is_empty_verb(name: &str) -> bool {
    ["get_", "set_", "do_", "handle_", "process_"]
        .iter()
        .any(|verb| name.starts_with(verb))
}

/// Whether a word of a snake_case or CamelCase name is one of the drawers.
fn is_drawer(name: &str) -> bool {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake.split('_').any(|word| DRAWERS.contains(&word))
}

const DRAWERS: [&str; 10] = [
    "manager", "managers", "helper", "helpers", "util", "utils", "common", "context", "misc", "stuff",
];

/// Nothing unfinished, and no test that is switched off.
pub(crate) fn unfinished(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = file.code();
        for word in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            for line in words(&code, word).map(|at| line_of(&code, at)) {
                let text = file.text.lines().nth(line - 1).unwrap_or_default();
                if !text.contains(NOT_A_TEST) {
                    findings.push(format!("{}:{line}: {word}", file.path));
                }
            }
        }
    }
    findings
}

/// The one reason for which a test function may be ignored: another test starts it as a process, to kill it.
const NOT_A_TEST: &str = "#[ignore = \"not a test: ";

/// Every lint that is switched off says why.
pub(crate) fn unreasoned_exceptions(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = file.code();
        for word in ["allow(", "expect("] {
            for at in words(&code, word) {
                let inside = enclosed(&code[at + word.len()..], '(', ')');
                if is_attribute(&code[..at]) && !inside.contains("reason") {
                    findings.push(format!(
                        "{}:{}: {word}..) without a reason",
                        file.path,
                        line_of(&code, at)
                    ));
                }
            }
        }
    }
    findings
}

/// Whether the text ends inside an attribute that is still open.
fn is_attribute(before: &str) -> bool {
    let start = before.rfind("#[").max(before.rfind("#!["));
    start.is_some_and(|at| before[at..].matches('[').count() > before[at..].matches(']').count())
}

/// A safety comment argues for its own block: the same words at three places argue for none.
pub(crate) fn cloned_arguments(files: &[File]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(first) = line.strip_prefix("// SAFETY:") else {
                continue;
            };
            let more = lines[index + 1..]
                .iter()
                .map_while(|line| line.strip_prefix("// "));
            let text: Vec<&str> = std::iter::once(first)
                .chain(more)
                .flat_map(str::split_whitespace)
                .collect();
            let place = format!("{}:{}", file.path, index + 1);
            places.entry(text.join(" ")).or_default().push(place);
        }
    }
    let cloned = places.into_iter().filter(|(_, places)| places.len() > 2);
    cloned
        .map(|(text, places)| format!("{}: the same SAFETY text: {text}", places.join(", ")))
        .collect()
}

/// Product code is one program: nothing in it is swapped when it is tested.
pub(crate) fn test_substitutes(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_product()) {
        let code = file.code();
        for at in words(&code, "cfg(test)") {
            let after = code[at + "cfg(test)".len()..]
                .trim_start_matches(']')
                .trim_start();
            if !after.starts_with("mod ") {
                findings.push(format!(
                    "{}:{}: cfg(test) on product code",
                    file.path,
                    line_of(&code, at)
                ));
            }
        }
        for word in ["cfg(not(test))", "cfg!(test)"] {
            findings
                .extend(words(&code, word).map(|at| format!("{}:{}: {word}", file.path, line_of(&code, at))));
        }
    }
    findings
}
