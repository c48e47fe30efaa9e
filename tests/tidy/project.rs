//! Rules about the project around the sources: manifests, examples, test tiers, and what texts may name.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{File, in_word};

/// Crates know only what the design lets them know: siblings never each other.
pub(crate) fn wrong_arrows(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let Some(folder) = file.path.strip_suffix("Cargo.toml") else {
            continue;
        };
        let folder = folder.trim_end_matches('/');
        if folder == "fuzz" {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
            findings.push(format!("{}: no arrows are known for this crate", file.path));
            continue;
        };
        for (_, entry) in dependencies(&file.text) {
            let name = entry.strip_prefix("pellucid-").unwrap_or(&entry);
            if entry.starts_with("pellucid") && !allowed.contains(&name) {
                findings.push(format!("{}: must not know {entry}", file.path));
            }
        }
    }
    findings
}

/// Folder, and the crates it may know. The facade's folder is the root.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "",
        &["partition", "passthrough", "vcpu", "image", "chipset", "twin"],
    ),
    ("twin", &["partition", "passthrough", "vcpu", "image", "chipset"]),
    ("passthrough", &["partition"]),
    ("vcpu", &["partition"]),
    ("image", &["partition"]),
    ("chipset", &["partition"]),
    ("partition", &[]),
    ("testbed", &[]),
];

/// Every dependency a manifest names, of any kind and target: the table it stands in, and its package.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut table = String::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_matches(['[', ']']).to_owned();
            if let Some((_, name)) = table.split_once("dependencies.") {
                found.push((table.clone(), name.to_owned()));
            }
        } else if table.ends_with("dependencies") && !table.starts_with("workspace") && !line.starts_with('#')
        {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let renamed = line
                .split_once("package = \"")
                .and_then(|(_, rest)| rest.split('"').next());
            found.push((table.clone(), renamed.unwrap_or(name).to_owned()));
        }
    }
    found
}

/// Each direct dependency has its reason in the decision record, and the record names no other.
pub(crate) fn unreasoned_dependencies(files: &[File]) -> Vec<String> {
    let record = files.iter().find(|file| file.path == RECORD);
    let rows = record.into_iter().flat_map(|record| record.text.lines());
    let reasoned: BTreeSet<&str> = rows
        .filter_map(|row| row.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name)
        .collect();
    let manifests = files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.toml") && !file.path.starts_with("fuzz/"));
    let used: BTreeSet<String> = manifests
        .flat_map(|file| dependencies(&file.text))
        .map(|(_, name)| name)
        .filter(|name| !name.is_empty() && !name.starts_with("pellucid"))
        .collect();
    let silent = used.iter().filter(|name| !reasoned.contains(name.as_str()));
    // A published facade comes without the other crates.
    let is_whole = files.iter().any(|file| file.path == "image/Cargo.toml");
    let unused = reasoned.iter().filter(|name| is_whole && !used.contains(**name));
    let silent = silent.map(|name| format!("{name}: used, and has no reason in {RECORD}"));
    silent
        .chain(unused.map(|name| format!("{name}: has a reason in {RECORD}, and is not used")))
        .collect()
}

const RECORD: &str = "docs/decisions/0001-dependencies.md";

/// Tests that need KVM or VFIO are targets of their own that plain `cargo test` leaves to the testbed.
pub(crate) fn undeclared_tiers(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let Some((folder, name)) = file.path.rsplit_once('/') else {
            continue;
        };
        let name = name.trim_end_matches(".rs");
        let in_tests = folder == "tests" || folder.ends_with("/tests");
        if !in_tests || !(name.starts_with("tier1_") || name.starts_with("tier2_")) {
            continue;
        }
        let manifest = format!("{}Cargo.toml", folder.trim_end_matches("tests"));
        let declared = files
            .iter()
            .find(|file| file.path == manifest)
            .is_some_and(|manifest| {
                let targets = manifest
                    .text
                    .split("\n[")
                    .filter(|table| table.starts_with("[test]]"));
                let mut own = targets.filter(|table| table.contains(&format!("name = \"{name}\"")));
                own.any(|table| table.lines().any(|line| line.trim() == "test = false"))
            });
        if !declared {
            findings.push(format!(
                "{}: {manifest} does not declare it with test = false",
                file.path
            ));
        }
    }
    findings
}

/// An example shows one thing and can be read at a glance. The reference VMM, and the device that
/// tests lend it, are programs.
pub(crate) fn misshapen_examples(files: &[File]) -> Vec<String> {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let below = file
            .path
            .split_once("examples/")
            .filter(|(before, _)| before.is_empty() || before.ends_with('/'));
        if let Some((before, rest)) = below {
            let name = rest.split('/').next().unwrap_or(rest);
            *lines.entry(format!("{before}examples/{name}")).or_default() += file.lines();
        }
    }
    for program in PROGRAMS {
        lines.remove(program);
    }
    let misshapen = lines.into_iter().filter(|(_, lines)| !(20..=80).contains(lines));
    misshapen
        .map(|(name, lines)| format!("{name}: {lines} lines, 20 to 80 expected"))
        .collect()
}

const PROGRAMS: [&str; 2] = ["examples/vmm", "examples/vfio_user_device"];

/// No text names somebody's directories or hosts: what is written here is true on every machine.
pub(crate) fn private_places(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, index + 1);
            let homes = PRIVATE_ROOTS.iter().map(|root| format!("/{root}/"));
            for home in homes.filter(|home| starts_a_path(line, home)) {
                findings.push(format!("{place}: a path below {home}"));
            }
            for host in hosts(line).filter(|host| !is_public(host)) {
                findings.push(format!("{place}: the host {host}"));
            }
        }
    }
    findings
}

const PRIVATE_ROOTS: [&str; 4] = ["home", "Users", "work", "root"];

/// Whether `path` stands in the line as the beginning of an absolute path.
fn starts_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !in_word(c) && !matches!(c, '.' | '}' | '/' | '~' | '*' | '-'))
    })
}

fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '@' | ':'));
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// Hosts of public references, and those that RFC 2606 keeps for examples. An empty host is a file or a pattern.
fn is_public(host: &str) -> bool {
    let known = PUBLIC_HOSTS.iter().any(|known| {
        host.strip_suffix(known)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
    });
    host.is_empty() || known
}

const PUBLIC_HOSTS: &[&str] = &[
    "github.com",
    "docs.rs",
    "kernel.org",
    "uefi.org",
    "apache.org",
    "opensource.org",
    "spdx.org",
    "semver.org",
    "keepachangelog.com",
    "freedesktop.org",
    "systemd.io",
    "gnu.org",
    "qemu.org",
    "example",
    "example.org",
    "example.com",
    "invalid",
];
