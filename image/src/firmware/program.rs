//! A boot option that names a file on an EFI system partition, as the variables hold it (UEFI 2.10, 3.1.3 and 10.3.5.4).

use super::error::FirmwareError;

/// A program that firmware is to start first: a path on any file system that it finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfiProgram {
    path: String,
}

impl EfiProgram {
    /// A path such as `\EFI\debian\shimx64.efi`; slashes are as good.
    ///
    /// # Errors
    /// It is empty, relative, too long, or has characters that no file name has.
    pub fn new(path: &str) -> Result<Self, FirmwareError> {
        let path = path.replace('/', "\\");
        let refused = |reason| {
            Err(FirmwareError::EfiProgram {
                path: path.clone(),
                reason,
            })
        };
        if !path.starts_with('\\') || path.ends_with('\\') {
            return refused("it does not go from the root of the file system to a file");
        }
        if path.encode_utf16().count() > LONGEST {
            return refused("it has more than 255 characters");
        }
        if path.chars().any(|c| c.is_control() || "\"*:<>?|".contains(c)) {
            return refused("it has a character that no file name has");
        }
        Ok(Self { path })
    }

    /// The path, with backslashes.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of its `Boot####` variable: active, named as its path, at a file path without a device before it.
    pub(super) fn load_option(&self) -> Vec<u8> {
        let text = utf16(&self.path);
        let node = (text.len() + 4) as u16;
        let list = node + END.len() as u16;
        let mut option = ACTIVE.to_le_bytes().to_vec();
        option.extend(list.to_le_bytes());
        option.extend(&text);
        option.extend([MEDIA_PATH, FILE_PATH]);
        option.extend(node.to_le_bytes());
        option.extend(&text);
        option.extend(END);
        option
    }
}

/// UTF-16 with its end mark.
pub(super) fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]);
    units.flat_map(u16::to_le_bytes).collect()
}

const LONGEST: usize = 255;
const ACTIVE: u32 = 1;
const MEDIA_PATH: u8 = 4;
const FILE_PATH: u8 = 4;
const END: [u8; 4] = [0x7f, 0xff, 4, 0];
