//! A guest of 14 bytes that prints through a port, with the partition and vcpu crates alone. Needs only /dev/kvm.
//!
//! `cargo run -p pellucid-vcpu --example tiny_guest`

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use pellucid_partition::{Entry, GuestAddress, Inventory, PartitionSpec, PioHandler, Plan, StateDir};
use pellucid_vcpu::{ExitReason, Parked, VcpuPolicy};

/// A port that prints, and tells when a line is complete.
struct Printer(Sender<()>);

impl PioHandler for Printer {
    fn read(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _: u16, data: &[u8]) {
        // A closed terminal is no reason to stop the guest.
        let _ = std::io::stdout().write_all(data);
        if data.contains(&b'\n') {
            let _ = self.0.send(());
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("tiny-guest-{}", std::process::id()));
    let plan = Plan::fit(&Inventory::survey()?, &PartitionSpec::new("tiny", 1, 16 << 20)?)?;
    let partition = plan.reserve(&StateDir::at(&directory)?)?.populate(&|_| {})?;

    let (sender, line) = channel();
    let _port = partition
        .pio()
        .insert(0x3f8, 1, "printer", Arc::new(Printer(sender)))?;
    partition.memory().write(GuestAddress(0x7000), &GUEST)?;
    partition.memory().write(GuestAddress(0x7100), TEXT)?;

    let entry = Entry::Real {
        cs_base: GuestAddress(0x7000),
        ip: 0,
    };
    let parked = Parked::create(&partition, entry, &VcpuPolicy::default())?;
    let running = parked.run(|event| eprintln!("{event}"))?;
    line.recv_timeout(Duration::from_secs(10))?;
    let stopped = running.stop(Duration::from_secs(1))?;

    let exits = stopped.exits()[0];
    println!("{:?}", stopped.vcpus()[0].end());
    println!(
        "{} exits, {} of them to the port",
        exits.total(),
        exits.count(ExitReason::PioWrite)
    );
    partition.release()?;
    Ok(std::fs::remove_dir_all(directory)?)
}

const TEXT: &[u8] = b"Hello from a logical server.\n";

/// `mov si, 0x7100; mov cx, len; mov dx, 0x3f8; rep outsb; hlt; jmp $-1`
const GUEST: [u8; 14] = [
    0xbe,
    0x00,
    0x71,
    0xb9,
    TEXT.len() as u8,
    0x00,
    0xba,
    0xf8,
    0x03,
    0xf3,
    0x6e,
    0xf4,
    0xeb,
    0xfd,
];
