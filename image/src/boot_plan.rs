//! What a disk would boot: a plain value, made by reading, good for showing, comparing and keeping.

use serde::{Deserialize, Serialize};

/// What a disk would boot, as its own boot loader would choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPlan {
    /// What the boot menu shows.
    pub title: String,
    /// The entry's name, in lower case.
    pub entry_id: String,
    /// Path of the kernel on the ESP.
    pub kernel: String,
    /// Paths of the initrds on the ESP, in order.
    pub initrds: Vec<String>,
    /// The command line, as the kernel finds it in `/proc/cmdline`.
    pub command_line: String,
    /// All entries in menu order, the chosen one among them.
    pub candidates: Vec<Candidate>,
}

/// One line of the boot menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The entry's name, in lower case.
    pub entry_id: String,
    /// What the menu shows.
    pub title: String,
    /// Boot attempts left, if they are counted.
    pub tries_left: Option<u32>,
    /// The kernel that the entry names but the ESP does not have: the boot loader passes over such an entry.
    pub missing: Option<String>,
}
