//! What a GRUB configuration can see: the file systems of the disk, by GRUB's names for them.

use std::io::{self, Read, Seek};

use crate::boot_disk::BootDisk;
use crate::boot_file::Volume;

/// The file systems that a script can read from. A volume is named by its index in `volumes`.
pub(crate) trait Volumes {
    /// The file systems, in the order of the partition table.
    fn volumes(&self) -> &[GrubVolume];
    /// A file's content; `None` when there is no such file. More than `limit` bytes are an error.
    fn read(&self, volume: usize, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>>;
    /// What is at `path`.
    fn look(&self, volume: usize, path: &str) -> io::Result<Option<Found>>;
    /// Names in a directory, in the order of the disk; none when there is no such directory.
    fn list(&self, volume: usize, path: &str) -> io::Result<Vec<String>>;
}

/// What a path leads to: a file of so many bytes, or `None` for a directory.
pub(crate) type Found = Option<u64>;

/// One file system.
#[derive(Debug, Clone)]
pub(crate) struct GrubVolume {
    /// GRUB's name for its device, as in `hd0,gpt2`.
    pub(crate) device: String,
    pub(crate) volume: Volume,
    pub(crate) uuid: String,
    pub(crate) label: String,
}

/// A disk as GRUB sees it: it is the first one (`hd0`), and there is no other.
pub(super) struct DiskVolumes<'d, R> {
    disk: &'d BootDisk<R>,
    volumes: Vec<GrubVolume>,
}

impl<'d, R: Read + Seek> DiskVolumes<'d, R> {
    pub(super) fn new(disk: &'d BootDisk<R>) -> Self {
        let volumes = disk
            .file_systems()
            .iter()
            .map(|(partition, volume, system)| GrubVolume {
                device: format!(
                    "hd0,{}{}",
                    if partition.guid { "gpt" } else { "msdos" },
                    partition.number
                ),
                volume: *volume,
                uuid: system.uuid(),
                label: system.label().to_owned(),
            });
        Self {
            disk,
            volumes: volumes.collect(),
        }
    }
}

impl<R: Read + Seek> Volumes for DiskVolumes<'_, R> {
    fn volumes(&self) -> &[GrubVolume] {
        &self.volumes
    }

    fn read(&self, volume: usize, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((_, _, system)) = self.disk.file_systems().get(volume) else {
            return Ok(None);
        };
        let Some(file) = system.open_file(self.disk.source(), path)? else {
            return Ok(None);
        };
        if file.size() > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("a configuration file of more than {} KiB", limit >> 10),
            ));
        }
        let mut content = Vec::new();
        file.take(limit).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn look(&self, volume: usize, path: &str) -> io::Result<Option<Found>> {
        let Some((_, _, system)) = self.disk.file_systems().get(volume) else {
            return Ok(None);
        };
        if let Some(file) = system.open_file(self.disk.source(), path)? {
            return Ok(Some(Some(file.size())));
        }
        Ok(system.list(self.disk.source(), path)?.map(|_| None))
    }

    fn list(&self, volume: usize, path: &str) -> io::Result<Vec<String>> {
        let Some((_, _, system)) = self.disk.file_systems().get(volume) else {
            return Ok(Vec::new());
        };
        Ok(system.list(self.disk.source(), path)?.unwrap_or_default())
    }
}
