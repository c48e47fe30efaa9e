//! The words in a test binary's name that ask for another machine than the standard one. This table is all of them.

use std::path::Path;

use crate::{Device, Disk, Machine, Place};

/// The machine that a binary's name asks for: a set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wish(u32);

/// One word and what it changes about the machine.
struct Word {
    word: &'static str,
    /// What the machine has then, as the table of results says it.
    gives: &'static str,
    change: fn(Machine) -> Machine,
}

/// New words go to the end, and into the README's list.
const WORDS: [Word; 12] = [
    Word {
        word: "48",
        gives: "an IOMMU of 48 bits",
        change: |machine| machine.iommu_width(48),
    },
    Word {
        word: "igb",
        gives: "igb",
        change: |machine| {
            machine.device(Device::Igb {
                place: Place::port(4),
            })
        },
    },
    Word {
        word: SERVER_DISK,
        gives: "the server disk",
        // Which image that is, only the session knows.
        change: |machine| machine,
    },
    Word {
        word: "numa",
        gives: "two nodes",
        change: |machine| machine.cpus(4).numa_nodes(2),
    },
    Word {
        word: "e1000",
        gives: "e1000",
        change: |machine| {
            machine.device(Device::E1000 {
                place: Place::root(8),
            })
        },
    },
    Word {
        word: "root",
        gives: "NVMe on the root bus",
        change: |machine| machine.device(nvme("PELLUCID-ROOT", Place::root(9))),
    },
    Word {
        word: "switch",
        gives: "a switch",
        change: |machine| machine.device(nvme("PELLUCID-SWITCH", Place::switch(6))),
    },
    Word {
        word: "slot",
        gives: "a slot with two functions",
        change: |machine| {
            let place = Place::port(7);
            machine
                .device(nvme("PELLUCID-SLOT", place))
                .device(Device::E1000e {
                    place: place.function(1),
                })
        },
    },
    Word {
        word: "edu",
        gives: "a second edu",
        change: |machine| {
            machine.device(Device::Edu {
                place: Place::root(0xa),
            })
        },
    },
    Word {
        word: "nic",
        gives: "a second e1000e",
        change: |machine| {
            machine.device(Device::E1000e {
                place: Place::port(0xb),
            })
        },
    },
    Word {
        word: "large",
        gives: "8 GiB",
        change: |machine| machine.memory_mib(8192),
    },
    Word {
        word: "low",
        gives: "nothing above 4 GiB",
        // The firmware puts prefetchable windows above 4 GiB where there is memory, and the emulator maps virtual functions by the lower
        // half of their BARs alone.
        change: |machine| machine.memory_mib(2560),
    },
];

/// All words.
pub fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|entry| entry.word).chain([EVERY_DEVICE])
}

/// The machine that a test binary called `name` gets; the words may also stand alone (`48_igb`).
pub fn machine_for(name: &str) -> Machine {
    Wish::of(name).machine(None)
}

impl Wish {
    /// What the words of `name`, which stand between underscores, ask for.
    pub(crate) fn of(name: &str) -> Self {
        let asks = |word: &str| name.split('_').any(|part| part == word);
        let every_device = asks(EVERY_DEVICE);
        let wanted = |entry: &Word| asks(entry.word) || every_device && entry.adds_devices();
        let bits = WORDS.iter().enumerate().filter(|(_, entry)| wanted(entry));
        Self(bits.fold(0, |bits, (index, _)| bits | 1 << index))
    }

    /// Whether the server disk is in it.
    pub(crate) fn wants_disk(self) -> bool {
        self.words().any(|entry| entry.word == SERVER_DISK)
    }

    /// The machine; `disk` is the image of the server disk.
    pub(crate) fn machine(self, disk: Option<&Path>) -> Machine {
        let machine = self
            .words()
            .fold(Machine::standard(), |machine, entry| (entry.change)(machine));
        match disk.filter(|_| self.wants_disk()) {
            Some(disk) => machine.disk("PELLUCID-BOOT", Disk::Discarded(disk.to_owned())),
            None => machine,
        }
    }

    /// What that machine is called in the table of results.
    pub(crate) fn title(self) -> String {
        let every = Self::of(EVERY_DEVICE);
        let full = self.0 & every.0 == every.0;
        let rest = Self(if full { self.0 & !every.0 } else { self.0 });
        let all = full.then_some("every device");
        let parts: Vec<_> = all
            .into_iter()
            .chain(rest.words().map(|entry| entry.gives))
            .collect();
        match parts.as_slice() {
            [] => "the emulated server".to_owned(),
            parts => format!("the emulated server with {}", parts.join(", ")),
        }
    }

    fn words(self) -> impl Iterator<Item = &'static Word> {
        let all = WORDS.iter().enumerate();
        all.filter(move |(index, _)| self.0 & 1 << index != 0)
            .map(|(_, entry)| entry)
    }
}

impl Word {
    fn adds_devices(&self) -> bool {
        let standard = Machine::standard();
        let before = standard.devices.len();
        (self.change)(standard).devices.len() > before
    }
}

fn nvme(serial: &str, place: Place) -> Device {
    Device::Nvme {
        place,
        serial: serial.to_owned(),
        disk: Disk::Scratch { mebibytes: 64 },
    }
}

const SERVER_DISK: &str = "disk";
/// Stands for all words that add a device.
const EVERY_DEVICE: &str = "full";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Tree;

    fn machine(name: &str) -> Machine {
        Wish::of(name).machine(None)
    }

    #[test]
    fn a_name_says_which_machine_it_wants() {
        assert_eq!(machine("tier2_assign"), Machine::standard());
        assert_eq!(machine("tier2_map_48").iommu_width, 48);
        assert_eq!(
            machine("tier2_v48x"),
            Machine::standard(),
            "only a word of its own counts"
        );
        let nodes = machine("tier2_numa_memory");
        assert_eq!((nodes.cpus, nodes.numa_nodes), (4, 2));
        assert_eq!(Wish::of("tier2_a_igb_48"), Wish::of("tier1_48_b_igb"));
        assert!(Wish::of("tier1_x_48_igb").title().contains("48 bits, igb"));
    }

    #[test]
    fn every_word_changes_the_machine_and_all_of_them_fit_in_one() {
        let disk = Path::new("/dev/null");
        for entry in &WORDS {
            let wish = Wish::of(&format!("tier2_{}", entry.word));
            assert_ne!(wish.machine(Some(disk)), Machine::standard(), "{}", entry.word);
            assert!(wish.title().contains(entry.gives));
        }
        let all: Vec<_> = WORDS.iter().map(|entry| entry.word).collect();
        let devices = Wish::of(&all.join("_")).machine(Some(disk)).devices;
        Tree::of(&devices).unwrap();
    }

    #[test]
    fn every_word_is_explained_to_those_who_write_tests() {
        let readme = include_str!("../../README.md");
        for entry in &WORDS {
            assert!(
                readme.contains(&format!("| `{}` |", entry.word)),
                "{}",
                entry.word
            );
        }
    }

    #[test]
    fn only_a_binary_that_wants_the_server_disk_gets_it() {
        let disk = Some(Path::new("/cache/disk"));
        assert_eq!(Wish::of("tier2_boot").machine(disk), Machine::standard());
        assert_eq!(
            Wish::of("tier2_boot_disk").machine(disk),
            Machine::standard().disk("PELLUCID-BOOT", Disk::Discarded("/cache/disk".into()))
        );
    }
}
