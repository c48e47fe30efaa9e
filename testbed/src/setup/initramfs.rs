//! The initramfs of the physical server: busybox, the modules, `init` and the agent
//! that runs what it is told. Built from content, cached by the digest of that content.

use std::fs;
use std::path::{Path, PathBuf};

use crate::SetupError;
use crate::cache::{Cache, hex_digest};
use crate::setup::archive::Archive;
use crate::setup::kernel::{Kernel, module_bytes};
use crate::setup::program::find;

/// Builds the initramfs, or finds it in the cache.
pub(crate) fn ready(cache: &Cache, kernel: &Kernel) -> Result<PathBuf, SetupError> {
    let scripts = [("init", INIT), ("agent", AGENT)];
    build(
        cache,
        kernel,
        &Content {
            name: "initramfs",
            scripts: &scripts,
            modules: &MODULES,
        },
    )
}

/// What makes an initramfs besides busybox.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    pub(crate) name: &'static str,
    pub(crate) scripts: &'a [(&'static str, &'static str)],
    pub(crate) modules: &'a [&'static str],
}

/// Builds an initramfs of `content` for `kernel`, or finds it in the cache.
pub(crate) fn build(cache: &Cache, kernel: &Kernel, content: &Content<'_>) -> Result<PathBuf, SetupError> {
    let busybox = find("busybox").unwrap_or_else(|| PathBuf::from("busybox"));
    let busybox = fs::read(&busybox).map_err(|source| SetupError::file(busybox, source))?;
    refuse_dynamic(&busybox)?;
    let mut recipe = format!("{}\n{}\n", kernel.release, hex_digest(&busybox));
    for (name, script) in content.scripts {
        recipe.push_str(&format!("{name}\n{script}\n"));
    }
    recipe.push_str(&content.modules.join(" "));
    let entry = cache.entry(content.name, recipe.as_bytes(), &["image"], |fresh| {
        let path = fresh.join("image");
        let bytes = assemble(kernel, &busybox, content)?;
        fs::write(&path, bytes).map_err(|source| SetupError::file(path, source))
    })?;
    Ok(entry.join("image"))
}

fn assemble(kernel: &Kernel, busybox: &[u8], content: &Content<'_>) -> Result<Vec<u8>, SetupError> {
    let mut archive = Archive::new();
    for folder in [
        "bin", "dev", "proc", "sys", "run", "tmp", "mnt", "host", "modules", "etc",
    ] {
        archive.folder(folder);
    }
    archive.device("dev/console", (5, 1)).device("dev/null", (1, 3));
    archive
        .file("bin/busybox", true, busybox)
        .link("bin/sh", "busybox");
    archive.file("etc/inittab", false, b"::ctrlaltdel:/bin/busybox reboot -f\n");
    let mut order = String::new();
    for path in kernel.load_order(content.modules)? {
        let name = loaded_name(&path);
        archive.file(&format!("modules/{name}"), false, &module_bytes(&path)?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", false, order.as_bytes());
    for (name, script) in content.scripts {
        archive.file(name, true, script.as_bytes());
    }
    Ok(archive.finish())
}

fn loaded_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".xz").to_owned()
}

/// A busybox that needs shared libraries would leave the machine without a shell.
fn refuse_dynamic(busybox: &[u8]) -> Result<(), SetupError> {
    let problem = match has_interpreter(busybox) {
        Some(false) => return Ok(()),
        Some(true) => "is linked dynamically",
        None => "is no 64-bit ELF file",
    };
    let remedy = "install the package busybox-static".into();
    Err(SetupError::Content {
        subject: "busybox".into(),
        problem: problem.into(),
        remedy,
    })
}

/// Whether an ELF file has a program header of the kind PT_INTERP.
fn has_interpreter(file: &[u8]) -> Option<bool> {
    let number = |at: usize, length: usize| {
        let bytes = file.get(at..at.checked_add(length)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0_usize, |value, byte| value << 8 | usize::from(*byte)),
        )
    };
    if file.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let kinds = (0..count).map(|index| number(table.checked_add(index * size)?, 4));
    kinds
        .collect::<Option<Vec<_>>>()
        .map(|kinds| kinds.contains(&PT_INTERP))
}

const PT_INTERP: usize = 3;
const INIT: &str = include_str!("../l1/init.sh");
const AGENT: &str = include_str!("../l1/agent.sh");
const MODULES: [&str; 16] = [
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "kvm_amd",
    "vfio_pci",
    "vfio_iommu_type1",
    "nvme",
    "virtio_net",
    "e1000",
    "e1000e",
    "igb",
    "igbvf",
    "crc32c_generic",
    "ext4",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_busybox_is_refused_with_the_remedy() {
        let mut file = vec![0_u8; 64 + 56];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        (file[32], file[54], file[56]) = (64, 56, 1);
        assert!(refuse_dynamic(&file).is_ok());
        file[64] = 3;
        let refusal = refuse_dynamic(&file).unwrap_err().to_string();
        assert!(
            refusal.contains("dynamically") && refusal.contains("busybox-static"),
            "{refusal}"
        );
    }

    #[test]
    fn a_truncated_busybox_is_refused() {
        assert!(refuse_dynamic(b"\x7fELF").is_err());
        let mut file = vec![0xff_u8; 64];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        assert!(refuse_dynamic(&file).is_err());
    }

    #[test]
    fn compressed_modules_lose_their_suffix() {
        assert_eq!(loaded_name(Path::new("/m/kernel/x/kvm-amd.ko.xz")), "kvm-amd.ko");
        assert_eq!(loaded_name(Path::new("/m/kernel/x/nvme.ko")), "nvme.ko");
    }
}
