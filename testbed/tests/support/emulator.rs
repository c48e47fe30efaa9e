//! A testbed whose emulator is a shell script: it passes every probe, and then plays what it is told.

use std::path::Path;

use super::program;
use pellucid_testbed::setup::Kernel;
use pellucid_testbed::{Cache, Emulator, Testbed};

/// A testbed in `folder` that starts `play`, some lines of shell, as its emulator.
pub(crate) fn testbed_playing(folder: &Path, play: &str) -> Testbed {
    let program = folder.join("qemu");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo QEMU emulator version 10.0.2 && exit\n\
         case $2 in *,help) exit 1 ;; esac\n{play}\n"
    );
    program::write(&program, &script);
    Testbed {
        cache: Cache::open_at(folder.join("cache")).unwrap(),
        emulator: Emulator::probe(&program).unwrap(),
        kernel: Kernel {
            release: "6.1".into(),
            image: "/no/kernel".into(),
            modules: "/no/modules".into(),
        },
        initramfs: "/no/initramfs".into(),
    }
}
