//! Linux in a logical server: the kernel and initramfs that the testbed names, and how a test asks it things.

use super::{Server, Vmm};

/// Starts the guest of the tests; `line` is more of its command line, `more` more of the VMM's.
pub(crate) fn start(vmm: &Vmm, name: &str, line: &str, more: &[&str]) -> Server {
    let (kernel, initrd) = (named("PELLUCID_KERNEL"), named("PELLUCID_INITRD"));
    let line = format!("console=ttyS0 quiet {line}");
    let boot = ["--kernel", &kernel, "--initrd", &initrd, "--cmdline", &line];
    vmm.start(name, "256M", &[&boot, more].concat())
}

/// Waits for the guest's shell.
#[track_caller]
pub(crate) fn to_shell(server: &mut Server) {
    server.says("init: shell");
    server.says("# ");
}

pub(crate) fn named(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; run this with `cargo testbed test`"))
}
