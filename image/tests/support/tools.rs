//! The tools that make real disks.

use std::process::Command;

/// Runs a tool; `false` when this machine does not have it.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> bool {
    match Command::new(tool)
        .args(arguments)
        .env("MTOOLS_SKIP_CHECK", "1")
        .output()
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "{tool} is not installed: nothing was shown here (packages gdisk, dosfstools, mtools, e2fsprogs, qemu-utils)"
            );
            false
        }
        output => {
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{tool} {arguments:?}: {said}");
            true
        }
    }
}
