//! docs/machines.md names tests that exist, and every test of a machine is in it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

/// Names between backticks in the rows of the table.
fn documented(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

/// Names of functions with the attribute `test`.
fn written(text: &str) -> Vec<String> {
    let functions = text.split("#[test]\n").skip(1);
    let name = |function: &str| Some(function.split_once("fn ")?.1.split_once('(')?.0.to_owned());
    functions.filter_map(name).collect()
}

#[test]
fn the_table_of_machines_is_that_of_the_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documented = documented(&std::fs::read_to_string(root.join("docs/machines.md")).unwrap());
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let tables = [
            "tier2_machines_",
            "tier2_isolation_",
            "tier2_events_",
            "tier2_plug",
            "tier2_replug",
        ];
        if tables.iter().any(|prefix| name.starts_with(prefix)) {
            found.extend(written(&std::fs::read_to_string(path).unwrap()));
        }
    }
    assert!(found.len() >= 8, "{found:?}");
    assert_eq!(documented, found);
}
