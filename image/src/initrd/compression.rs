//! The compressions of an initrd that are looked into, each by a decoder in safe bounds of memory; the others are known by name.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

/// How a stretch of an initrd is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
    Xz,
    /// One that the kernel knows and this crate does not.
    Other(&'static str),
}

impl Compression {
    /// Recognizes the first bytes, as the kernel does (lib/decompress.c).
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        let known: [(&[u8], Self); 8] = [
            (&[0x1f, 0x8b], Self::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
            (&[0x02, 0x21, 0x4c, 0x18], Self::Other("lz4")),
            (&[0x5d, 0, 0], Self::Other("lzma")),
            (b"BZh", Self::Other("bzip2")),
            (&[0x89, b'L', b'Z', b'O'], Self::Other("lzo")),
            (&[0x1f, 0x9e], Self::Other("gzip of an old kind")),
        ];
        let found = known.into_iter().find(|(magic, _)| start.starts_with(magic));
        found.map(|(_, kind)| kind)
    }

    /// The decompressed bytes of `stream`, which is left behind what was read.
    pub(super) fn decoder<'s>(self, stream: &'s mut dyn BufRead) -> io::Result<Box<dyn Read + 's>> {
        Ok(match self {
            Self::Gzip => Box::new(GzDecoder::new(stream)),
            Self::Xz => Box::new(XzReader::new_mem_limit(stream, false, MAX_DICTIONARY_KIB)),
            Self::Zstd => {
                let window = u64::from(MAX_DICTIONARY_KIB) << 10;
                let decoder = StreamingDecoder::new_with_max_window_size(stream, window);
                Box::new(decoder.map_err(io::Error::other)?)
            }
            Self::Other(name) => return Err(io::Error::new(io::ErrorKind::Unsupported, name)),
        })
    }
}

/// What xz -9 and zstd --ultra -22 need, and a little more.
const MAX_DICTIONARY_KIB: u32 = 130 << 10;
