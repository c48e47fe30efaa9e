//! A logical server by the facade alone: check, start, watch, finish.
//!
//! `cargo run --example logical_server -- BZIMAGE [INITRD]` boots a kernel with one vCPU and 256 MiB, prints what its serial
//! console says, and ends when the guest powers off.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;

use pellucid::partition::{PartitionSpec, StateDir};
use pellucid::{Console, EventSink, ProgressSink, ServerEvent, ServerSpec, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let kernel = arguments
        .next()
        .ok_or("give a kernel: logical_server BZIMAGE [INITRD]")?;
    let command_line = "console=ttyS0 panic=-1".to_owned();
    let spec = ServerSpec {
        cpu: pellucid::CpuPolicy::default(),
        partition: PartitionSpec::new("example", 1, 256 << 20)?,
        source: Source::Kernel {
            kernel,
            initrd: arguments.next(),
            command_line,
        },
        smbios: pellucid::SmbiosPolicy::default(),
        clock_offset: 0,
        devices: Vec::new(),
        machine: None,
    };

    // Nothing is touched yet, and a refusal says what would help.
    let state = StateDir::standard()?;
    let checked = spec.examine(&state)?.accept()?;

    let (sender, events) = channel();
    let sink: EventSink = Arc::new(move |event| drop(sender.send(event)));
    let console = Console {
        output: Box::new(std::io::stdout()),
        wake: Box::new(|| ()),
    };
    let progress: ProgressSink = Arc::new(|_step, _progress| ());
    let server = checked.start(&state, console, &sink, &progress)?;
    let end = events.recv()?;
    let exits = server.finish()?;

    let total: u64 = exits.iter().map(pellucid::vcpu::ExitCounts::total).sum();
    println!("ended with {end:?} after {total} exits");
    if end == ServerEvent::PowerOff {
        Ok(())
    } else {
        Err("the guest did not power off".into())
    }
}
