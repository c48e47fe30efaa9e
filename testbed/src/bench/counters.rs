//! What the kernel counts of a running VMM: exits in KVM's debugfs, resident memory in `smaps`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::sample::Counters;

/// KVM's counters of one process. Each of its virtual machines has a folder `PID-FD`.
#[derive(Debug)]
pub(crate) struct KvmCounters {
    root: PathBuf,
    prefix: String,
}

impl KvmCounters {
    pub(crate) fn of(process: u32) -> Self {
        Self::below(Path::new("/sys/kernel/debug/kvm"), process)
    }

    fn below(root: &Path, process: u32) -> Self {
        Self {
            root: root.to_owned(),
            prefix: format!("{process}-"),
        }
    }

    /// The counters of the virtual machine with the most exits: others are only made to ask KVM a question.
    pub(crate) fn survey(&self) -> Option<Counters> {
        let machines = fs::read_dir(&self.root).ok()?.flatten();
        let ours = machines.filter(|entry| entry.file_name().to_string_lossy().starts_with(&self.prefix));
        ours.filter_map(|entry| counters_in(&entry.path()))
            .max_by_key(|counters| counters["exits"])
    }
}

/// The numbers in a folder, the sum of exits read first; none if that is not there.
fn counters_in(folder: &Path) -> Option<Counters> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let exits = number(&folder.join("exits"))?;
    let files = fs::read_dir(folder).ok()?.flatten();
    let mut counters: Counters = files
        .filter_map(|file| Some((file.file_name().into_string().ok()?, number(&file.path())?)))
        .collect();
    counters.insert("exits".into(), exits);
    Some(counters)
}

/// Resident memory in KiB without the guest's, from the text of `/proc/PID/smaps`. The guest's memory is what is
/// mapped from a memory file, or without a file and of just its size; it must be found whole.
pub(crate) fn resident_kib(smaps: &str, guest_kib: u64) -> Result<u64, String> {
    let (mut resident, mut guest) = (0, 0);
    for mapping in mappings(smaps) {
        if mapping.name.starts_with("/memfd:") || (mapping.name.is_empty() && mapping.size == guest_kib) {
            guest += mapping.size;
        } else {
            resident += mapping.resident;
        }
    }
    if guest == guest_kib {
        Ok(resident)
    } else {
        Err(format!("{guest} KiB look like guest memory, not {guest_kib}"))
    }
}

/// One mapping of a process, in KiB.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) resident: u64,
}

/// The mappings in the text of `smaps`: a line of addresses, then lines of `Key: value`.
pub(crate) fn mappings(smaps: &str) -> Vec<Mapped> {
    let mut found: Vec<Mapped> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let Some(key) = first.strip_suffix(':') else {
            let name = words.skip(4).collect::<Vec<_>>().join(" ");
            found.push(Mapped {
                name,
                ..Mapped::default()
            });
            continue;
        };
        let value = words.next().and_then(|word| word.parse().ok());
        if let (Some(mapping), Some(value)) = (found.last_mut(), value) {
            match key {
                "Size" => mapping.size = value,
                "Rss" => mapping.resident = value,
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f00-7f10 rw-s 00000000 00:01 1025 /memfd:db1 (deleted)
Size:             262144 kB
Rss:              262144 kB
VmFlags: rd wr sh mr mw me ms
5500-5510 r-xp 00001000 00:18 77 /usr/bin/a program
Size:               2000 kB
Rss:                1200 kB
7f20-7f30 rw-p 00000000 00:00 0
Size:                132 kB
Rss:                  40 kB
";

    #[test]
    fn guest_memory_is_not_the_vmms() {
        assert_eq!(resident_kib(SMAPS, 262_144), Ok(1240));
        let anonymous = SMAPS.replace("/memfd:db1 (deleted)", "");
        assert_eq!(resident_kib(&anonymous, 262_144), Ok(1240));
    }

    #[test]
    fn guest_memory_that_is_not_all_there_is_no_measurement() {
        let refusal = resident_kib(SMAPS, 524_288).unwrap_err();
        assert!(refusal.contains("262144"), "{refusal}");
        assert!(resident_kib("", 1).is_err());
    }

    #[test]
    fn a_mappings_name_may_have_spaces() {
        assert_eq!(mappings(SMAPS)[1].name, "/usr/bin/a program");
    }

    #[test]
    fn the_machine_with_the_most_exits_is_the_guest() {
        let root = tempfile::tempdir().unwrap();
        for (folder, exits) in [("77-3", "0"), ("77-9", "4711"), ("7-3", "9999")] {
            let folder = root.path().join(folder);
            fs::create_dir_all(folder.join("vcpu0")).unwrap();
            fs::write(folder.join("exits"), format!("{exits}\n")).unwrap();
            fs::write(folder.join("text"), "no number").unwrap();
        }
        let counters = KvmCounters::below(root.path(), 77).survey().unwrap();
        assert_eq!(counters, Counters::from([("exits".to_owned(), 4711)]));
        assert!(KvmCounters::below(root.path(), 78).survey().is_none());
    }
}
