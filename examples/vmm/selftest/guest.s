# The selftest's guest: 32-bit protected mode, flat, no paging (the PVH entry state), loaded at 1 MiB.
# It prints a line for each thing that worked and powers off. Assembled into guest.bin; a test keeps the two equal:
#   as --32 -o guest.o guest.s && ld -m elf_i386 -Ttext 0x100000 -e 0x100000 --oformat binary -o guest.bin guest.o
        .intel_syntax noprefix
        .code32
        .set    COM1, 0x3f8
        .set    PROBE_PORT, 0x500          # reads back what was written, inverted
        .set    PROBE, 0xc0000000          # MMIO: +0 reads back inverted, +4 raises the interrupt
        .set    IOAPIC, 0xfec00000
        .set    LAPIC, 0xfee00000
        .set    PIN, 5
        .set    VECTOR, 0x40
        .set    IDT, 0x6000
        .set    COUNTS, 0x7000             # +0 interrupts taken, +4 second vCPU's mark
        .set    TRAMPOLINE, 0x8000
        .text
        lgdt    [gdtr]                     # a GDT of its own: interrupts return through it
        .att_syntax
        ljmp    $0x8, $flat
        .intel_syntax noprefix
flat:   mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, 0x7ff0
        xor     eax, eax
        mov     [COUNTS], eax
        mov     [COUNTS+4], eax

        mov     dx, PROBE_PORT             # an I/O port
        mov     eax, 0x1234abcd
        out     dx, eax
        in      eax, dx
        cmp     eax, ~0x1234abcd
        jne     fail
        mov     esi, offset pio
        call    print

        mov     dword ptr [PROBE], 0x5aa50ff0   # memory-mapped I/O
        mov     eax, [PROBE]
        cmp     eax, ~0x5aa50ff0
        jne     fail
        mov     esi, offset mmio
        call    print

        mov     eax, offset isr            # an interrupt through the I/O APIC
        mov     word ptr [IDT+VECTOR*8], ax
        mov     word ptr [IDT+VECTOR*8+2], cs
        mov     word ptr [IDT+VECTOR*8+4], 0x8e00
        shr     eax, 16
        mov     word ptr [IDT+VECTOR*8+6], ax
        lidt    [idtr]
        mov     al, 0xff                   # nothing through the PICs
        out     0x21, al
        out     0xa1, al
        mov     dword ptr [LAPIC+0xf0], 0x1ff
        mov     dword ptr [IOAPIC], 0x10+2*PIN+1
        mov     dword ptr [IOAPIC+0x10], 0
        mov     dword ptr [IOAPIC], 0x10+2*PIN
        mov     dword ptr [IOAPIC+0x10], VECTOR
        mov     dword ptr [PROBE+4], 1
wait:   cli
        cmp     dword ptr [COUNTS], 0
        jne     taken
        sti
        hlt
        jmp     wait
taken:  mov     esi, offset irq
        call    print

        mov     esi, offset second         # a second vCPU
        mov     edi, TRAMPOLINE
        mov     ecx, offset second_end - second
        cld
        rep     movsb
        mov     dword ptr [LAPIC+0x310], 0x01000000
        mov     dword ptr [LAPIC+0x300], 0x00004500
        mov     dword ptr [LAPIC+0x310], 0x01000000
        mov     dword ptr [LAPIC+0x300], 0x00004600 + (TRAMPOLINE >> 12)
        mov     ecx, 5000000
spin:   cmp     dword ptr [COUNTS+4], 0x600d
        je      seen
        pause
        dec     ecx
        jnz     spin
        jmp     fail
seen:   mov     esi, offset vcpu
        call    print
off:    mov     dx, 0x604                  # ACPI S5
        mov     ax, 0x3400
        out     dx, ax
stop:   cli
        hlt
        jmp     stop

fail:   mov     esi, offset bad
        call    print
        jmp     off

print:  mov     dx, COM1+5
ready:  in      al, dx
        test    al, 0x20
        jz      ready
        lodsb
        test    al, al
        jz      done
        mov     dx, COM1
        out     dx, al
        jmp     print
done:   ret

isr:    inc     dword ptr [COUNTS]         # goes back by a jump: a KVM that emulates instructions has no IRET here
        mov     dword ptr [LAPIC+0xb0], 0
        add     esp, 12
        jmp     wait

        .code16                            # real mode, cs = TRAMPOLINE >> 4
second: xor     ax, ax
        mov     ds, ax
        mov     word ptr [COUNTS+4], 0x600d
halt:   cli
        hlt
        jmp     halt
second_end:
        .code32
        .balign 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .word   gdtr-gdt-1
        .long   gdt
idtr:   .word   VECTOR*8+7
        .long   IDT
pio:    .asciz  "pio ok\n"
mmio:   .asciz  "mmio ok\n"
irq:    .asciz  "interrupt ok\n"
vcpu:   .asciz  "second vcpu ok\n"
bad:    .asciz  "failed\n"
