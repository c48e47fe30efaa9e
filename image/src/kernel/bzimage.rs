//! The setup header of a bzImage (Documentation/arch/x86/boot.rst, protocol 2.12 and later), read from hostile bytes.

/// What a loader needs to know of a bzImage. Offsets and sizes are bytes in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BzImageHeader {
    /// The header's bytes from 0x1f1 on, as they go into the boot parameters.
    pub raw: Vec<u8>,
    /// Boot protocol version, major in the high byte.
    pub version: u16,
    /// Where the protected-mode kernel begins in the file.
    pub payload_offset: u64,
    /// Bytes of the protected-mode kernel.
    pub payload_size: u64,
    /// Bytes that the kernel needs from its load address on until it can read the memory map.
    pub init_size: u64,
    /// Where it would like to be loaded.
    pub preferred_address: u64,
    /// What its load address must be a multiple of.
    pub alignment: u64,
    /// Whether it runs at other addresses than the preferred one.
    pub relocatable: bool,
    /// The highest address that an initrd's last byte may have.
    pub initrd_address_max: u64,
    /// Whether an initrd may also be above 4 GiB, with a size of 4 GiB and more.
    pub initrd_above_4g: bool,
    /// Bytes of command line that it reads, without the end mark.
    pub command_line_size: u64,
}

/// Why bytes are not a header that can be booted from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There is no setup header.
    #[error("it has no Linux setup header")]
    Absent,
    /// The boot protocol is too old for a 64-bit entry.
    #[error("its boot protocol is {}.{:02}, and 2.12 is the first with a 64-bit entry", version >> 8, version & 0xff)]
    Old {
        /// The version.
        version: u16,
    },
    /// It cannot be entered in 64-bit mode.
    #[error("it has no 64-bit entry (a 32-bit kernel?)")]
    NoEntry64,
    /// The header contradicts itself.
    #[error("its setup header is damaged: {field}")]
    Damaged {
        /// The field that cannot be.
        field: &'static str,
    },
}

impl BzImageHeader {
    /// Bytes from the start of the file in which the header lies.
    pub const SPAN: usize = 0x290;

    /// Whether the bytes at the start of a file look like a bzImage at all.
    #[must_use]
    pub fn is_present(start: &[u8]) -> bool {
        start.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && start.get(0x202..0x206) == Some(b"HdrS")
    }

    /// Reads the header from the first [`BzImageHeader::SPAN`] bytes of a file.
    pub fn parse(start: &[u8]) -> Result<Self, HeaderError> {
        if !Self::is_present(start) || start.len() < Self::SPAN {
            return Err(HeaderError::Absent);
        }
        let word = |at: usize| u16::from_le_bytes([start[at], start[at + 1]]);
        let dword = |at: usize| u64::from(word(at)) | u64::from(word(at + 2)) << 16;
        let version = word(0x206);
        if version < 0x020c {
            return Err(HeaderError::Old { version });
        }
        if word(0x236) & XLF_KERNEL_64 == 0 || start[0x211] & LOADED_HIGH == 0 {
            return Err(HeaderError::NoEntry64);
        }
        // The jump over the header tells where it ends.
        let end = 0x202 + usize::from(start[0x201]);
        if !(0x264..=Self::SPAN).contains(&end) {
            return Err(HeaderError::Damaged { field: "its length" });
        }
        let setup_sectors = if start[0x1f1] == 0 {
            4
        } else {
            u64::from(start[0x1f1])
        };
        let header = Self {
            raw: start[0x1f1..end].to_vec(),
            version,
            payload_offset: (setup_sectors + 1) * 512,
            payload_size: dword(0x1f4) * 16,
            init_size: dword(0x260),
            preferred_address: dword(0x258) | dword(0x25c) << 32,
            alignment: dword(0x230),
            relocatable: start[0x234] != 0,
            initrd_address_max: dword(0x22c),
            initrd_above_4g: word(0x236) & XLF_CAN_BE_LOADED_ABOVE_4G != 0,
            command_line_size: dword(0x238),
        };
        header.check()
    }

    fn check(self) -> Result<Self, HeaderError> {
        let damaged = |field| Err(HeaderError::Damaged { field });
        if self.payload_size < 0x200 {
            return damaged("the kernel's size");
        }
        if !self.alignment.is_power_of_two() || self.alignment < 0x1000 {
            return damaged("the kernel's alignment");
        }
        if !self.preferred_address.is_multiple_of(self.alignment) || self.preferred_address >= 1 << 32 {
            return damaged("the preferred address");
        }
        Ok(self)
    }
}

const XLF_KERNEL_64: u16 = 1;
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 2;
const LOADED_HIGH: u8 = 1;
