//! Puts a disk image together from directories: table, EFI system partition, root file system.
//! No loop device, no mount: each tool writes into a file. The functions can be used one at a time, in this order.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::{DiskError, Subject};
use super::layout::Layout;
use super::recipe::Identity;
use super::tool::Tool;

/// Creates an empty disk of `size` bytes, all of it a hole.
pub fn blank(image: &Path, size: u64) -> Result<(), DiskError> {
    File::create(image).and_then(|file| file.set_len(size)).of(image)
}

/// Writes a GPT with both partitions and fixed GUIDs, protective MBR and backup table included.
pub fn write_table(image: &Path, layout: &Layout, identity: &Identity) -> Result<(), DiskError> {
    let partition = |number: u8, extent: &Range<u64>, kind: &str, guid: &str, name: &str| {
        let (first, last) = Layout::sectors(extent);
        [
            format!("--new={number}:{first}:{last}"),
            format!("--typecode={number}:{kind}"),
            format!("--partition-guid={number}:{guid}"),
            format!("--change-name={number}:{name}"),
        ]
    };
    Tool::new("sgdisk", "gdisk")
        .args(["--clear".into(), format!("--disk-guid={}", identity.disk_guid)])
        .args(partition(
            1,
            &layout.esp,
            "ef00",
            &identity.esp_guid,
            "EFI System",
        ))
        .args(partition(2, &layout.root, "8304", &identity.root_guid, "root"))
        .args([image])
        .run_quietly()
        .map(drop)
}

/// Makes the EFI system partition: a FAT32 file system with the volume number `id` (`ABCD-1234`) and with
/// everything that is in the directory `tree`.
pub fn write_esp(image: &Path, layout: &Layout, id: &str, tree: &Path) -> Result<(), DiskError> {
    // The FAT tools work on a file of its own; mkfs.vfat's own offset does not go together with mtools.
    let part = PathBuf::from(format!("{}.esp", image.display()));
    blank(&part, layout.esp.end - layout.esp.start)?;
    Tool::new("mkfs.vfat", "dosfstools")
        .args(["--invariant", "-F", "32", "-n", "ESP", "-i", &id.replace('-', "")])
        .args([&part])
        .run_quietly()?;
    let mut entries = fs::read_dir(tree)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .of(tree)?;
    entries.sort();
    if !entries.is_empty() {
        Tool::as_root("mcopy", "mtools")
            .args(["-s", "-m", "-i"])
            .args([&part])
            .args(entries)
            .args(["::"])
            .run_quietly()?;
    }
    copy_into(&part, image, layout.esp.start)?;
    fs::remove_file(&part).of(part)
}

/// Makes the root file system: ext4 with the given UUID and with everything that is in the directory `tree`.
pub fn write_root(image: &Path, layout: &Layout, identity: &Identity, tree: &Path) -> Result<(), DiskError> {
    let extended = format!(
        "offset={},hash_seed={},lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0",
        layout.root.start, identity.hash_seed
    );
    let blocks = (layout.root.end - layout.root.start) / BLOCK;
    // The first for e2fsprogs 1.47.1 and later, which then also clamps the files' times; the second for older ones.
    Tool::as_root("mkfs.ext4", "e2fsprogs")
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("E2FSPROGS_FAKE_TIME", EPOCH)
        .args([
            "-q",
            "-F",
            "-b",
            &BLOCK.to_string(),
            "-U",
            &identity.root_uuid,
            "-E",
            &extended,
            "-d",
        ])
        .args([tree, image])
        .args([blocks.to_string()])
        .run_quietly()
        .map(drop)
}

/// Copies the file `part` into `image` at `offset`; what is zero stays a hole.
fn copy_into(part: &Path, image: &Path, offset: u64) -> Result<(), DiskError> {
    let mut source = File::open(part).of(part)?;
    let mut target = OpenOptions::new().write(true).open(image).of(image)?;
    let mut chunk = vec![0; 1 << 16];
    let mut place = offset;
    loop {
        let count = source.read(&mut chunk).of(part)?;
        if count == 0 {
            return target.sync_data().of(image);
        }
        if chunk[..count].iter().any(|&byte| byte != 0) {
            target
                .seek(SeekFrom::Start(place))
                .and_then(|_| target.write_all(&chunk[..count]))
                .of(image)?;
        }
        place += count as u64;
    }
}

/// The root file system's block size in bytes.
const BLOCK: u64 = 4096;

/// The moment at which a root file system says it was made.
const EPOCH: &str = "1700000000";
