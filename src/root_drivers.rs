//! Whether what is booted will find its root: the drivers of storage controllers, looked for in its initrds.

use std::path::Path;

use pellucid_image::{InitrdModules, SourceFile, StorageController};
use pellucid_partition::Bdf;

use crate::boot::Boot;
use crate::identity::CheckWarning;
use crate::offer::Offer;

/// Every lent storage controller whose drivers neither initrds nor kernel have. Nothing is said of a boot through firmware.
pub(crate) fn warnings(boot: &mut Boot, offers: &[Offer]) -> Vec<CheckWarning> {
    let lent = offers.iter().filter_map(controller).collect();
    match boot {
        Boot::Kernel(linux) => lacking(&behind(None, lent), &mut linux.initrds),
        Boot::Disk { disk, plan } => {
            let above = controller_of(Path::new(disk.name())).map(|(bdf, _)| bdf);
            // A file that cannot be opened is a refusal of its own.
            let linux = disk.linux(plan);
            linux.map_or_else(
                |_| Vec::new(),
                |mut linux| lacking(&behind(above, lent), &mut linux.initrds),
            )
        }
        Boot::Firmware(_) => Vec::new(),
    }
}

/// Those lent functions that Linux needs known drivers for to find its root behind them: only that which the boot disk is behind if it is
/// lent, since the root is seldom on another.
fn behind(disk: Option<Bdf>, mut lent: Vec<(Bdf, StorageController)>) -> Vec<(Bdf, StorageController)> {
    if lent.iter().any(|(device, _)| Some(*device) == disk) {
        lent.retain(|(device, _)| Some(*device) == disk);
    }
    lent.retain(|(_, controller)| !controller.drivers().is_empty());
    lent
}

/// The PCI function that a block device of this host is behind, and what it is; `None` for a file, and where sysfs tells of none.
#[must_use]
pub fn controller_of(disk: &Path) -> Option<(Bdf, StorageController)> {
    controller_at(Path::new("/sys/class/block"), disk)
}

fn controller_at(class: &Path, disk: &Path) -> Option<(Bdf, StorageController)> {
    let disk = disk.canonicalize().ok()?;
    let device = class.join(disk.file_name()?).canonicalize().ok()?;
    let address = |path: &Path| path.file_name()?.to_str()?.parse::<Bdf>().ok();
    let (folder, bdf) = device.ancestors().find_map(|path| Some((path, address(path)?)))?;
    let id = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    };
    let controller = StorageController {
        class: id("class")?,
        vendor: id("vendor")?.try_into().ok()?,
        device: id("device")?.try_into().ok()?,
    };
    Some((bdf, controller))
}

fn controller(offer: &Offer) -> Option<(Bdf, StorageController)> {
    let function = offer.admitted()?.function();
    let controller = StorageController {
        class: function.ids.class,
        vendor: function.ids.vendor,
        device: function.ids.device,
    };
    Some((function.bdf, controller))
}

fn lacking(controllers: &[(Bdf, StorageController)], initrds: &mut [SourceFile<'_>]) -> Vec<CheckWarning> {
    if controllers.is_empty() {
        return Vec::new();
    }
    let wanted: Vec<&str> = controllers
        .iter()
        .flat_map(|(_, controller)| controller.drivers())
        .copied()
        .collect();
    let modules = InitrdModules::survey(initrds, &wanted);
    if let Some(reason) = modules.unread() {
        return vec![CheckWarning::InitrdUnread(reason.to_owned())];
    }
    let lacking = |(device, controller): &(Bdf, StorageController)| {
        let missing = controller.missing(&modules);
        (!missing.is_empty()).then(|| CheckWarning::NoRootDriver {
            device: *device,
            controller: *controller,
            missing: missing.join(", "),
        })
    };
    controllers.iter().filter_map(lacking).collect()
}

#[path = "../tests/support/initrd.rs"]
#[cfg(test)]
mod made;

#[cfg(test)]
mod tests {
    use super::made::of_names;
    use super::*;
    use std::io::Cursor;

    fn warned(initrd: Vec<u8>) -> Vec<String> {
        let nvme = StorageController {
            class: 0x01_0802,
            vendor: 0x1b36,
            device: 0x10,
        };
        let size = initrd.len() as u64;
        let mut initrds = [SourceFile::new("initrd.img", size, Cursor::new(initrd))];
        let found = lacking(&[("0000:01:00.0".parse().unwrap(), nvme)], &mut initrds);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_controller_without_its_driver_is_warned_of_by_name() {
        let builtin = "lib/modules/6/modules.builtin";
        let others = warned(of_names(&["lib/modules/6/kernel/ahci.ko", builtin]));
        assert_eq!(others.len(), 1);
        let text = &others[0];
        assert!(
            text.starts_with("NVMe controller 1b36:0010 0000:01:00.0: "),
            "{text}"
        );
        assert!(
            text.contains("(nvme)") && text.contains("rebuild the initrd"),
            "{text}"
        );
        let has = of_names(&["lib/modules/6/kernel/nvme.ko", builtin]);
        assert_eq!(warned(has), Vec::<String>::new());
        assert_eq!(
            warned(of_names(&["init"])),
            Vec::<String>::new(),
            "it tells of no drivers at all"
        );
    }

    #[test]
    fn an_initrd_that_cannot_be_looked_into_is_said() {
        let text = warned(vec![0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0]).concat();
        assert!(
            text.contains("not known: initrd.img: it is compressed by lz4"),
            "{text}"
        );
    }

    #[test]
    fn the_controller_of_a_block_device_is_the_last_function_above_it() {
        let root = tempfile::tempdir().unwrap();
        let function = root.path().join("devices/pci0000:00/0000:00:02.0/0000:01:00.0");
        let node = function.join("nvme/nvme0/nvme0n1");
        let class = root.path().join("class");
        std::fs::create_dir_all(&node).unwrap();
        std::fs::create_dir(&class).unwrap();
        std::os::unix::fs::symlink(&node, class.join("nvme0n1")).unwrap();
        for (name, text) in [
            ("class", "0x010802\n"),
            ("vendor", "0x144d\n"),
            ("device", "0xa80a\n"),
        ] {
            std::fs::write(function.join(name), text).unwrap();
        }
        let disk = root.path().join("nvme0n1");
        assert_eq!(controller_at(&class, &disk), None, "there is no such file");
        std::fs::write(&disk, "").unwrap();
        let (bdf, controller) = controller_at(&class, &disk).unwrap();
        assert_eq!(bdf.to_string(), "0000:01:00.0");
        assert_eq!(controller.to_string(), "NVMe controller 144d:a80a");
        let image = root.path().join("disk.img");
        std::fs::write(&image, "").unwrap();
        assert_eq!(controller_at(&class, &image), None);
        std::fs::write(function.join("vendor"), "0x12345\n").unwrap();
        assert_eq!(controller_at(&class, &disk), None, "no vendor id");
    }

    #[test]
    fn of_the_lent_only_the_boot_disks_controller_counts_if_it_is_lent() {
        let bdf = |text: &str| text.parse::<Bdf>().unwrap();
        let one = |at: &str, class| {
            let controller = StorageController {
                class,
                vendor: 0x144d,
                device: 1,
            };
            (bdf(at), controller)
        };
        let nvme = one("01:00.0", 0x01_0802);
        let sata = one("00:1f.2", 0x01_0601);
        let unknown = one("02:00.0", 0x01_8000);
        let network = one("03:00.0", 0x02_0000);
        let lent = vec![nvme, sata, unknown, network];
        let of = |disk: Option<&str>| behind(disk.map(bdf), lent.clone());
        assert_eq!(of(None), [nvme, sata]);
        assert_eq!(of(Some("05:00.0")), [nvme, sata], "it stays with the host");
        assert_eq!(of(Some("01:00.0")), [nvme]);
        assert_eq!(of(Some("02:00.0")), [], "what it needs is not known");
    }
}
