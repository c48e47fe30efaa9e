//! Small server disks, made with the tools that people make disks with: sgdisk, mkfs.vfat, mtools.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether the tools are here; where not, the testbed's `doctor --install` brings them.
pub(crate) fn tools_are_here() -> bool {
    are_here(&["sgdisk", "mkfs.vfat", "mcopy"])
}

/// Whether also those for [`with_grub`] and [`as_qcow2`] are here.
pub(crate) fn grub_tools_are_here() -> bool {
    tools_are_here() && are_here(&["mkfs.ext4", "qemu-img"])
}

fn are_here(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools
        .iter()
        .copied()
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

/// A disk of 24 MiB with an ESP that has GRUB's stub, and an ext4 file system as its second partition, as Debian installs it.
pub(crate) fn with_grub(path: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    let stub = "search.fs_uuid 3a8c1f52-9b3e-4d0a-8c7e-5f2b6a9d4e10 root hd0,gpt2\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n";
    with_esp(path, &[("EFI/debian/grub.cfg", stub.as_bytes())]);
    let (root, volume) = (path.with_extension("root"), path.with_extension("ext4"));
    for (name, bytes) in files {
        let file = root.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    std::fs::File::create(&volume).unwrap().set_len(8 << 20).unwrap();
    let uuid = "3a8c1f52-9b3e-4d0a-8c7e-5f2b6a9d4e10";
    run(
        "mkfs.ext4",
        &["-q", "-F", "-U", uuid, "-d", &text(&root), &text(&volume)],
    );
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(24 << 20)
        .unwrap();
    // The backup of the table moves to the new end.
    let words = ["-e", "-n", "2:20480:+8M", "-t", "2:8300", &text(path)];
    run("sgdisk", &words);
    let (from, to) = (format!("if={}", text(&volume)), format!("of={}", text(path)));
    run("dd", &[&from, &to, "bs=512", "seek=20480", "conv=notrunc"]);
    path.to_owned()
}

/// The same disk as a compressed qcow2 image.
pub(crate) fn as_qcow2(path: &Path) -> PathBuf {
    let image = path.with_extension("qcow2");
    run(
        "qemu-img",
        &[
            "convert",
            "-c",
            "-f",
            "raw",
            "-O",
            "qcow2",
            &text(path),
            &text(&image),
        ],
    );
    image
}

/// A disk whose ESP holds `files`: paths on it, and contents.
pub(crate) fn with_esp(path: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    partitioned(path, "ef00");
    let volume = path.with_extension("esp");
    std::fs::File::create(&volume).unwrap().set_len(8 << 20).unwrap();
    run("mkfs.vfat", &["-n", "ESP", &text(&volume)]);
    for folder in [
        "::/loader",
        "::/loader/entries",
        "::/debian",
        "::/EFI",
        "::/EFI/debian",
    ] {
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
