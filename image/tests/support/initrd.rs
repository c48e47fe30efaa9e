//! Initrds made in memory, and what is found in them.

use std::io::Cursor;

use pellucid_image::{InitrdModules, SourceFile};

/// An archive of these files, as `cpio -H newc` writes it.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        let mut fields = [0; 13];
        (fields[1], fields[6], fields[11]) = (0o100_644, content.len(), name.len() + 1);
        bytes.extend_from_slice(b"070701");
        fields
            .iter()
            .for_each(|field| bytes.extend(format!("{field:08x}").bytes()));
        bytes.extend(name.bytes().chain([0]));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(crate) const TREE: &str = "usr/lib/modules/6.1.0-50-amd64";

pub(crate) fn main_archive() -> Vec<u8> {
    archive(&[
        ("init", b"#!/bin/sh"),
        (
            &format!("{TREE}/kernel/drivers/nvme/host/nvme-core.ko"),
            &[7; 3000],
        ),
        (&format!("{TREE}/kernel/drivers/nvme/host/nvme.ko.xz"), &[7; 301]),
        (&format!("{TREE}/kernel/drivers/ata/ahci.ko.zst"), b""),
        (
            &format!("{TREE}/modules.builtin"),
            b"kernel/drivers/scsi/sd_mod.ko\nkernel/fs/ext4/ext4.ko\n",
        ),
    ])
}

pub(crate) fn survey(initrds: &[&[u8]], enough: &[&str]) -> InitrdModules {
    let file = |bytes: &&[u8]| SourceFile::new("initrd.img", bytes.len() as u64, Cursor::new(bytes.to_vec()));
    InitrdModules::survey(&mut initrds.iter().map(file).collect::<Vec<_>>(), enough)
}
