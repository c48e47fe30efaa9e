//! A kernel of 117 bytes for tests that need only /dev/kvm: greets, echoes what is typed, and does what some letters say.

/// The kernel as an ELF file with a PVH entry: one segment of code, one note.
///
/// On its console: `q` powers off, `r` resets, `t` is a triple fault, `p` waits for the power button and powers off.
pub(crate) fn kernel() -> Vec<u8> {
    file(&CODE)
}

/// Any code as such a file; it runs at 1 MiB, in 32-bit mode without paging.
pub(crate) fn file(code: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for word in [62 << 16 | 2, 1u32] {
        file.extend(word.to_le_bytes());
    }
    for quad in [LOAD, HEADER, 0] {
        file.extend(quad.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let (start, size) = (HEADER + 2 * 56, code.len() as u64);
    segment(&mut file, 1, [start, LOAD, size]);
    segment(&mut file, 4, [start + size, 0, NOTE.len() as u64]);
    file.extend(code);
    file.extend(NOTE);
    file
}

/// The kernel as an ELF file without a PVH entry, linked to the upper half: it is entered in 64-bit mode, where its code means the same.
pub(crate) fn kernel_64() -> Vec<u8> {
    let mut file = kernel();
    let (linked, note) = (HEADER as usize + 16, HEADER as usize + 56);
    file[linked..linked + 8].copy_from_slice(&(0xffff_ffff_8000_0000 | LOAD).to_le_bytes());
    file[note..note + 4].fill(0);
    file
}

fn segment(file: &mut Vec<u8>, kind: u32, [offset, address, size]: [u64; 3]) {
    file.extend(kind.to_le_bytes());
    file.extend(7u32.to_le_bytes());
    for quad in [offset, address, address, size, size, 4] {
        file.extend(quad.to_le_bytes());
    }
}

pub(crate) const GREETING: &str = "tiny: ready\n";
const HEADER: u64 = 64;
const LOAD: u64 = 0x10_0000;
/// XEN_ELFNOTE_PHYS32_ENTRY: the entry is at 1 MiB.
const NOTE: [u8; 20] = *b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\x10\0";
#[rustfmt::skip]
const CODE: [u8; 117] = [
    0xba, 0xf8, 0x03, 0, 0,             //         mov  edx, 0x3f8
    0xbe, 0x68, 0, 0x10, 0,             //         mov  esi, hello
    0xac, 0x84, 0xc0,                   // greet:  lodsb; test al, al
    0x74, 0x03, 0xee, 0xeb, 0xf8,       //         jz listen; out dx, al; jmp greet
    0xba, 0xfd, 0x03, 0, 0,             // listen: mov  edx, 0x3fd
    0xf3, 0x90, 0xec, 0xa8, 1, 0x74, 0xf9, // poll: pause; in al, dx; test al, 1; jz poll
    0xba, 0xf8, 0x03, 0, 0,             //         mov  edx, 0x3f8
    0xec, 0xee,                         //         in   al, dx; out dx, al
    0x3c, b'q', 0x74, 0x1a,             //         cmp  al, 'q'; je off
    0x3c, b'r', 0x74, 0x22,             //         cmp  al, 'r'; je reset
    0x3c, b't', 0x74, 0x27,             //         cmp  al, 't'; je triple
    0x3c, b'p', 0x75, 0xdd,             //         cmp  al, 'p'; jne listen
    0xba, 0x00, 0x06, 0, 0,             //         mov  edx, 0x600 (PM1 status)
    0xf3, 0x90, 0x66, 0xed,             // button: pause; in ax, dx
    0xf6, 0xc4, 1, 0x74, 0xf7,          //         test ah, 1; jz button
    0xba, 0x04, 0x06, 0, 0,             // off:    mov  edx, 0x604 (PM1 control)
    0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4, //   mov  ax, 0x3400; out dx, ax; hlt
    0xba, 0xf9, 0x0c, 0, 0,             // reset:  mov  edx, 0xcf9
    0xb0, 6, 0xee, 0xf4,                //         mov  al, 6; out dx, al; hlt
    0x0f, 0x01, 0x1d, 0x60, 0, 0x10, 0, // triple: lidt [nothing]
    0xcc,                               //         int3
    0, 0, 0, 0, 0, 0, 0, 0,             // nothing
    b't', b'i', b'n', b'y', b':', b' ', b'r', b'e', b'a', b'd', b'y', b'\n', 0, // hello
];
