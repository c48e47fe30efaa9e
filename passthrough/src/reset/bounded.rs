//! An act with an end: what has not come back in time goes on in a thread of its own, alone.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// What became of an act.
pub(super) enum Outcome<T> {
    Ended(T),
    Late,
}

/// Runs `act` for at most `limit`. A reset hangs in the kernel, not in a loop of ours, so there is nothing to break it off with.
pub(super) fn bounded<T, F>(limit: Duration, act: F) -> Outcome<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = sync_channel(1);
    let run = move || {
        // Nobody may be waiting any more.
        let _ = sender.send(act());
    };
    let spawned = thread::Builder::new()
        .name("reset".to_owned())
        .stack_size(STACK)
        .spawn(run);
    // A machine that has no room for a thread does not prove a device either.
    let Ok(thread) = spawned else { return Outcome::Late };
    match receiver.recv_timeout(limit) {
        Ok(ended) => {
            // It has nothing left to do, so it is gone at once.
            let _gone = thread.join();
            Outcome::Ended(ended)
        }
        Err(_) => Outcome::Late,
    }
}

const STACK: usize = 256 << 10;
