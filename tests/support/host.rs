//! The host's side of a lent device: its driver, its disk, and whether a byte of it changed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::eventually;

pub(crate) const BOOT: &str = "0000:01:00.0";
pub(crate) const DATA: &str = "0000:02:00.0";

pub(crate) fn driver_of(device: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/bus/pci/devices/{device}/driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// The block device of a controller's first namespace, as soon as the driver has found it.
#[track_caller]
pub(crate) fn disk_of(device: &str) -> PathBuf {
    eventually(&format!("the disk of {device}"), || {
        let folder = format!("/sys/bus/pci/devices/{device}/nvme");
        let controller = std::fs::read_dir(folder).ok()?.flatten().next()?.file_name();
        let disk = Path::new("/dev").join(format!("{}n1", controller.to_string_lossy()));
        std::fs::File::open(&disk).is_ok().then_some(disk)
    })
}

/// A disk filled with a pattern, and the copy that it is compared with.
pub(crate) struct Pattern {
    device: &'static str,
    copy: PathBuf,
}

impl Pattern {
    /// Fills the disk: no two sectors of it are alike.
    pub(crate) fn write(device: &'static str, folder: &Path) -> Self {
        let disk = disk_of(device);
        let sectors = sectors(&disk);
        let copy = folder.join(format!("copy-{device}"));
        let mut file = std::io::BufWriter::new(std::fs::File::create(&copy).unwrap());
        for sector in 0..sectors {
            file.write_all(&[sector.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes(); 64].concat())
                .unwrap();
        }
        drop(file);
        let status = Command::new("dd")
            .arg(format!("if={}", copy.display()))
            .arg(format!("of={}", disk.display()))
            .args(["bs=1M", "conv=fsync", "status=none"])
            .status();
        assert!(status.unwrap().success(), "{} was not written", disk.display());
        Self { device, copy }
    }

    /// The controller is on its driver, its disk is there, and every byte is as it was.
    #[track_caller]
    pub(crate) fn is_back(&self) {
        assert_eq!(
            driver_of(self.device).as_deref(),
            Some("nvme"),
            "the driver of {}",
            self.device
        );
        let disk = disk_of(self.device);
        let _dropped = std::fs::write("/proc/sys/vm/drop_caches", "1");
        let same = Command::new("cmp")
            .args([&disk, &self.copy])
            .stdout(Stdio::null())
            .status();
        assert!(same.unwrap().success(), "{} has changed", disk.display());
    }

    /// The controller works: its disk is there again, and its first MiB reads as it was written, past the page cache.
    #[track_caller]
    pub(crate) fn begins(&self, moment: &str) {
        let disk = disk_of(self.device);
        let script = "dd if=$0 bs=1M count=1 iflag=direct status=none | cmp -n 1048576 - $1";
        let same = Command::new("sh")
            .args(["-c", script])
            .args([&disk, &self.copy])
            .status();
        assert!(
            same.unwrap().success(),
            "{moment}: {} does not read as before",
            disk.display()
        );
    }

    /// The sum of the first `mebibytes`, as `md5sum` prints it.
    pub(crate) fn sum(&self, mebibytes: u32) -> String {
        let script = format!("head -c {mebibytes}M '{}' | md5sum", self.copy.display());
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()[..32].to_owned()
    }
}

/// Sectors of 512 bytes.
fn sectors(disk: &Path) -> u64 {
    let name = disk.file_name().unwrap().to_string_lossy();
    let text = std::fs::read_to_string(format!("/sys/class/block/{name}/size")).unwrap();
    text.trim().parse().unwrap()
}

/// Lets every user into a test's folder.
pub(crate) fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o1777)).unwrap();
}
