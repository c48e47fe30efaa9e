//! Words for what a function is by its class alone (PCI Code and ID Assignment Specification 1.11, chapter 1), short enough for a column.

/// What a function of `class` (24 bits) is.
pub(super) fn word(class: u32) -> &'static str {
    // The interface tells some that an administrator tells apart, too.
    let exact = match class {
        0x01_0601 => "SATA controller",
        0x01_0802 => "NVMe controller",
        0x0c_0320 => "USB 2 controller",
        0x0c_0330 => "USB 3 controller",
        0x0c_0340 => "USB 4 controller",
        _ => "",
    };
    if !exact.is_empty() {
        return exact;
    }
    match class >> 8 {
        0x0101 => "IDE controller",
        0x0104 => "RAID controller",
        0x0106 => "SATA controller",
        0x0107 => "SAS controller",
        0x0108 => "NVM controller",
        0x0200 => "Ethernet",
        0x0207 => "InfiniBand",
        0x0280 => "network",
        0x0300 => "VGA graphics",
        0x0302 => "3D accelerator",
        0x0380 => "display",
        0x0403 => "audio",
        0x0600 => "host bridge",
        0x0601 => "ISA bridge",
        0x0604 => "PCI bridge",
        0x0607 => "CardBus bridge",
        0x0700 => "serial port",
        0x0780 => "communication",
        0x0807 => "event collector",
        0x0c03 => "USB controller",
        0x0c04 => "Fibre Channel",
        0x0c05 => "SMBus",
        _ => base(class >> 16),
    }
}

fn base(class: u32) -> &'static str {
    match class {
        0x00 => "unclassified",
        0x01 => "storage",
        0x02 => "network",
        0x03 => "display",
        0x04 => "multimedia",
        0x05 => "memory controller",
        0x06 => "bridge",
        0x07 => "communication",
        0x08 => "system peripheral",
        0x09 => "input",
        0x0b => "processor",
        0x0c => "serial bus",
        0x0d => "wireless",
        0x10 => "encryption",
        0x11 => "signal processing",
        0x12 => "accelerator",
        0x13 => "instrumentation",
        _ => "unknown class",
    }
}
