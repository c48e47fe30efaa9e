//! A guest of half a kibibyte that needs only /dev/kvm: port and memory-mapped I/O, an interrupt, a second vCPU.
//!
//! The guest says on its serial port what worked; the host compares, and reports what this host's KVM can do.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pellucid::chipset::{Board, BoardEvent, BoardSpec, ConfigPorts, Console, EcamPlace};
use pellucid::partition::{
    Entry, Gsi, GuestAddress, Inventory, IrqLine, Layout, MmioHandler, PartitionSpec, PioHandler, Plan,
    StateDir,
};
use pellucid::vcpu::{ExitCounts, Parked, VcpuPolicy};
use serde_json::json;

use crate::arguments::Format;
use crate::{Outcome, Status};

/// Runs the embedded guest and reports.
pub(crate) fn run(format: Format) -> Outcome {
    let host = Inventory::survey()?;
    let begun = Instant::now();
    let (said, exits) = run_guest(&host)?;
    let millis = begun.elapsed().as_millis();
    let passed = said == EXPECTED;
    let total: u64 = exits.iter().map(ExitCounts::total).sum();
    if format.json {
        let report = json!({ "passed": passed, "guest": said, "milliseconds": millis, "exits": total, "kvm": host.kvm });
        say!("{report:#}");
    } else {
        for line in said.lines() {
            say!("guest    {line}");
        }
        if let Ok(kvm) = &host.kvm {
            say!("KVM      {} vCPUs, {} memory slots", kvm.max_vcpus, kvm.max_slots);
            say!(
                "KVM      can disable exits for: {}",
                disable_exits(kvm.disable_exits)
            );
            say!(
                "KVM      counters by file descriptor: {}",
                if kvm.binary_stats { "yes" } else { "no" }
            );
        }
        say!(
            "selftest {} after {millis} ms and {total} exits",
            if passed { "passed" } else { "FAILED" }
        );
    }
    Ok(if passed {
        Status::Done
    } else {
        Status::GuestCrashed
    })
}

/// What the guest printed until it powered off, and the exits that it took.
fn run_guest(host: &Inventory) -> Result<(String, Vec<ExitCounts>), Box<dyn std::error::Error>> {
    // A state directory of its own: the selftest holds nothing that others could want, and must run without privileges.
    let own = tempdir()?;
    let name = format!("selftest-{}", std::process::id());
    let plan = Plan::fit(host, &PartitionSpec::new(&name, 2, 16 << 20)?)?;
    let partition = plan.reserve(&StateDir::at(&own.0)?)?.populate(&|_| ())?;
    partition.memory().write(LOAD, GUEST)?;
    let (ended, wait) = channel();
    let printed = Arc::new(Mutex::new(Vec::new()));
    let console = Console {
        out: Box::new(Printed(Arc::clone(&printed))),
        room: Box::new(|| ()),
    };
    let off = ended.clone();
    let events = Arc::new(move |event: BoardEvent| drop(off.send(format!("{event:?}"))));
    let board = Board::attach(
        &partition,
        BoardSpec {
            console,
            events,
            clock_offset: 0,
            sooner: Arc::new(|| ()),
            root_buses: Vec::new(),
            root_ports: Vec::new(),
            config_ports: ConfigPorts::default(),
            ecam: EcamPlace::default(),
            clock_memory: Vec::new(),
        },
    )?;
    let probe = Arc::new(Probe {
        word: AtomicU32::new(0),
        line: partition.interrupts().line(PIN)?,
    });
    let _port = partition.pio().insert(
        PROBE_PORT,
        4,
        "selftest port",
        Arc::clone(&probe) as Arc<dyn PioHandler>,
    )?;
    let _mmio = partition.mmio().insert(
        partition.plan().layout().mmio32().start,
        8,
        "selftest",
        probe as Arc<dyn MmioHandler>,
    )?;
    let entry = Entry::Pvh {
        rip: LOAD,
        start_info: LOAD,
    };
    let parked = Parked::create(&partition, entry, &VcpuPolicy::default())?;
    let running = parked.run(move |event| drop(ended.send(event.to_string())))?;
    let end = wait.recv_timeout(HANG_GUARD);
    let exits = running.stop(HANG_GUARD)?.exits();
    drop(board);
    partition.release()?;
    let said = String::from_utf8_lossy(&printed.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    match end.as_deref() {
        Ok("PowerOff") => Ok((said, exits)),
        Ok(other) => Err(format!("the selftest's guest ended with {other:?} after it said {said:?}").into()),
        Err(_) => Err(format!("the selftest's guest did not end in {HANG_GUARD:?}; it said {said:?}").into()),
    }
}

/// Reads back inverted what was written; a write at +4 raises the interrupt.
struct Probe {
    word: AtomicU32,
    line: IrqLine,
}

impl Probe {
    fn read_word(&self, data: &mut [u8]) {
        let word = (!self.word.load(Ordering::Relaxed)).to_le_bytes();
        data.iter_mut().zip(word).for_each(|(to, from)| *to = from);
    }

    fn write_word(&self, data: &[u8]) {
        if let Ok(word) = data.try_into() {
            self.word.store(u32::from_le_bytes(word), Ordering::Relaxed);
        }
    }
}

impl PioHandler for Probe {
    fn read(&self, _: u16, data: &mut [u8]) {
        self.read_word(data);
    }

    fn write(&self, _: u16, data: &[u8]) {
        self.write_word(data);
    }
}

impl MmioHandler for Probe {
    fn read(&self, _: u64, data: &mut [u8]) {
        self.read_word(data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match offset {
            0 => self.write_word(data),
            _ => self.line.trigger(),
        }
    }
}

struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A directory that goes with its value.
struct TempDir(std::path::PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tell!("vmm: {}: not removed: {error}", self.0.display());
        }
    }
}

fn tempdir() -> std::io::Result<TempDir> {
    let path = std::env::temp_dir().join(format!("pellucid-selftest-{}", std::process::id()));
    std::fs::create_dir(&path)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(TempDir(path))
}

/// The bits of KVM_CAP_X86_DISABLE_EXITS, from include/uapi/linux/kvm.h.
fn disable_exits(bits: i32) -> String {
    let names = ["MWAIT", "HLT", "PAUSE", "C-states"];
    let can: Vec<_> = (0..)
        .zip(names)
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, name)| name)
        .collect();
    if can.is_empty() {
        "nothing".to_owned()
    } else {
        can.join(", ")
    }
}

/// Assembled from guest.s beside it.
static GUEST: &[u8] = include_bytes!("selftest/guest.bin");
const EXPECTED: &str = "pio ok\nmmio ok\ninterrupt ok\nsecond vcpu ok\n";
const LOAD: GuestAddress = Layout::HIGH_MEMORY;
const PROBE_PORT: u64 = 0x500;
const PIN: Gsi = Gsi(5);
const HANG_GUARD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_embedded_guest_is_what_its_source_assembles_to() {
        let dir = tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/vmm/selftest/guest.s");
        let (object, binary) = (dir.0.join("guest.o"), dir.0.join("guest.bin"));
        let assembled = Command::new("as")
            .args(["--32", "-o"])
            .arg(&object)
            .arg(source)
            .status()
            .unwrap();
        let linked = Command::new("ld")
            .args([
                "-m",
                "elf_i386",
                "-Ttext",
                "0x100000",
                "-e",
                "0x100000",
                "--oformat",
                "binary",
                "-o",
            ])
            .args([&binary, &object])
            .status()
            .unwrap();
        assert!(assembled.success() && linked.success());
        assert_eq!(std::fs::read(binary).unwrap(), GUEST);
    }

    #[test]
    fn the_bits_of_exits_are_named() {
        assert_eq!(disable_exits(0), "nothing");
        assert_eq!(disable_exits(0b0110), "HLT, PAUSE");
    }
}
