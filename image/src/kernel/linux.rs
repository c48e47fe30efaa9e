//! A kernel with its initrds and command line, and loading them: files in, entry point out.

use std::ops::Range;

use pellucid_partition::{Entry, GuestAddress, GuestMemory, Layout};

use super::placement::{NoRoom, place_initrd, place_initrd_high, place_kernel};
use super::zero_page::{setup_of_elf, zero_page};
use super::{BzImageHeader, SourceFile, elf, pvh};
use crate::error::LoadError;

/// A Linux kernel to boot. Nothing of it is in memory yet.
#[derive(Debug)]
pub struct Linux<'a> {
    /// A bzImage, or an ELF vmlinux, which is entered by its PVH note where it has one.
    pub kernel: SourceFile<'a>,
    /// Loaded one behind the other, in this order.
    pub initrds: Vec<SourceFile<'a>>,
    /// What the kernel finds in `/proc/cmdline`.
    pub command_line: String,
}

/// Where everything goes, found out without any memory.
enum Fitted {
    BzImage {
        header: BzImageHeader,
        kernel: Range<u64>,
        initrd: Range<u64>,
    },
    Elf {
        image: elf::ElfImage,
        initrd: Range<u64>,
    },
}

impl Linux<'_> {
    /// Whether this kernel can be loaded as `layout` says. Reads headers only; refuses what [`Linux::load`] would refuse, but for
    /// files that cannot be read to their end.
    pub fn check(&mut self, layout: &Layout) -> Result<(), LoadError> {
        self.fit(layout).map(drop)
    }

    /// Writes the kernel, its initrds, command line and boot parameters into `memory`, which is mapped as `layout` says.
    ///
    /// Uses one buffer of 128 KiB. The ACPI tables are written separately; the kernel is told to look for them at the start of
    /// [`Layout::ACPI`].
    pub fn load(mut self, memory: &GuestMemory, layout: &Layout) -> Result<Entry, LoadError> {
        let boot_params = Layout::BOOT_PARAMS;
        let (name, entry) = match self.fit(layout)? {
            Fitted::BzImage {
                header,
                kernel,
                initrd,
            } => {
                let load = GuestAddress(kernel.start);
                let payload = header
                    .payload_size
                    .min(self.kernel.size() - header.payload_offset);
                self.kernel
                    .copy_to(header.payload_offset, payload, memory, load)?;
                self.copy_initrds(memory, initrd.start)?;
                memory.write(boot_params, &zero_page(&header.raw, load, &initrd, layout))?;
                (
                    "bzImage",
                    Entry::Linux64 {
                        rip: GuestAddress(load.0 + ENTRY_64),
                        boot_params,
                    },
                )
            }
            Fitted::Elf { image, initrd } => {
                image.copy_to(&mut self.kernel, memory)?;
                self.copy_initrds(memory, initrd.start)?;
                match image.entry() {
                    elf::ElfEntry::Pvh(rip) => {
                        memory.write(boot_params, &pvh::start_info(&initrd, layout))?;
                        let (rip, start_info) = (GuestAddress(rip), boot_params);
                        ("PVH kernel", Entry::Pvh { rip, start_info })
                    }
                    elf::ElfEntry::Linux64(rip) => {
                        let load = GuestAddress(image.start());
                        memory.write(boot_params, &zero_page(&setup_of_elf(), load, &initrd, layout))?;
                        let rip = GuestAddress(rip);
                        ("vmlinux", Entry::Linux64 { rip, boot_params })
                    }
                }
            }
        };
        let line = [self.command_line.as_bytes(), &[0]].concat();
        memory.write(Layout::COMMAND_LINE, &line)?;
        tracing::debug!(kernel = self.kernel.name(), ?entry, "{name} loaded");
        Ok(entry)
    }

    fn fit(&mut self, layout: &Layout) -> Result<Fitted, LoadError> {
        let mut start = [0; BzImageHeader::SPAN];
        let count = self.kernel.read_at(0, &mut start)?;
        let start = &start[..count];
        if start.starts_with(elf::MAGIC) {
            return self.fit_elf(layout);
        }
        if start.len() < BzImageHeader::SPAN && BzImageHeader::is_present(start) {
            return Err(self.truncated(BzImageHeader::SPAN as u64));
        }
        let header = BzImageHeader::parse(start).map_err(|error| self.not_bootable(error.to_string()))?;
        // The size is rounded up to 16 bytes in the header, so up to 15 may be missing at the end of the file.
        let needed = header.payload_offset + header.payload_size;
        if self.kernel.size() + 15 < needed {
            return Err(self.truncated(needed));
        }
        self.check_command_line(header.command_line_size)?;
        let kernel = place_kernel(&header, layout.ram_below()).map_err(|e| self.no_room(e, layout))?;
        let limits = (header.initrd_address_max, header.initrd_above_4g);
        let initrd = self.place_initrds(kernel.end, limits, layout)?;
        Ok(Fitted::BzImage {
            header,
            kernel,
            initrd,
        })
    }

    fn fit_elf(&mut self, layout: &Layout) -> Result<Fitted, LoadError> {
        let image = elf::ElfImage::parse(&mut self.kernel)?;
        self.check_command_line(PVH_COMMAND_LINE)?;
        let (start, end) = (image.start(), image.end());
        if start < Layout::HIGH_MEMORY.0 {
            return Err(self.not_bootable(format!("it wants to be loaded at {start:#x}, below 1 MiB")));
        }
        if end > layout.ram_below() {
            return Err(self.no_room(NoRoom::Kernel { needed: end }, layout));
        }
        let initrd = self.place_initrds(end, (u64::from(u32::MAX), false), layout)?;
        Ok(Fitted::Elf { image, initrd })
    }

    /// The range for all initrds together; an empty one when there are none. Above 4 GiB only what has no place below.
    fn place_initrds(
        &self,
        kernel_end: u64,
        (address_max, above_4g): (u64, bool),
        layout: &Layout,
    ) -> Result<Range<u64>, LoadError> {
        let size = self
            .initrds
            .iter()
            .fold(0u64, |sum, file| sum.saturating_add(padded(file.size())));
        if size == 0 {
            return Ok(0..0);
        }
        let high = || above_4g.then(|| place_initrd_high(size, layout)).flatten();
        place_initrd(size, kernel_end, address_max, layout.ram_below())
            .or_else(|error| high().ok_or(error))
            .map_err(|error| self.no_room(error, layout))
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

    fn not_bootable(&self, reason: String) -> LoadError {
        LoadError::NotBootable {
            name: self.kernel.name().to_owned(),
            reason,
        }
    }

    fn truncated(&self, needed: u64) -> LoadError {
        LoadError::Truncated {
            name: self.kernel.name().to_owned(),
            size: self.kernel.size(),
            needed,
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
