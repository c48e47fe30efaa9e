//! The control group tree (cgroup v2): where the groups of partitions belong, and what the kernel lets be done there.
//!
//! Only vCPU threads are put into groups, which are threaded: they belong to the process's own place in the tree, its *home*.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::CpuError;
use crate::inventory::{Cgroup, control_groups};
use crate::step::step;

mod bystanders;
mod footprint;
mod home;
mod isolation;
mod left;

pub(crate) use footprint::Footprint;
pub(crate) use home::{Home, Settled, threads};
pub use isolation::{CpuIsolation, Isolation};
pub use left::CgroupHealer;

/// The tree of this host, or one that a test has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupTree {
    root: PathBuf,
}

impl CgroupTree {
    /// This host's.
    #[must_use]
    pub fn of_host() -> Self {
        Self::at(Path::new("/"))
    }

    /// The one whose `sys/fs/cgroup` and `proc` are below `root`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// A file of this tree's `proc`.
    pub(crate) fn proc(&self, file: &str) -> PathBuf {
        self.root.join("proc").join(file)
    }

    /// A path of the host in this tree.
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What there is now, and the kernel's release.
    fn survey(&self) -> (Cgroup, String) {
        control_groups(&self.root)
    }

    /// Whether shared CPUs can be weighed, capped and grouped; why not, if not. Touches nothing.
    pub fn controls_cpu(&self) -> Result<(), CpuError> {
        let home = Home::of(self).and_then(|home| home.offers("cpu").map(|()| home));
        home.map(|_| ()).map_err(|reason| CpuError::NoControl { reason })
    }
}

/// One control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    dir: PathBuf,
}

impl Group {
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(self.dir.join(file)).map(|text| text.trim().to_owned())
    }

    pub(crate) fn write(&self, file: &str, text: &str, act: &'static str) -> Result<(), CpuError> {
        let path = self.dir.join(file);
        let written = step("write to a control group", || std::fs::write(&path, text));
        written.map_err(|source| CpuError::Tree { path, act, source })
    }

    /// A file that holds a list of words.
    fn words(&self, file: &str) -> Vec<String> {
        let text = self.read(file).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Puts a thread into it; only one whose process is at the home that this group belongs to.
    pub(crate) fn admit(&self, thread: rustix::thread::Pid) -> Result<(), CpuError> {
        let tid = thread.as_raw_nonzero().to_string();
        self.write("cgroup.threads", &tid, "a vCPU thread cannot be moved into it")
    }
}

/// Where a dedicated partition's vCPU threads are, below home.
pub(crate) fn dedicated_path(partition: &str) -> PathBuf {
    PathBuf::from(format!("{DEDICATED}{partition}"))
}

/// The group of a pool, below home.
pub(crate) fn pool_path(pool: &str) -> PathBuf {
    Path::new(SHARED).join(format!("{COMMON}{pool}"))
}

/// Where a shared partition's vCPU threads are, below home: beside all others, or in a pool.
pub(crate) fn shared_path(partition: &str, pool: Option<&str>) -> PathBuf {
    let folder = pool.map_or_else(|| PathBuf::from(SHARED), pool_path);
    folder.join(format!("server-{partition}"))
}

const SHARED: &str = "pellucid";
const COMMON: &str = "group-";
const DEDICATED: &str = "pellucid.";
