//! An ordinary server disk booted by an unmodified distribution firmware from the lent NVMe controller, through its own boot loader.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::io::Write;
use std::path::Path;

use pellucid::image::VariableStore;
use support::host::{BOOT, driver_of};
use support::{Server, Vmm, rom};

/// Debian's build, as its package has it.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLE: &str = "/sys/firmware/efi/efivars/Lasting-5b3a1f6e-9c1d-4c55-8d0e-2f6a7b90c3d4";

/// The emulator aborts when the timer ticks again before the firmware's handler of the tick before is done, and in it that takes more than the
/// firmware's 10 ms; KVM keeps no timer quicker than this many microseconds.
const TICK: (&str, &str) = ("/sys/module/kvm/parameters/min_timer_period_us", "2000000");

/// The server's own timers stay as they are for others.
struct Ticks(String);

impl Ticks {
    fn slow() -> Self {
        let before = std::fs::read_to_string(TICK.0).unwrap();
        std::fs::write(TICK.0, TICK.1).unwrap();
        Self(before)
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        std::fs::write(TICK.0, self.0.trim()).unwrap();
    }
}

/// Boots the disk by the firmware, with one vCPU, and logs in.
fn boot(vmm: &Vmm, vars: &Path, more: &[&str]) -> Server {
    let files = [
        "--firmware",
        CODE,
        "--vars",
        vars.to_str().unwrap(),
        "--device",
        BOOT,
    ];
    let mut server = vmm.start("a", "512M", &[&files, more].concat());
    server.says("BdsDxe: starting");
    server.says("db1 login: ");
    server.types("root\n");
    server.says("Password: ");
    server.types("debian\n");
    server.says("# ");
    // Written past the harness, which holds back what tests print: whoever waits for this one hears that it goes on.
    std::io::stderr().write_all(b"booted by firmware\n").unwrap();
    server
}

fn ends(mut server: Server) {
    server.types("systemctl poweroff\n");
    let (status, err) = server.ends();
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(driver_of(BOOT).as_deref(), Some("nvme"));
}

#[test]
fn the_server_disk_boots_by_unmodified_firmware_and_a_variable_that_it_sets_is_there_in_the_next_boot() {
    let _ticks = Ticks::slow();
    let vmm = Vmm::new();
    let vars = vmm.path("vars.fd");
    let mut first = boot(&vmm, &vars, &[]);
    let root = first.asks("findmnt -n -o SOURCE,UUID /; cat /sys/class/nvme/nvme0/address");
    assert_eq!(
        root.split_whitespace().collect::<Vec<_>>(),
        ["/dev/nvme0n1p2", "b2d4f0a6-3c58-4e7b-9a11-7d60c2e8f514", BOOT]
    );
    assert_eq!(
        first.asks("systemctl --failed --plain --no-legend --no-pager"),
        ""
    );
    let option =
        first.asks("cd /sys/firmware/efi/efivars; ls -d BootOrder-* BootCurrent-* LoaderInfo-* | wc -l");
    assert_eq!(option, "3", "the firmware's variables and the boot loader's");
    let complaints =
        first.asks("dmesg --level=emerg,alert,crit,err,warn | grep -iE 'acpi|smbios|efi:|firmware bug'");
    assert_eq!(complaints, "");
    first.asks(&format!("printf '\\007\\000\\000\\000lasting' > {VARIABLE}"));
    ends(first);
    let store = VariableStore::open(&vars).unwrap();
    // The specification's own namespace takes no names of others.
    let variables = store.variables();
    let kept = variables.iter().find(|variable| variable.name == "Lasting");
    assert_eq!(kept.unwrap().data, b"lasting");
    let mut second = boot(&vmm, &vars, &["--boot-file", "/EFI/systemd/systemd-bootx64.efi"]);
    assert_eq!(second.asks(&format!("tail -c 7 {VARIABLE}")), "lasting");
    // The option that was put first is the one that was booted.
    let current = second.asks("od -An -tu2 -j4 /sys/firmware/efi/efivars/BootCurrent-*");
    let order = VariableStore::open(&vars).unwrap().global("BootOrder").unwrap();
    let first = u16::from_le_bytes([order[0], order[1]]);
    assert_eq!(current, first.to_string());
    let option = VariableStore::open(&vars)
        .unwrap()
        .global(&format!("Boot{first:04X}"));
    let text: Vec<u8> = "systemd-bootx64.efi"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(option.unwrap().windows(text.len()).any(|part| part == text));
    ends(second);
    assert_eq!(std::fs::read(rom::TEMPLATE).unwrap().len(), store.bytes().len());
    assert!(vmm.claims().is_empty());
}
