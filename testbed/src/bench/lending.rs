//! `bench passthrough`: what lending costs, by the benches of the product, in the emulated server, which has the devices.

use std::time::Duration;

use crate::bench::BenchError;
use crate::l1::Stream;
use crate::{Job, L1, Machine, Progress, Testbed};

/// Builds the benches of lending, runs one after the other in one run of the emulated server, and hands on what each prints,
/// which is its table; `sink` gets the bytes of both streams.
///
/// # Errors
/// The server fails, or a bench does not build or ends with another status than 0.
pub fn lending(progress: Progress, mut sink: impl FnMut(Stream, &[u8])) -> Result<(), BenchError> {
    let testbed = Testbed::ready(progress)?;
    let benches = BENCHES.map(|(package, name)| crate::product::bench(package, name, progress));
    let step = progress.step("booting the emulated server");
    let mut l1 = L1::boot(&testbed, &Machine::standard())?;
    drop(step);
    for program in benches {
        let program = program?;
        // Times of an emulator compare within one run only, so nothing is kept for the next.
        let job = Job::new([
            &*program.to_string_lossy(),
            "--bench",
            "--discard-baseline",
            "--noplot",
        ])
        .folder("/tmp")
        .guard(GUARD);
        let mut said = Vec::new();
        let status = l1.run_with(&job, |stream, bytes| {
            if stream == Stream::Stderr {
                said.extend_from_slice(bytes);
            }
            sink(stream, bytes);
        })?;
        if status != 0 {
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            return Err(BenchError::Failed { status, said });
        }
    }
    Ok(())
}

/// Package and bench.
const BENCHES: [(&str, &str); 2] = [("pellucid-passthrough", "lent"), ("pellucid", "config_space")];
/// Some minutes are usual.
const GUARD: Duration = Duration::from_secs(1200);
