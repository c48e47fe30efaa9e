//! `vmm run --twin`: the machine that a guest finds is the captured one, or it is refused with reasons. No device is lent, so that /dev/kvm is enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::path::PathBuf;

use pellucid::partition::Layout;
use pellucid::twin::{Bytes, MemoryNode, Nic, PciFunction, Thread, Twin};
use support::{Answer, Vmm, tiny};

/// A capture of this machine by the command, with other tables, and without the devices that no test here lends.
fn captured(vmm: &Vmm) -> Twin {
    let answer = vmm.ask(["twin", "capture"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let mut twin = Twin::from_json(answer.out.as_bytes()).unwrap();
    twin.pci = pellucid::twin::Pci::default();
    twin.nics.clear();
    twin.disks.clear();
    twin.smbios.ids = [
        ("sys_vendor", "Example Works"),
        ("product_name", "Server Nine"),
        ("product_serial", "SN-0042"),
        ("product_uuid", "33221100-5544-7766-8899-aabbccddeeff"),
    ]
    .map(|(id, text)| (id.to_owned(), text.to_owned()))
    .into();
    let [entry, table] = tables();
    (twin.smbios.entry_point, twin.smbios.table) = (Some(Bytes(entry)), Some(Bytes(table)));
    twin
}

/// An entry point (DSP0134, 5.2.2) with a system record: maker, name, version, serial number, UUID.
fn tables() -> [Vec<u8>; 2] {
    let mut table = vec![1, 27, 1, 0, 1, 2, 3, 4];
    table.extend([
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    ]);
    table.extend([6, 0, 0]);
    table.extend(b"Example Works\0Server Nine\0v1\0SN-0042\0\0");
    table.extend([127, 4, 0xff, 0, 0, 0]);
    let mut entry = b"_SM3_\0\x18\x03\x03\0\x01\0".to_vec();
    entry.extend(u32::try_from(table.len()).unwrap().to_le_bytes());
    entry.extend([0; 8]);
    entry[5] = entry.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    [entry, table]
}

/// With a network card that this machine has not.
fn with_card(mut twin: Twin) -> Twin {
    let at = "0000:00:19.0".parse().unwrap();
    let ids = pellucid::passthrough::Ids {
        vendor: 0xfffe,
        device: 0x1234,
        class: 0x02_0000,
        revision: 0,
        subsystem: [0, 0],
    };
    twin.pci.functions.insert(at, PciFunction::bare(ids));
    let nic = Nic {
        mac: "52:54:00:00:00:19".to_owned(),
        kind: 1,
        pci: Some(at),
        ..Nic::default()
    };
    twin.nics.insert("eno1".to_owned(), nic);
    twin
}

/// A kernel that says what can be read of the first KiB of the SMBIOS area, and powers off.
fn reader() -> Vec<u8> {
    let start = u32::try_from(Layout::SMBIOS.start).unwrap().to_le_bytes();
    let code = [
        &[0xba, 0xf8, 0x03, 0, 0, 0xbe][..], //          mov edx, 0x3f8; mov esi,
        &start,                              //          the area
        &[0xb9, 0, 4, 0, 0],                 //          mov ecx, 1024
        &[0xac, 0x3c, b' ', 0x72, 0x05],     // next:    lodsb; cmp al, ' '; jb skip
        &[0x3c, b'~', 0x77, 0x01, 0xee],     //          cmp al, '~'; ja skip; out dx, al
        &[0xe2, 0xf4],                       // skip:    loop next
        &[0xba, 0x04, 0x06, 0, 0, 0x66, 0xb8, 0, 0x34], // mov edx, 0x604 (PM1 control); mov ax, 0x3400
        &[0x66, 0xef, 0xf4],                 //          out dx, ax; hlt
    ];
    tiny::file(&code.concat())
}

/// A kernel that says how many threads a core has (CPUID leaf 0xb), and powers off.
fn counter() -> Vec<u8> {
    let code = [
        &[0xb8, 0x0b, 0, 0, 0, 0x31, 0xc9, 0x0f, 0xa2][..], // mov eax, 0xb; xor ecx, ecx; cpuid
        &[0x8d, 0x43, b'0', 0xba, 0xf8, 0x03, 0, 0, 0xee], // lea eax, [ebx + '0']; mov edx, 0x3f8; out dx, al
        &[0xba, 0x04, 0x06, 0, 0, 0x66, 0xb8, 0, 0x34],    // mov edx, 0x604 (PM1 control); mov ax, 0x3400
        &[0x66, 0xef, 0xf4],                               // out dx, ax; hlt
    ];
    tiny::file(&code.concat())
}

struct Files {
    vmm: Vmm,
    twin: PathBuf,
    kernel: PathBuf,
}

impl Files {
    fn new(change: impl FnOnce(Twin) -> Twin) -> Files {
        let vmm = Vmm::new();
        let twin = change(captured(&vmm));
        let twin = vmm.file("f.json", twin.to_json().unwrap().as_bytes());
        let kernel = vmm.file("kernel", &reader());
        Files { vmm, twin, kernel }
    }

    fn ask(&self, command: &[&str], more: &[&str]) -> Answer {
        let (twin, kernel) = (self.twin.to_str().unwrap(), self.kernel.to_str().unwrap());
        let words = ["--name", "a", "--twin", twin, "--kernel", kernel];
        self.vmm.ask(command.iter().chain(&words).chain(more))
    }

    /// `check` and `run` refuse alike, with all of `parts` in one line, and nothing was touched.
    #[track_caller]
    fn refused(&self, more: &[&str], parts: &[&str]) {
        let (check, run) = (self.ask(&["check"], more), self.ask(&["run"], more));
        assert_eq!(
            (check.status, run.status),
            (Some(1), Some(1)),
            "{check:?}\n{run:?}"
        );
        for answer in [&check, &run] {
            let told = |line: &str| parts.iter().all(|part| line.contains(part));
            assert!(answer.err.lines().any(told), "{parts:?} is missing in {answer:?}");
        }
        // A state directory need not even have been made.
        let locks = std::fs::read_dir(self.vmm.state()).into_iter().flatten().count();
        assert_eq!(locks, 0, "refused before anything was touched");
    }
}

#[test]
fn a_guest_finds_the_captured_machine() {
    let files = Files::new(|twin| twin);
    let answer = files.ask(&["run"], &["--memory", "16M"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    for text in ["_SM3_", "Example Works", "Server Nine", "SN-0042"] {
        assert!(answer.out.contains(text), "{answer:?}");
    }
}

#[test]
fn cpus_and_memory_are_the_captured_machines_if_they_are_not_said() {
    let files = Files::new(|mut twin| {
        twin.cpus.threads.truncate(1);
        twin.memory.nodes = vec![MemoryNode {
            id: 0,
            total: (32 << 20) - 4096,
            distances: Vec::new(),
        }];
        (twin.memory.map, twin.memory.firmware) = (Vec::new(), Vec::new());
        twin
    });
    let answer = files.ask(&["check"], &[]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    for line in [
        "vCPUs    1 ",
        "memory   32 MiB",
        "captured machine's",
        "0 changes a name",
    ] {
        assert!(answer.out.contains(line), "{line:?} is missing in {answer:?}");
    }
    let answer = files.ask(&["twin", "predict"], &[]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let predicted = Twin::from_json(answer.out.as_bytes()).unwrap();
    assert_eq!(predicted.smbios.ids["product_serial"], "SN-0042");
    assert_eq!(
        (predicted.cpus.threads.len(), predicted.memory.total()),
        (1, 32 << 20)
    );
    let table = predicted.smbios.table.unwrap().0;
    assert!(table.windows(7).any(|part| part == b"SN-0042"));
}

#[test]
fn cores_have_as_many_threads_as_the_captured_ones() {
    for threads_of_a_core in [1, 2] {
        let thread = |id: usize| Thread {
            id,
            package: 0,
            core: i32::try_from(id / threads_of_a_core).unwrap(),
            node: 0,
        };
        let mut files = Files::new(|mut twin| {
            twin.cpus.threads = (0..2).map(thread).collect();
            twin
        });
        files.kernel = files.vmm.file("counter", &counter());
        let answer = files.ask(&["run"], &["--memory", "16M"]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        assert_eq!(answer.out, threads_of_a_core.to_string());
        assert!(!answer.err.contains("cpus cores"), "{answer:?}");
    }
}

#[test]
fn what_cannot_be_had_is_refused_and_passes_only_by_its_class() {
    let files = Files::new(with_card);
    let parts = [
        "changes a name",
        "52:54:00:00:00:19",
        "not there",
        "this host has no device",
        "at=0000:00:19.0",
    ];
    files.refused(&["--memory", "16M"], &parts);
    files.refused(&["--memory", "16M", "--twin-allow", "licence-risk"], &parts);
    let answer = files.ask(&["run"], &["--memory", "16M", "--twin-allow", "changes-name"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    assert!(
        answer
            .err
            .contains("warning: changes a name: nics 52:54:00:00:00:19"),
        "{answer:?}"
    );
    let check = files.ask(&["check"], &["--memory", "16M", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&check.out).unwrap();
    assert_eq!(report["twin"]["worst"], "changes-name");
}

#[test]
fn a_machine_larger_than_this_one_is_refused() {
    let thread = |id| Thread {
        id,
        package: 0,
        core: 0,
        node: 0,
    };
    let files = Files::new(|mut twin| {
        twin.cpus.threads = (0..4000).map(thread).collect();
        twin
    });
    files.refused(&["--memory", "16M"], &["4000 CPUs", "255"]);
    let files = Files::new(|mut twin| {
        (twin.memory.map, twin.memory.firmware) = (Vec::new(), Vec::new());
        twin.memory.nodes.iter_mut().for_each(|node| node.total = 1 << 40);
        twin
    });
    files.refused(&["--cpus", "1"], &["of memory", "this host has"]);
}

#[test]
fn a_file_that_is_no_capture_is_named() {
    let files = Files::new(|twin| twin);
    std::fs::write(&files.twin, b"{\"format\": 1}").unwrap();
    files.refused(&["--memory", "16M"], &["f.json", "not a twin"]);
    std::fs::remove_file(&files.twin).unwrap();
    files.refused(&["--memory", "16M"], &["f.json", "No such file"]);
}
