//! The programs the testbed takes from the distribution, and how to get them.

use std::path::Path;
use std::process::Command;

use crate::setup::program::{find, output_of};
use crate::{Progress, SetupError};

/// What the missing programs are needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// To run anything at all.
    Run,
    /// To build and boot the demo disk as well.
    Disk,
}

/// A program that is missing and the package that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The program, or the file, that was looked for.
    pub program: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// What is missing for `needs` on this machine.
pub fn survey(needs: Needs) -> Vec<Shortage> {
    let wanted = REQUIRED.iter().filter(|entry| entry.0 <= needs);
    let missing = wanted.filter(|(_, program, _)| {
        if program.starts_with('/') {
            !Path::new(program).exists()
        } else {
            find(program).is_none()
        }
    });
    missing
        .map(|&(_, program, package)| Shortage { program, package })
        .collect()
}

/// The command that installs `missing`.
pub fn remedy(missing: &[Shortage]) -> String {
    format!(
        "apt-get update && apt-get install --no-install-recommends {}",
        packages(missing).join(" ")
    )
}

/// Installs what is missing for `needs` when this is root on a Debian family, and
/// says so; names the command otherwise.
///
/// # Errors
/// Something is missing and may not, or could not, be installed.
pub fn install_missing(needs: Needs, progress: Progress) -> Result<(), SetupError> {
    let missing = survey(needs);
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing, progress)?;
    let still = survey(needs);
    if still.is_empty() {
        Ok(())
    } else {
        Err(refusal(&still))
    }
}

/// Installs the packages of `missing` by apt.
pub(crate) fn install(missing: &[Shortage], progress: Progress) -> Result<(), SetupError> {
    if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
        return Err(refusal(missing));
    }
    let names = packages(missing);
    let _step = progress.step(format!("installing {}", names.join(" ")));
    let run = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args([
            "install",
            "--yes",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=300",
        ]);
        output_of(command.args(&names))
    };
    if run().is_err() {
        output_of(Command::new("apt-get").args(["update", "-o", "DPkg::Lock::Timeout=300"]))?;
        run()?;
    }
    Ok(())
}

fn refusal(missing: &[Shortage]) -> SetupError {
    let programs = missing
        .iter()
        .map(|shortage| shortage.program.to_owned())
        .collect();
    SetupError::Missing {
        programs,
        remedy: remedy(missing),
    }
}

fn packages(missing: &[Shortage]) -> Vec<&'static str> {
    let mut names: Vec<_> = missing.iter().map(|shortage| shortage.package).collect();
    names.sort_unstable();
    names.dedup();
    names
}

const REQUIRED: [(Needs, &str, &str); 17] = [
    (Needs::Run, "busybox", "busybox-static"),
    (Needs::Run, "depmod", "kmod"),
    (Needs::Run, "xz", "xz-utils"),
    (Needs::Disk, "qemu-img", "qemu-utils"),
    (Needs::Disk, "/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    (Needs::Disk, "mkfs.ext4", "e2fsprogs"),
    (Needs::Disk, "debugfs", "e2fsprogs"),
    (Needs::Disk, "mkfs.vfat", "dosfstools"),
    (Needs::Disk, "mcopy", "mtools"),
    (Needs::Disk, "sgdisk", "gdisk"),
    (Needs::Disk, "mmdebstrap", "mmdebstrap"),
    (Needs::Disk, "iasl", "acpica-tools"),
    (Needs::Disk, "dmidecode", "dmidecode"),
    (Needs::Disk, "udevadm", "udev"),
    (Needs::Disk, "objcopy", "binutils"),
    (Needs::Disk, "cpio", "cpio"),
    (
        Needs::Disk,
        "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
        "systemd-boot-efi",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_each_package_once() {
        let shortage = |program| Shortage {
            program,
            package: "e2fsprogs",
        };
        let text = remedy(&[shortage("mkfs.ext4"), shortage("debugfs")]);
        assert_eq!(text.matches("e2fsprogs").count(), 1);
        assert!(text.starts_with("apt-get update"));
    }

    #[test]
    fn the_disk_needs_more_than_a_run() {
        assert!(REQUIRED.iter().filter(|entry| entry.0 <= Needs::Run).count() < REQUIRED.len());
        assert!(survey(Needs::Disk).len() >= survey(Needs::Run).len());
    }
}
