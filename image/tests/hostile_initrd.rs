//! Initrds that are damaged, or made to harm who looks into them: a reason within bounds, and nothing is said to be missing.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::Read;

use pellucid_image::{InitrdModules, Presence, SourceFile};
use proptest::prelude::*;

use support::initrd::{archive, main_archive, survey};

#[test]
fn other_compressions_and_damage_are_named_and_nothing_is_said_to_be_missing() {
    for (start, said) in [
        (
            &[0x02, 0x21, 0x4c, 0x18, 0, 0, 0][..],
            "initrd.img: it is compressed by lz4",
        ),
        (b"BZh91AY", "compressed by bzip2"),
        (b"no initrd", "initrd.img: it is no initrd that a kernel unpacks"),
        (&[0x1f, 0x8b, 8, 0, 0, 0, 0], "as Gzip: "),
        (&[0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff], "as Zstd: "),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2], "as Xz: "),
    ] {
        let modules = survey(&[&main_archive(), start], &[]);
        assert!(
            modules.unread().is_some_and(|text| text.contains(said)),
            "{modules:?}"
        );
        assert_eq!(modules.presence("virtio_blk"), Presence::Unknown, "{said}");
        assert_eq!(modules.presence("nvme"), Presence::Module, "what was found holds");
    }
}

/// 8 GiB of zeros, and of files in files, packed so that a decoder makes them of nearly nothing.
#[test]
fn bombs_end_after_a_gibibyte() {
    let file = |content: &str| archive(&[("x", content.as_bytes())]);
    let mut header = file("")[..112].to_vec();
    header[54..62].copy_from_slice(b"ffffffff");
    for content in [Vec::new(), header] {
        // A zstd frame without a checksum, of blocks that repeat a zero 128 KiB times.
        let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
        let raw = (content.len() as u32) << 3;
        bomb.extend(&raw.to_le_bytes()[..3]);
        bomb.extend(&content);
        let block = (128u32 << 10) << 3 | 2;
        for _ in 0..65_536 {
            bomb.extend(&block.to_le_bytes()[..3]);
            bomb.push(0);
        }
        let modules = survey(&[&bomb], &[]);
        let said = modules.unread().unwrap();
        assert!(said.contains("more than 1 GiB"), "{said}");
    }
    let mut sparse = [SourceFile::new("sparse.img", 1 << 40, Zeros)];
    let modules = InitrdModules::survey(&mut sparse, &[]);
    assert!(modules.unread().unwrap().contains("more than 1 GiB"));
}

/// A file of zeros that takes no space.
struct Zeros;

impl Read for Zeros {
    fn read(&mut self, data: &mut [u8]) -> std::io::Result<usize> {
        data.fill(0);
        Ok(data.len())
    }
}

impl std::io::Seek for Zeros {
    fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
        Ok(0)
    }
}

/// Windows and dictionaries that no initrd has are refused by their header, before there is memory for them.
#[test]
fn windows_of_decoders_are_bounded() {
    // A window of 256 MiB, and one of 2 GiB in a frame that is its own window.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd];
    let window = [&zstd[..], &[0x00, 18 << 3], &[0; 64]].concat();
    let single = [&zstd[..], &[0xa0], &0x8000_0000_u32.to_le_bytes(), &[0; 64]].concat();
    // A block of LZMA2 with a dictionary of 192 MiB, by headers with sound checksums.
    let xz = [
        0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0, 0xff, 0x12, 0xd9, 0x41, 0x02, 0x00, 0x21, 0x01, 31, 0, 0, 0,
        0xfe, 0x60, 0xed, 0xde, 0x01, 0x00, 0x00, b'0', 0x00, 0, 0, 0,
    ];
    for (bytes, said) in [
        (&window[..], "as Zstd: "),
        (&single, "as Zstd: "),
        (&xz, "as Xz: needed memory too big"),
    ] {
        let modules = survey(&[bytes], &[]);
        let told = modules.unread().unwrap();
        assert!(told.contains(said), "{told}");
        assert!(said.contains("Xz") || told.contains("window"), "{told}");
    }
}

#[test]
fn sizes_that_lie_lead_nowhere() {
    let field = |index: usize| 6 + index * 8..14 + index * 8;
    for (index, value, said) in [
        (6, "ffffffff", "unexpected end of file"),
        (6, "0000100x", "no hexadecimal number"),
        (11, "00001001", "longer than any path"),
        (11, "00000000", "longer than any path"),
        (11, "00000100", "does not begin where"),
    ] {
        let mut bytes = main_archive();
        bytes[field(index)].copy_from_slice(value.as_bytes());
        let modules = survey(&[&bytes], &[]);
        let told = modules.unread().unwrap();
        assert!(told.contains(said), "{value}: {told}");
        assert_eq!(modules.presence("virtio_blk"), Presence::Unknown);
    }
    // A list of built-in drivers that says it has 4 GiB is not read into memory.
    let mut list = archive(&[("lib/modules/6/modules.builtin", b"")]);
    list[field(6)].copy_from_slice(b"ffffffff");
    assert!(survey(&[&list], &[]).unread().is_some());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_named(
        damage in prop::collection::vec((0usize..4000, any::<u8>()), 0..12), start in 0usize..8,
    ) {
        let starts: [&[u8]; 4] = [b"", &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd], &[0xfd, b'7', b'z', b'X', b'Z', 0]];
        let mut bytes = [starts[start % 4], &main_archive()].concat();
        damage.into_iter().for_each(|(at, value)| bytes[at] = value);
        let modules = survey(&[&bytes], &[]);
        prop_assert!(modules.presence("virtio_blk") != Presence::Module);
    }
}
