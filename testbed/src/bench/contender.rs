//! The VMMs that are compared, each with the same kernel, initramfs, memory, vCPU and device.

use std::path::Path;

use crate::bench::sample::Contender;
use crate::setup::GuestFiles;

/// The reference VMM, its vCPU on `cpu` if one is given.
pub(crate) fn pellucid(vmm: &Path, guest: &GuestFiles, device: &str, cpu: Option<usize>) -> Contender {
    let cpus = cpu.map_or_else(|| "1".to_owned(), |cpu| format!("{cpu},"));
    let words = [
        &vmm.to_string_lossy(),
        "run",
        "--name",
        "bench",
        "--cpus",
        &cpus,
        "--memory",
        "256M",
        "--kernel",
        &guest.kernel.to_string_lossy(),
        "--initrd",
        &guest.initrd.to_string_lossy(),
        "--cmdline",
        COMMAND_LINE,
        "--device",
        device,
    ];
    Contender {
        name: PELLUCID.into(),
        words: words.map(str::to_owned).to_vec(),
        variables: Vec::new(),
        pinned: None,
    }
}

/// QEMU as the machine `flavour`: `q35` with the device behind a root port, `pc` with it on the only bus. It cannot pin
/// its vCPU by itself: that is done from outside once it has started, as libvirt does.
pub(crate) fn qemu(
    program: &Path,
    flavour: &str,
    guest: &GuestFiles,
    device: &str,
    cpu: Option<usize>,
) -> Contender {
    let (mut words, variables) = unwrapped(program);
    let fixed = format!(
        "-M {flavour} -accel kvm -cpu host -smp 1 -m 256 -nodefaults -no-user-config -no-reboot \
         -display none -serial stdio -name bench,debug-threads=on"
    );
    words.extend(fixed.split(' ').map(str::to_owned));
    for (option, value) in [
        ("-kernel", guest.kernel.to_string_lossy()),
        ("-initrd", guest.initrd.to_string_lossy()),
        ("-append", COMMAND_LINE.into()),
    ] {
        words.extend([option.to_owned(), value.into_owned()]);
    }
    let behind = if flavour == "q35" {
        words.extend(["-device", "pcie-root-port,id=lane,chassis=1"].map(str::to_owned));
        ",bus=lane"
    } else {
        ""
    };
    words.extend(["-device".to_owned(), format!("vfio-pci,host={device}{behind}")]);
    Contender {
        name: format!("qemu {flavour}"),
        words,
        variables,
        pinned: cpu.map(|cpu| (QEMU_THREAD.to_owned(), cpu)),
    }
}

/// An emulator that was unpacked beside the system is started by a script, whose time is not QEMU's: what the script
/// does is done here instead.
fn unwrapped(program: &Path) -> (Vec<String>, Vec<(String, String)>) {
    let folder = program.parent().unwrap_or(Path::new("/"));
    let inner = folder.join("usr/bin/qemu-system-x86_64");
    if !inner.exists() {
        return (vec![program.to_string_lossy().into_owned()], Vec::new());
    }
    let text = |path: &str| folder.join(path).to_string_lossy().into_owned();
    let mut words = vec![inner.to_string_lossy().into_owned()];
    for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        words.extend(["-L".to_owned(), text(firmware)]);
    }
    let libraries = text("usr/lib/x86_64-linux-gnu");
    let paths = format!("{libraries}:{}", text("lib/x86_64-linux-gnu"));
    let modules = format!("{libraries}/qemu");
    let variables = [("LD_LIBRARY_PATH", paths), ("QEMU_MODULE_DIR", modules)];
    (
        words,
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec(),
    )
}

/// What the table calls the reference VMM.
pub(crate) const PELLUCID: &str = "pellucid";
/// Bytes of each guest's memory; the command lines say the same.
pub(crate) const MEMORY: u64 = 256 << 20;
/// What QEMU calls the thread of its first vCPU.
const QEMU_THREAD: &str = "CPU 0/KVM";
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn guest() -> GuestFiles {
        GuestFiles {
            kernel: PathBuf::from("/k"),
            initrd: PathBuf::from("/i"),
        }
    }

    #[test]
    fn all_are_given_the_same_guest() {
        let all = [
            pellucid(Path::new("/vmm"), &guest(), "0000:02:00.0", None),
            qemu(Path::new("/q"), "q35", &guest(), "0000:02:00.0", None),
            qemu(Path::new("/q"), "pc", &guest(), "0000:02:00.0", None),
        ];
        for contender in &all {
            for word in ["/k", "/i", COMMAND_LINE] {
                assert!(contender.words.iter().any(|found| found == word), "{contender:?}");
            }
            let line = contender.words.join(" ");
            assert!(line.contains("256") && line.contains("0000:02:00.0"), "{line}");
        }
        assert!(all[1].words.last().unwrap().ends_with("bus=lane"));
        assert!(!all[2].words.join(" ").contains("root-port"));
    }

    #[test]
    fn all_vcpus_are_put_on_the_same_cpu() {
        let own = pellucid(Path::new("/vmm"), &guest(), "0000:02:00.0", Some(1));
        assert!(
            own.words.windows(2).any(|pair| pair == ["--cpus", "1,"]),
            "{own:?}"
        );
        let peer = qemu(Path::new("/q"), "q35", &guest(), "0000:02:00.0", Some(1));
        assert_eq!(peer.pinned, Some(("CPU 0/KVM".to_owned(), 1)));
        assert!(peer.words.contains(&"bench,debug-threads=on".to_owned()));
    }

    #[test]
    fn an_unpacked_emulator_is_started_without_its_script() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        let inner = folder.path().join("usr/bin/qemu-system-x86_64");
        std::fs::write(&inner, "").unwrap();
        let (words, variables) = unwrapped(&folder.path().join("run"));
        assert_eq!(words[0], inner.to_string_lossy());
        assert_eq!(variables.len(), 2);
        assert_eq!(unwrapped(Path::new("/usr/bin/q")).0, ["/usr/bin/q"]);
    }
}
