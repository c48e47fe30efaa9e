//! Huge pages that a test reserves on a node, and gives back.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and ends where the host fails it"
)]

use std::fs::File;
use std::path::PathBuf;

use pellucid_partition::PageSize;
use rustix::fs::FlockOperation;

/// Pages more in a pool of a node while this lives; one at a time on this host.
pub(crate) struct Pool {
    path: PathBuf,
    before: u64,
    _alone: File,
}

impl Pool {
    pub(crate) fn with(pages: PageSize, count: u64) -> Option<Self> {
        Self::on(0, pages, count)
    }

    pub(crate) fn on(node: u32, pages: PageSize, count: u64) -> Option<Self> {
        let kilobytes = pages.bytes() >> 10;
        let path = PathBuf::from(format!(
            "/sys/devices/system/node/node{node}/hugepages/hugepages-{kilobytes}kB/nr_hugepages"
        ));
        let left_out = |why: &str| eprintln!("left out: {count} {pages} pages: {why} ({})", path.display());
        let Ok(alone) = File::options().write(true).open(&path) else {
            left_out("not root, or a kernel without this pool");
            return None;
        };
        rustix::fs::flock(&alone, FlockOperation::LockExclusive).unwrap();
        let number = || {
            std::fs::read_to_string(&path)
                .unwrap()
                .trim()
                .parse::<u64>()
                .unwrap()
        };
        let before = number();
        std::fs::write(&path, (before + count).to_string()).unwrap();
        let now = number();
        let pool = Self {
            path: path.clone(),
            before,
            _alone: alone,
        };
        if now < before + count {
            left_out("memory is too fragmented or too little");
            return None;
        }
        Some(pool)
    }

    pub(crate) fn free(&self) -> u64 {
        let free = self.path.with_file_name("free_hugepages");
        std::fs::read_to_string(free).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        std::fs::write(&self.path, self.before.to_string()).unwrap();
    }
}
