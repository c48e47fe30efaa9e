//! The guest's clock between two runs of a server: what one guest set it to, the next one finds. The guest is some forty bytes.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use support::{Vmm, tiny};

/// Resets if its clock is in the year 36, else sets it to that and powers off at once.
const SETS_ITS_CLOCK: [u8; 35] = [
    0xb0, 0x09, 0xe6, 0x70, 0xe4, 0x71, // mov al, 9; out 0x70, al; in al, 0x71
    0x3c, 0x36, 0x74, 0x10, // cmp al, 0x36; je reset
    0xb0, 0x36, 0xe6, 0x71, // mov al, 0x36; out 0x71, al
    0xba, 0x04, 0x06, 0, 0, // mov edx, 0x604 (PM1 control)
    0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4, // mov ax, 0x3400; out dx, ax; hlt
    0xba, 0xf9, 0x0c, 0, 0, // reset: mov edx, 0xcf9
    0xb0, 0x06, 0xee, 0xf4, // mov al, 6; out dx, al; hlt
];

#[test]
fn a_clock_that_was_set_runs_on_in_the_next_run_where_its_file_is_named() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::file(&SETS_ITS_CLOCK));
    let run = |more: &[&str]| {
        let words = ["--kernel", kernel.to_str().unwrap(), "--no-reboot"];
        vmm.start("a", "16M", &[&words[..], more].concat()).ends().0
    };
    let clock = vmm.scratch.path().join("clock");
    let named = ["--rtc-offset", clock.to_str().unwrap()];
    assert_eq!(run(&named), Some(0), "set, as it is not the year 36");
    let offset: i64 = std::fs::read_to_string(&clock).unwrap().trim().parse().unwrap();
    assert_eq!(run(&named), Some(3), "set already, {offset} s ahead");
    assert_eq!(run(&[]), Some(0), "another run has the host's time");
    std::fs::write(&clock, "0").unwrap();
    assert_eq!(run(&named), Some(0), "and the file is what is believed");
    std::fs::write(&clock, "noon").unwrap();
    assert_eq!(run(&named), Some(1));
}
