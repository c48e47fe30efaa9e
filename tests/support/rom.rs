//! A firmware of some hundred bytes: from the reset vector to flat 32-bit code, which tries what a board has for firmware.

use std::path::PathBuf;

use super::Vmm;

/// The variables that Debian's build begins with; the testbed has it installed.
pub(crate) const TEMPLATE: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// Where in the variables [`PROGRAMS`] and [`ONCE`] write: in the spare blocks, which are erased at first.
pub(crate) const PLACE: usize = 0x6_0000;

/// A file of `code`, which runs at 0xfffff000, as large as Debian's 4 MiB build is without its variables.
pub(crate) fn file(vmm: &Vmm, code: &[u8]) -> PathBuf {
    let mut image = vec![0xff; 0x37_c000];
    let end = image.len();
    image[end - 0x1000..][..code.len()].copy_from_slice(code);
    image[end - 0x100..][..STUB.len()].copy_from_slice(&STUB);
    image[end - 0xc0..][..TABLE.len()].copy_from_slice(&TABLE);
    image[end - 0x10..][..VECTOR.len()].copy_from_slice(&VECTOR);
    vmm.file("CODE.fd", &image)
}

/// Reads fw_cfg's signature to the console, says `_` where the flash is erased and `K` where it is programmed, programs `K`, says what it reads
/// then and `S` if the chip said that it was ready, and powers off.
#[rustfmt::skip]
pub(crate) const ONCE: [u8; 83] = [
    0x66, 0xb8, 0x10, 0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // mov ax, 0x10; mov ds, es, ss
    0x66, 0xba, 0x10, 0x05, 0x31, 0xc0, 0x66, 0xef, //      mov  dx, 0x510; xor eax, eax; out dx, ax
    0xb9, 4, 0, 0, 0,                   //                  mov  ecx, 4
    0x66, 0xba, 0x11, 0x05, 0xec,       // next:            mov  dx, 0x511; in al, dx
    0x66, 0xba, 0xf8, 0x03, 0xee,       //                  mov  dx, 0x3f8; out dx, al
    0xe2, 0xf4,                         //                  loop next
    0xbf, 0, 0, 0xc6, 0xff,             //                  mov  edi, 0xffc60000
    0x8a, 0x07, 0x0c, 0x40, 0x24, 0x5f, 0xee, //            mov  al, [edi]; or al, 0x40; and al, 0x5f; out dx, al
    0xc6, 0x07, 0x10, 0xc6, 0x07, b'K', //                  mov  byte [edi], 0x10; mov byte [edi], 'K'
    0x8a, 0x1f,                         //                  mov  bl, [edi]
    0xc6, 0x07, 0xff, 0x8a, 0x07, 0xee, //                  mov  byte [edi], 0xff; mov al, [edi]; out dx, al
    0x80, 0xfb, 0x80, 0x75, 3, 0xb0, b'S', 0xee, //         cmp  bl, 0x80; jne end; mov al, 'S'; out dx, al
    0xb0, b'\n', 0xee,                  // end:             mov  al, '\n'; out dx, al
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4, // mov dx, 0x604; mov ax, 0x3400; out dx, ax; hlt
];

/// Says `*`, programs byte after byte with the low bits of its address, and says `!` at the end.
#[rustfmt::skip]
pub(crate) const PROGRAMS: [u8; 43] = [
    0x66, 0xb8, 0x10, 0, 0x8e, 0xd8,    //       mov  ax, 0x10; mov ds, ax
    0xbf, 0, 0, 0xc6, 0xff,             //       mov  edi, 0xffc60000
    0x66, 0xba, 0xf8, 0x03, 0xb0, b'*', 0xee, // mov  dx, 0x3f8; mov al, '*'; out dx, al
    0xc6, 0x07, 0x10,                   // next: mov  byte [edi], 0x10
    0x89, 0xf8, 0x24, 0x7f, 0x88, 0x07, //       mov  eax, edi; and al, 0x7f; mov [edi], al
    0xc6, 0x07, 0xff, 0x47,             //       mov  byte [edi], 0xff; inc edi
    0x81, 0xff, 0, 0, 0xc8, 0xff, 0x75, 0xeb, // cmp  edi, 0xffc80000; jne next
    0xb0, b'!', 0xee, 0xf4,             //       mov  al, '!'; out dx, al; hlt
];

/// At 0xffffff00, in 16-bit code: `cli; lgdt cs:[0xff40]; or cr0, 1; jmp 8:0xfffff000`.
const STUB: [u8; 26] = [
    0xfa, 0x2e, 0x66, 0x0f, 0x01, 0x16, 0x40, 0xff, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0x66,
    0xea, 0x00, 0xf0, 0xff, 0xff, 0x08, 0x00, 0x90, 0x90,
];
/// At 0xffffff40: limit and address of the descriptors behind them, which are null, flat code, flat data.
const TABLE: [u8; 32] = [
    0x17, 0, 0x48, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, 0xff,
    0xff, 0, 0, 0, 0x93, 0xcf, 0,
];
/// At 0xfffffff0: `jmp 0xff00`.
const VECTOR: [u8; 3] = [0xe9, 0x0d, 0xff];
