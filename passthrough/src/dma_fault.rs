//! DMA that an IOMMU blocked. The kernel tells user space of it in its log only, so that is read: lines of both IOMMU drivers.
//! The kernel limits how many it writes, so a line stands for one blocked access or more.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pellucid_partition::Bdf;

/// An access of a device to memory that is not its guest's, or to interrupts that are not its own. Nothing came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaFault {
    /// The function, as the IOMMU names it.
    pub device: Bdf,
    /// What it wanted.
    pub access: Access,
    /// Where: an address as the device uses it, or the index of an interrupt.
    pub address: u64,
}

/// What a device wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// To read memory.
    Read,
    /// To write memory.
    Write,
    /// To raise an interrupt that is not its own.
    Interrupt,
    /// To reach memory; the driver does not tell how.
    Unknown,
}

/// The kernel's log from now on.
pub(crate) struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Opens the log at its end. Needs CAP_SYSLOG where the host restricts it (`kernel.dmesg_restrict`).
    pub(crate) fn open() -> io::Result<KernelLog> {
        KernelLog::open_at(Path::new("/dev/kmsg"))
    }

    fn open_at(path: &Path) -> io::Result<KernelLog> {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(KernelLog { file })
    }

    /// The file, to wait for more.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The faults in all records that are there by now.
    pub(crate) fn faults(&mut self) -> Vec<DmaFault> {
        let mut faults = Vec::new();
        let mut record = [0; LONGEST];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return faults,
                Ok(length) => faults.extend(DmaFault::parse(&String::from_utf8_lossy(&record[..length]))),
                // Records were overwritten before they were read; the next read has the oldest that is left.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return faults,
            }
        }
    }
}

impl DmaFault {
    /// The fault that a record of the kernel's log tells of.
    ///
    /// Intel (drivers/iommu/intel/dmar.c): `DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0x1000 [fault reason 0x05]`
    /// and `DMAR: [INTR-REMAP] Request device [00:05.0] fault index 0x12 [fault reason 0x26]`. AMD (drivers/iommu/amd/iommu.c):
    /// `AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000c address=0x1000 flags=0x0020]` after the driver's name and address of the device,
    /// or with `device=0000:00:05.0` in the brackets.
    #[must_use]
    pub fn parse(record: &str) -> Option<DmaFault> {
        let line = record.lines().next()?;
        if let Some((_, rest)) = line.split_once("DMAR: [") {
            return intel(rest);
        }
        let (before, rest) = line.split_once("AMD-Vi: Event logged [IO_PAGE_FAULT")?;
        amd(before, rest)
    }
}

fn intel(rest: &str) -> Option<DmaFault> {
    let (kind, rest) = rest.split_once("] Request device [")?;
    let (device, rest) = rest.split_once(']')?;
    let access = match kind.split(' ').collect::<Vec<_>>().as_slice() {
        ["INTR-REMAP", ..] => Access::Interrupt,
        ["DMA", "Read", ..] => Access::Read,
        ["DMA", "Write", ..] => Access::Write,
        ["DMA", ..] => Access::Unknown,
        _ => return None,
    };
    let (_, number) = rest.split_once("0x")?;
    Some(DmaFault {
        device: device.parse().ok()?,
        access,
        address: hexadecimal(number)?,
    })
}

fn amd(before: &str, rest: &str) -> Option<DmaFault> {
    let field = |name: &str| rest.split_once(name).map(|(_, value)| value);
    let device = match field("device=") {
        Some(device) => device.split([' ', ']']).next()?.parse().ok()?,
        None => before
            .split(' ')
            .find_map(|word| word.trim_end_matches(':').parse().ok())?,
    };
    // Bit 5 of the event's flags: the access was a write (AMD IOMMU specification 3.05, 2.5.3).
    let access = match field("flags=0x").and_then(hexadecimal) {
        Some(flags) if flags & 0x20 != 0 => Access::Write,
        Some(_) => Access::Read,
        None => Access::Unknown,
    };
    Some(DmaFault {
        device,
        access,
        address: hexadecimal(field("address=0x")?)?,
    })
}

fn hexadecimal(text: &str) -> Option<u64> {
    let end = text
        .find(|letter: char| !letter.is_ascii_hexdigit())
        .unwrap_or(text.len());
    u64::from_str_radix(&text[..end], 16).ok()
}

impl fmt::Display for DmaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DmaFault {
            device,
            access,
            address,
        } = self;
        match access {
            Access::Interrupt => write!(
                f,
                "device {device} raised interrupt {address:#x}, which is not its own; the IOMMU blocked it"
            ),
            Access::Read => write!(
                f,
                "device {device} read {address:#x}, which is not its guest's; the IOMMU blocked it"
            ),
            Access::Write => write!(
                f,
                "device {device} wrote to {address:#x}, which is not its guest's; the IOMMU blocked it"
            ),
            Access::Unknown => write!(
                f,
                "device {device} reached for {address:#x}, which is not its guest's; the IOMMU blocked it"
            ),
        }
    }
}

/// Longer than any record (CONSOLE_EXT_LOG_MAX in kernel/printk/internal.h).
const LONGEST: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> (String, Access, u64) {
        let fault = DmaFault::parse(line).unwrap_or_else(|| panic!("{line}"));
        (fault.device.to_string(), fault.access, fault.address)
    }

    #[test]
    fn lines_of_both_drivers_are_understood() {
        for (line, device, access, address) in [
            (
                "3,871,3611;DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0x7fee0000 [fault reason 0x05] PTE Write access is not set\n SUBSYSTEM=x",
                "0000:00:05.0",
                Access::Write,
                0x7fee_0000,
            ),
            (
                "DMAR: [DMA Read] Request device [0001:3b:00.1] PASID ffffffff fault addr 12 [fault reason 06]",
                "",
                Access::Read,
                0,
            ),
            (
                "DMAR: [DMA Read NO_PASID] Request device [3b:00.1] fault addr 0x0 [fault reason 0x06] x",
                "0000:3b:00.1",
                Access::Read,
                0,
            ),
            (
                "DMAR: [INTR-REMAP] Request device [f0:1f.7] fault index 0x12 [fault reason 0x26] Blocked",
                "0000:f0:1f.7",
                Access::Interrupt,
                0x12,
            ),
            (
                "nvme 0000:41:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000c address=0xfffffffdf8000000 flags=0x0020]",
                "0000:41:00.0",
                Access::Write,
                0xffff_fffd_f800_0000,
            ),
            (
                "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:05:00.0 domain=0x0000 address=0x7000 flags=0x0050]",
                "0000:05:00.0",
                Access::Read,
                0x7000,
            ),
        ] {
            if device.is_empty() {
                assert_eq!(DmaFault::parse(line), None, "{line}");
            } else {
                assert_eq!(parse(line), (device.to_owned(), access, address));
            }
        }
    }

    #[test]
    fn other_lines_are_none_and_no_line_is_a_panic() {
        for line in [
            "",
            "DMAR: [",
            "DMAR: [DMA Write] Request device [",
            "DMAR: [DMA Write] Request device [zz] fault addr 0x1",
            "DMAR: [fault reason 0x05] PTE Write access is not set",
            "DMAR: DRHD: handling fault status reg 2",
            "AMD-Vi: Event logged [IO_PAGE_FAULT",
            "AMD-Vi: Event logged [IO_PAGE_FAULT address=0x",
            "6,1,2;usb 1-1: DMA",
        ] {
            assert_eq!(DmaFault::parse(line), None, "{line}");
        }
    }

    #[test]
    fn only_what_comes_after_the_log_was_opened_is_told() {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "DMAR: [DMA Read NO_PASID] Request device [00:01.0] fault addr 0x1 ["
        )
        .unwrap();
        let mut log = KernelLog::open_at(file.path()).unwrap();
        assert_eq!(log.faults(), []);
        writeln!(
            file,
            "DMAR: [DMA Read NO_PASID] Request device [00:02.0] fault addr 0x2 ["
        )
        .unwrap();
        let devices: Vec<_> = log.faults().iter().map(|fault| fault.device.device()).collect();
        assert_eq!(devices, [2]);
        assert_eq!(log.faults(), []);
    }
}
