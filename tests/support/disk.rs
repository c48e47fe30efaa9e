//! Small server disks, made with the tools that people make disks with: sgdisk, mkfs.vfat, mtools.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether the tools are here; where not, the testbed's `doctor --install` brings them.
pub(crate) fn tools_are_here() -> bool {
    let missing: Vec<_> = ["sgdisk", "mkfs.vfat", "mcopy"]
        .into_iter()
        .filter(|tool| {
            !["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .any(|folder| Path::new(folder).join(tool).exists())
        })
        .collect();
    if !missing.is_empty() {
        super::left_out(&format!(
            "{} not installed; `cargo testbed doctor --install`",
            missing.join(", ")
        ));
    }
    missing.is_empty()
}

/// A disk of 12 MiB with one partition of the given type (`ef00` is an ESP).
pub(crate) fn partitioned(path: &Path, kind: &str) -> PathBuf {
    std::fs::File::create(path).unwrap().set_len(12 << 20).unwrap();
    let partition = format!("1:{START}:+8M");
    run(
        "sgdisk",
        &[
            "-a",
            "1",
            "-n",
            &partition,
            "-t",
            &format!("1:{kind}"),
            &text(path),
        ],
    );
    path.to_owned()
}

/// A disk whose ESP holds `files`: paths on it, and contents.
pub(crate) fn with_esp(path: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    partitioned(path, "ef00");
    let volume = path.with_extension("esp");
    std::fs::File::create(&volume).unwrap().set_len(8 << 20).unwrap();
    run("mkfs.vfat", &["-n", "ESP", &text(&volume)]);
    for folder in ["::/loader", "::/loader/entries", "::/debian"] {
        run("mmd", &["-i", &text(&volume), folder]);
    }
    let content = path.with_extension("file");
    for (name, bytes) in files {
        std::fs::write(&content, bytes).unwrap();
        run(
            "mcopy",
            &["-i", &text(&volume), &text(&content), &format!("::/{name}")],
        );
    }
    let (from, to) = (format!("if={}", text(&volume)), format!("of={}", text(path)));
    run(
        "dd",
        &[&from, &to, "bs=512", &format!("seek={START}"), "conv=notrunc"],
    );
    path.to_owned()
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program)
        .args(words)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The partition's first sector.
const START: u32 = 2048;
