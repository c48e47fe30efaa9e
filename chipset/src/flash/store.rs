//! What keeps a flash chip's contents when its machine is off.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Keeps what a flash chip is told. Called in the order of the guest's commands, on the vCPU's thread.
pub trait FlashStore: Send {
    /// Keeps `data` from `offset` on: one programmed word (1 to 8 bytes), or one erased block. The guest sees it once this succeeds; on an
    /// error it is told that the chip has failed.
    fn keep(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Has what was kept outlive the host. Called when the guest is done with a run of commands, before it reads the contents again.
    fn settle(&mut self) -> io::Result<()>;
}

/// The file is the chip, byte for byte.
///
/// A process that is killed leaves whole words and whole blocks: the kernel takes a write inside one page of a file whole or not at all.
impl FlashStore for File {
    fn keep(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
