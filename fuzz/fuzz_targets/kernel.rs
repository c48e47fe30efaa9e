//! A kernel file, bzImage or ELF, loaded into 16 MiB of guest memory.
#![no_main]

use std::io::Cursor;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pellucid_image::{Linux, SourceFile};
use pellucid_partition::{GuestMemory, Layout, PageSize};

static MACHINE: LazyLock<(Layout, GuestMemory)> = LazyLock::new(|| {
    let layout = Layout::new(16 << 20, 39).expect("16 MiB is enough");
    let memory = GuestMemory::map("fuzz", &layout, PageSize::Size4K).expect("16 MiB can be had");
    (layout, memory)
});

fuzz_target!(|bytes: &[u8]| {
    let (layout, memory) = &*MACHINE;
    let file = |name: &str, content: &[u8]| {
        SourceFile::new(name, content.len() as u64, Cursor::new(content.to_vec()))
    };
    let linux = Linux {
        kernel: file("kernel", bytes),
        initrds: vec![file("initrd", b"x")],
        command_line: "ro".into(),
    };
    let _ = linux.load(memory, layout);
});
