//! What is built from the sources beside the testbed: the reference VMM, unless one is named, and the benches.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Progress, SetupError};

/// The reference VMM: `$PELLUCID_VMM`, else built now from the workspace that the testbed was started in.
///
/// # Errors
/// It does not build.
pub(crate) fn vmm(progress: Progress) -> Result<PathBuf, SetupError> {
    if let Some(path) = std::env::var_os("PELLUCID_VMM") {
        return Ok(path.into());
    }
    let _step = progress.step("building the reference VMM");
    build(&["build", "--release", "--package", "pellucid", "--example", "vmm"])
}

/// The bench `name` of `package`, built now.
///
/// # Errors
/// It does not build.
pub(crate) fn bench(package: &str, name: &str, progress: Progress) -> Result<PathBuf, SetupError> {
    let _step = progress.step(format!("building the bench {name}"));
    build(&["bench", "--no-run", "--package", package, "--bench", name])
}

/// The program that Cargo makes of `words` in the workspace that the testbed was started in.
fn build(words: &[&str]) -> Result<PathBuf, SetupError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(words)
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(manifest) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(manifest);
    }
    let program = format!("cargo {}", words.join(" "));
    let output = command.output().map_err(|source| SetupError::Start {
        program: program.clone(),
        source,
    })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(SetupError::Program {
            program,
            status: output.status.to_string(),
            stderr,
        });
    }
    executable(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| SetupError::Content {
        subject: program,
        problem: "it built no program".into(),
        remedy: "run it in the project's workspace, or name a program in PELLUCID_VMM".into(),
    })
}

/// The program in Cargo's messages, one JSON value a line.
fn executable(messages: &str) -> Option<PathBuf> {
    let values = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    values
        .filter_map(|value| value.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","target":{"name":"vmm"},"executable":"/t/release/examples/vmm"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(
            executable(messages),
            Some(PathBuf::from("/t/release/examples/vmm"))
        );
        assert_eq!(executable("not json\n{}"), None);
    }
}
