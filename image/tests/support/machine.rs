//! A machine without a processor: guest memory to load kernels into, and to look at what is there then.

use std::io::Cursor;

use pellucid_image::{Linux, LoadError, SourceFile};
use pellucid_partition::{Entry, GuestAddress, GuestMemory, Layout, PageSize};
use vm_memory::{ByteValued, Bytes};

pub(crate) fn put(mut image: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

pub(crate) fn source(name: &str, content: Vec<u8>) -> SourceFile<'static> {
    SourceFile::new(name, content.len() as u64, Cursor::new(content))
}

pub(crate) struct Machine {
    pub(crate) layout: Layout,
    pub(crate) memory: GuestMemory,
}

impl Machine {
    pub(crate) fn of(mebibytes: u64) -> Self {
        let layout = Layout::new(mebibytes * MIB, 39).unwrap();
        let memory = GuestMemory::map("kernel", &layout, PageSize::Size4K).unwrap();
        Self { layout, memory }
    }

    pub(crate) fn load(
        &self,
        kernel: Vec<u8>,
        initrds: &[Vec<u8>],
        command_line: &str,
    ) -> Result<Entry, LoadError> {
        let names = ["initrd0", "initrd1", "initrd2"];
        let initrds = initrds
            .iter()
            .zip(names)
            .map(|(content, name)| source(name, content.clone()))
            .collect();
        let linux = Linux {
            kernel: source("vmlinuz", kernel),
            initrds,
            command_line: command_line.to_owned(),
        };
        linux.load(&self.memory, &self.layout)
    }

    pub(crate) fn read<T: ByteValued>(&self, address: u64) -> T {
        self.memory
            .as_vm_memory()
            .read_obj(GuestAddress(address))
            .unwrap()
    }

    pub(crate) fn bytes(&self, address: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.read(GuestAddress(address), &mut bytes).unwrap();
        bytes
    }
}

pub(crate) fn refusal(kernel: Vec<u8>) -> String {
    let text = Machine::of(64).load(kernel, &[], "").unwrap_err().to_string();
    assert!(text.starts_with("vmlinuz: ") && !text.contains('\n'), "{text}");
    text
}

pub(crate) const MIB: u64 = 1 << 20;
