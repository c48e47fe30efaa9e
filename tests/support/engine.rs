//! A kernel of 290 bytes that drives the DMA engine of `examples/vfio_user_device` at 00:01.0, and then does what some letters say.

use super::tiny;

/// The kernel: it has the engine copy a text into its memory and out again, awaits vector 0 of MSI-X, and says the copy.
///
/// On its console: `d` says whether the engine is there, `e` injects an error, `w` asks for the device back, `q` powers off.
pub(crate) fn kernel() -> Vec<u8> {
    tiny::file(&[&CODE[..], TEXTS].concat())
}

pub(crate) const GREETING: &str = "copied and signalled\n";
/// At the end of the code, where it looks for them.
const TEXTS: &[u8] = b"copied and signalled\n\0 here\n\0 gone\n\0";
#[rustfmt::skip]
const CODE: [u8; 254] = [
    0xbc, 0x00, 0x00, 0x09, 0x00,                                  // start:  mov esp, 0x90000
    0xbd, 0x00, 0x08, 0x00, 0x80,                                  //         mov ebp, 0x80000800
    0x8d, 0x45, 0x04,                                              //         lea eax, [ebp+4]
    0xe8, 0xd5, 0x00, 0x00, 0x00,                                  //         call pick
    0x6a, 0x06,                                                    //         push 6
    0x58,                                                          //         pop eax
    0xef,                                                          //         out dx, eax
    0x8d, 0x45, 0x10,                                              //         lea eax, [ebp+0x10]
    0xe8, 0xc9, 0x00, 0x00, 0x00,                                  //         call pick
    0xed,                                                          //         in eax, dx
    0x89, 0xc3,                                                    //         mov ebx, eax
    0x8d, 0x45, 0x20,                                              //         lea eax, [ebp+0x20]
    0xe8, 0xbe, 0x00, 0x00, 0x00,                                  //         call pick
    0xed,                                                          //         in eax, dx
    0xc7, 0x00, 0x00, 0x00, 0xe0, 0xfe,                            //         mov [eax], 0xfee00000
    0x83, 0x60, 0x04, 0x00,                                        //         and [eax+4], 0
    0xc7, 0x40, 0x08, 0x41, 0x00, 0x00, 0x00,                      //         mov [eax+8], 0x41
    0x83, 0x60, 0x0c, 0x00,                                        //         and [eax+12], 0
    0x8d, 0x45, 0x40,                                              //         lea eax, [ebp+0x40]
    0xe8, 0xa0, 0x00, 0x00, 0x00,                                  //         call pick
    0xb8, 0x00, 0x00, 0x00, 0x80,                                  //         mov eax, 0x80000000
    0xef,                                                          //         out dx, eax
    0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00,    //         mov [0xfee000f0], 0x1ff
    0xc7, 0x03, 0xfe, 0x00, 0x10, 0x00,                            //         mov [ebx], text
    0xc7, 0x43, 0x10, 0x15, 0x00, 0x00, 0x00,                      //         mov [ebx+0x10], 21
    0xc7, 0x43, 0x18, 0x01, 0x00, 0x00, 0x00,                      //         mov [ebx+0x18], 1
    0xf3, 0x90,                                                    // irr:    pause
    0xf6, 0x05, 0x20, 0x02, 0xe0, 0xfe, 0x02,                      //         test [0xfee00220], 2
    0x74, 0xf5,                                                    //         jz irr
    0x83, 0x23, 0x00,                                              //         and [ebx], 0
    0xc7, 0x43, 0x08, 0x00, 0x00, 0x20, 0x00,                      //         mov [ebx+8], 0x200000
    0xc7, 0x43, 0x14, 0x01, 0x00, 0x00, 0x00,                      //         mov [ebx+0x14], 1
    0xc7, 0x43, 0x18, 0x01, 0x00, 0x00, 0x00,                      //         mov [ebx+0x18], 1
    0xbe, 0x00, 0x00, 0x20, 0x00,                                  //         mov esi, 0x200000
    0xe8, 0x58, 0x00, 0x00, 0x00,                                  //         call say
    0xba, 0xfd, 0x03, 0x00, 0x00,                                  // listen: mov edx, 0x3fd
    0xf3, 0x90,                                                    // poll:   pause
    0xec,                                                          //         in al, dx
    0xa8, 0x01,                                                    //         test al, 1
    0x74, 0xf9,                                                    //         jz poll
    0xba, 0xf8, 0x03, 0x00, 0x00,                                  //         mov edx, 0x3f8
    0xec,                                                          //         in al, dx
    0xee,                                                          //         out dx, al
    0x3c, 0x71,                                                    //         cmp al, 'q'
    0x74, 0x2c,                                                    //         je off
    0x6a, 0x01,                                                    //         push 1
    0x59,                                                          //         pop ecx
    0x3c, 0x65,                                                    //         cmp al, 'e'
    0x74, 0x20,                                                    //         je inject
    0x41,                                                          //         inc ecx
    0x3c, 0x77,                                                    //         cmp al, 'w'
    0x74, 0x1b,                                                    //         je inject
    0x3c, 0x64,                                                    //         cmp al, 'd'
    0x75, 0xd9,                                                    //         jne listen
    0xbe, 0x14, 0x01, 0x10, 0x00,                                  //         mov esi, here
    0x83, 0x7b, 0x1c, 0xff,                                        //         cmp [ebx+0x1c], -1
    0x75, 0x05,                                                    //         jne tell
    0xbe, 0x1b, 0x01, 0x10, 0x00,                                  //         mov esi, gone
    0xe8, 0x1c, 0x00, 0x00, 0x00,                                  // tell:   call say
    0xeb, 0xc2,                                                    //         jmp listen
    0x89, 0x4b, 0x20,                                              // inject: mov [ebx+0x20], ecx
    0xeb, 0xbd,                                                    //         jmp listen
    0xba, 0x04, 0x06, 0x00, 0x00,                                  // off:    mov edx, 0x604
    0x66, 0xb8, 0x00, 0x34,                                        //         mov ax, 0x3400
    0x66, 0xef,                                                    //         out dx, ax
    0xf4,                                                          //         hlt
    0xba, 0xf8, 0x0c, 0x00, 0x00,                                  // pick:   mov edx, 0xcf8
    0xef,                                                          //         out dx, eax
    0xb2, 0xfc,                                                    //         mov dl, 0xfc
    0xc3,                                                          //         ret
    0xba, 0xf8, 0x03, 0x00, 0x00,                                  // say:    mov edx, 0x3f8
    0xac,                                                          // next:   lodsb
    0x84, 0xc0,                                                    //         test al, al
    0x74, 0x03,                                                    //         jz said
    0xee,                                                          //         out dx, al
    0xeb, 0xf8,                                                    //         jmp next
    0xc3,                                                          // said:   ret
];
