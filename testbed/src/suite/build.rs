//! Builds the test targets of tiers 1 and 2 with Cargo and learns where they are.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use thiserror::Error;

use crate::Progress;

/// The suite could not be built or started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// Cargo did not start.
    #[error("cannot start `{}`: {source}; is Cargo installed?", program.display())]
    Start {
        /// The Cargo that was to be started.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Cargo's answer could not be understood.
    #[error("`cargo metadata`: {source}; it needs a Cargo that knows format version 1")]
    Metadata {
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A test binary of tier 1 or 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// 1 or 2.
    pub tier: u8,
    /// The name of the test target.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// The folder of its package, in which it expects to run.
    pub folder: PathBuf,
}

/// Everything that was built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// The test binaries, in the order in which they run.
    pub binaries: Vec<Binary>,
    /// The reference VMM.
    pub vmm: Option<PathBuf>,
    /// What did not build.
    pub failures: Vec<String>,
}

/// Builds the test targets `tier1_*` and `tier2_*` of the workspace that are `kept`, and
/// the examples, `vmm` among them. What does not build is left out and named in the answer.
pub(crate) fn build(kept: impl Fn(u8, &str) -> bool, progress: Progress) -> Result<Built, SuiteError> {
    let (metadata, _) = cargo(&["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value =
        serde_json::from_str(&metadata).map_err(|source| SuiteError::Metadata { source })?;
    let names = targets(&metadata, "test");
    let names: Vec<_> = names
        .into_iter()
        .filter(|name| tier_of(name).is_some_and(|tier| kept(tier, name)))
        .collect();
    if names.is_empty() {
        return Ok(Built::default());
    }
    let _step = progress.step("building the test targets of tiers 1 and 2");
    let mut words = vec!["test", "--no-run", "--no-fail-fast"];
    words.extend(COMMON);
    words.extend(names.iter().flat_map(|name| ["--test", name]));
    let (messages, failed) = cargo(&words)?;
    let mut built = parse_artefacts(&messages);
    built
        .failures
        .extend(failed.map(|status| format!("some test targets ({status})")));
    if targets(&metadata, "example").contains("vmm") {
        // All of them: a test of the VMM finds a device that another example serves beside it.
        let mut words = vec!["build", "--examples"];
        words.extend(COMMON);
        let (messages, failed) = cargo(&words)?;
        built.vmm = parse_artefacts(&messages).vmm;
        built
            .failures
            .extend(failed.map(|status| format!("the reference VMM ({status})")));
    }
    Ok(built)
}

/// The Cargo this runs under.
pub(crate) fn cargo_program() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// What Cargo wrote, and its exit status if it failed; the reason went to standard error.
fn cargo(words: &[&str]) -> Result<(String, Option<String>), SuiteError> {
    let program = cargo_program();
    let output = Command::new(&program)
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let output = output.map_err(|source| SuiteError::Start { program, source })?;
    let failed = (!output.status.success()).then(|| output.status.to_string());
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), failed))
}

/// The names of all targets of `kind` in Cargo's metadata.
fn targets<'a>(metadata: &'a Value, kind: &str) -> BTreeSet<&'a str> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let all = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    all.filter(|target| has_kind(target, kind))
        .filter_map(|target| target["name"].as_str())
        .collect()
}

/// The executables in Cargo's stream of messages.
pub(crate) fn parse_artefacts(messages: &str) -> Built {
    let mut built = Built::default();
    for message in messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str())
        else {
            continue;
        };
        if has_kind(&message["target"], "example") && name == "vmm" {
            built.vmm = Some(PathBuf::from(path));
        }
        let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
        if let Some(tier) = tier_of(name).filter(|_| has_kind(&message["target"], "test")) {
            let folder = manifest.parent().unwrap_or(Path::new("/")).to_owned();
            built.binaries.push(Binary {
                tier,
                name: name.to_owned(),
                path: PathBuf::from(path),
                folder,
            });
        }
    }
    built
        .binaries
        .sort_by(|one, other| (one.tier, &one.path).cmp(&(other.tier, &other.path)));
    built
}

fn has_kind(target: &Value, kind: &str) -> bool {
    target["kind"]
        .as_array()
        .is_some_and(|kinds| kinds.iter().any(|found| found == kind))
}

fn tier_of(name: &str) -> Option<u8> {
    [("tier1_", 1), ("tier2_", 2)]
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|&(_, tier)| tier)
}

const COMMON: [&str; 2] = ["--workspace", "--message-format=json-render-diagnostics"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_the_stream_of_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"kind":["test"],"name":"tier2_b"},"executable":"/t/b"}
not json
{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"kind":["test"],"name":"tier1_a"},"executable":"/t/a"}
{"reason":"compiler-artifact","manifest_path":"/w/Cargo.toml","target":{"kind":["example"],"name":"vmm"},"executable":"/t/vmm"}
{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"kind":["lib"],"name":"tier1_lib"},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"kind":["test"],"name":"ordinary"},"executable":"/t/o"}"#;
        let built = parse_artefacts(messages);
        let names: Vec<_> = built
            .binaries
            .iter()
            .map(|binary| (binary.tier, binary.name.as_str()))
            .collect();
        assert_eq!(names, [(1, "tier1_a"), (2, "tier2_b")]);
        assert_eq!(built.binaries[0].folder, Path::new("/w/p"));
        assert_eq!(built.vmm.as_deref(), Some(Path::new("/t/vmm")));
    }

    #[test]
    fn targets_of_one_kind_are_listed_across_packages() {
        let metadata = serde_json::json!({ "packages": [
            { "targets": [{ "kind": ["test"], "name": "tier1_a" }, { "kind": ["lib"], "name": "x" }] },
            { "targets": [{ "kind": ["test"], "name": "tier1_a" }, { "kind": ["test"], "name": "tidy" }] },
        ]});
        assert_eq!(
            targets(&metadata, "test").into_iter().collect::<Vec<_>>(),
            ["tidy", "tier1_a"]
        );
        assert!(targets(&Value::Null, "test").is_empty());
    }
}
