//! Takes two CPUs and 512 MiB of this host, works on them, and gives everything back.
//!
//! `cargo run -p pellucid-partition --example reserve`; needs /dev/kvm and two CPUs.

use std::error::Error;

use pellucid_partition::{CpuRequest, GuestAddress, Inventory, PartitionSpec, Plan, StateDir};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

const SHARE: u64 = 256 << 20;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let inventory = Inventory::survey()?;
    let cpus: Vec<usize> = inventory.usable_cpus().map(|cpu| cpu.id).take(2).collect();
    let spec = PartitionSpec::on("example", CpuRequest::list(cpus)?, 2 * SHARE)?.dedicated();
    let plan = Plan::fit(&inventory, &spec)?;
    println!(
        "planned: CPUs {:?}, RAM at {:x?}",
        plan.pinned(),
        plan.layout().ram()
    );

    let directory = std::env::temp_dir().join(format!("pellucid-example-{}", std::process::id()));
    let state = StateDir::at(&directory)?;
    let partition = plan.reserve(&state)?.populate(&|_| {})?;
    for (record, held) in state.records()? {
        println!("held: {} by {} ({held})", record.resource, record.partition);
    }

    let memory = partition.memory();
    let work = |number: usize, cpu: usize| -> Outcome<usize> {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only)?;
        for page in (0..SHARE).step_by(4096) {
            memory.write(GuestAddress(number as u64 * SHARE + page), &[number as u8 + 1])?;
        }
        Ok(sched_getcpu())
    };
    std::thread::scope(|scope| {
        let pinned = partition.plan().pinned().iter().enumerate();
        let threads: Vec<_> = pinned
            .map(|(n, &cpu)| scope.spawn(move || work(n, cpu)))
            .collect();
        for thread in threads {
            let ran_on = thread.join().map_err(|_| "a worker panicked")??;
            println!("worked: {} MiB on CPU {ran_on}", SHARE >> 20);
        }
        Outcome::Ok(())
    })?;

    partition.release()?;
    println!("given back: {} claims left", state.records()?.len());
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
