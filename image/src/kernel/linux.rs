//! A kernel with its initrds and command line, and loading them: files in, entry point out.

use std::ops::Range;

use pellucid_partition::{Entry, GuestAddress, GuestMemory, Layout};

use super::placement::{NoRoom, place_initrd, place_kernel};
use super::zero_page::zero_page;
use super::{BzImageHeader, SourceFile, elf, pvh};
use crate::error::LoadError;

/// A Linux kernel to boot. Nothing of it is in memory yet.
#[derive(Debug)]
pub struct Linux<'a> {
    /// A bzImage, or an ELF vmlinux with a PVH note.
    pub kernel: SourceFile<'a>,
    /// Loaded one behind the other, in this order.
    pub initrds: Vec<SourceFile<'a>>,
    /// What the kernel finds in `/proc/cmdline`.
    pub command_line: String,
}

impl Linux<'_> {
    /// Writes the kernel, its initrds, command line and boot parameters into `memory`, which is mapped as `layout` says.
    ///
    /// Uses one buffer of 128 KiB. The ACPI tables are written separately; the kernel is told to look for them at the start of
    /// [`Layout::ACPI`].
    pub fn load(mut self, memory: &GuestMemory, layout: &Layout) -> Result<Entry, LoadError> {
        let mut start = [0; BzImageHeader::SPAN];
        let count = self.kernel.read_at(0, &mut start)?;
        let start = &start[..count];
        if start.starts_with(elf::MAGIC) {
            return self.load_pvh(memory, layout);
        }
        if start.len() < BzImageHeader::SPAN && BzImageHeader::is_present(start) {
            let needed = BzImageHeader::SPAN as u64;
            return Err(LoadError::Truncated {
                name: self.kernel.name().to_owned(),
                size: count as u64,
                needed,
            });
        }
        let header = BzImageHeader::parse(start).map_err(|error| self.not_bootable(error.to_string()))?;
        self.load_bzimage(&header, memory, layout)
    }

    fn load_bzimage(
        &mut self,
        header: &BzImageHeader,
        memory: &GuestMemory,
        layout: &Layout,
    ) -> Result<Entry, LoadError> {
        // The size is rounded up to 16 bytes in the header, so up to 15 may be missing at the end of the file.
        let (size, needed) = (self.kernel.size(), header.payload_offset + header.payload_size);
        if size + 15 < needed {
            return Err(LoadError::Truncated {
                name: self.kernel.name().to_owned(),
                size,
                needed,
            });
        }
        self.check_command_line(header.command_line_size)?;
        let range = place_kernel(header, layout.ram_below()).map_err(|e| self.no_room(e, layout))?;
        let initrd = self.place_initrds(range.end, header.initrd_address_max, layout)?;
        let load = GuestAddress(range.start);
        let payload = header.payload_size.min(size - header.payload_offset);
        self.kernel
            .copy_to(header.payload_offset, payload, memory, load)?;
        self.copy_initrds(memory, initrd.start)?;
        self.write_command_line(memory)?;
        memory.write(Layout::BOOT_PARAMS, &zero_page(header, load, &initrd, layout))?;
        tracing::debug!(
            kernel = self.kernel.name(),
            load = range.start,
            initrd = initrd.start,
            "bzImage loaded"
        );
        Ok(Entry::Linux64 {
            rip: GuestAddress(load.0 + ENTRY_64),
            boot_params: Layout::BOOT_PARAMS,
        })
    }

    fn load_pvh(&mut self, memory: &GuestMemory, layout: &Layout) -> Result<Entry, LoadError> {
        let image = elf::PvhImage::parse(&mut self.kernel)?;
        self.check_command_line(PVH_COMMAND_LINE)?;
        let (start, end) = (image.start(), image.end());
        if end > layout.ram_below() || start < Layout::HIGH_MEMORY.0 {
            if start < Layout::HIGH_MEMORY.0 {
                return Err(self.not_bootable(format!("it wants to be loaded at {start:#x}, below 1 MiB")));
            }
            return Err(self.no_room(NoRoom::Kernel { needed: end }, layout));
        }
        let initrd = self.place_initrds(end, u64::from(u32::MAX), layout)?;
        image.copy_to(&mut self.kernel, memory)?;
        self.copy_initrds(memory, initrd.start)?;
        self.write_command_line(memory)?;
        memory.write(Layout::BOOT_PARAMS, &pvh::start_info(&initrd, layout))?;
        tracing::debug!(
            kernel = self.kernel.name(),
            entry = image.entry(),
            "PVH kernel loaded"
        );
        Ok(Entry::Pvh {
            rip: GuestAddress(image.entry()),
            start_info: Layout::BOOT_PARAMS,
        })
    }

    /// The range for all initrds together; an empty one when there are none.
    fn place_initrds(
        &self,
        kernel_end: u64,
        address_max: u64,
        layout: &Layout,
    ) -> Result<Range<u64>, LoadError> {
        let size = self
            .initrds
            .iter()
            .fold(0u64, |sum, file| sum.saturating_add(padded(file.size())));
        if size == 0 {
            return Ok(0..0);
        }
        place_initrd(size, kernel_end, address_max, layout.ram_below()).map_err(|e| self.no_room(e, layout))
    }

    /// Copies the initrds one behind the other, each padded to 4 bytes as the kernel's unpacker wants.
    fn copy_initrds(&mut self, memory: &GuestMemory, mut to: u64) -> Result<(), LoadError> {
        for file in &mut self.initrds {
            let size = file.size();
            file.copy_to(0, size, memory, GuestAddress(to))?;
            to += padded(size);
        }
        Ok(())
    }

    fn check_command_line(&self, kernel_limit: u64) -> Result<(), LoadError> {
        let (length, limit) = (
            self.command_line.len(),
            kernel_limit.min(Layout::COMMAND_LINE_LIMIT - 1),
        );
        if length as u64 > limit {
            return Err(LoadError::CommandLineTooLong {
                name: self.kernel.name().to_owned(),
                length,
                limit,
            });
        }
        Ok(())
    }

    fn write_command_line(&self, memory: &GuestMemory) -> Result<(), LoadError> {
        let line = [self.command_line.as_bytes(), &[0]].concat();
        Ok(memory.write(Layout::COMMAND_LINE, &line)?)
    }

    fn not_bootable(&self, reason: String) -> LoadError {
        LoadError::NotBootable {
            name: self.kernel.name().to_owned(),
            reason,
        }
    }

    fn no_room(&self, error: NoRoom, layout: &Layout) -> LoadError {
        match error {
            NoRoom::Kernel { needed } => LoadError::KernelTooLarge {
                name: self.kernel.name().to_owned(),
                needed,
                available: layout.ram_below(),
            },
            NoRoom::Initrd { available, needed } => LoadError::InitrdTooLarge {
                names: self
                    .initrds
                    .iter()
                    .map(SourceFile::name)
                    .collect::<Vec<_>>()
                    .join(", "),
                size: self
                    .initrds
                    .iter()
                    .fold(0, |sum, file| file.size().saturating_add(sum)),
                available,
                needed,
            },
        }
    }
}

fn padded(size: u64) -> u64 {
    size.saturating_add(3) & !3
}

/// Offset of the 64-bit entry in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// Bytes of command line that an x86 kernel keeps, without the end mark.
const PVH_COMMAND_LINE: u64 = 2047;
