//! SIGTERM, SIGINT and SIGHUP as a counter, SIGCONT as a flag, and something to wait on for all of them.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::{SIGCONT, SIGHUP, SIGINT, SIGTERM, c_int, c_void, siginfo_t};
use vmm_sys_util::signal::register_signal_handler;

use crate::wake::Wake;

/// Requests to stop, from the system or a person.
pub(crate) struct Requests {
    seen: u32,
    wake: &'static Wake,
}

impl Requests {
    /// Listens from here on, once in a process.
    pub(crate) fn listen() -> io::Result<Self> {
        let fresh = Wake::new()?;
        let wake = WAKE.get_or_init(|| fresh);
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            register_signal_handler(signal, note).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        }
        register_signal_handler(SIGCONT, go_on).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        Ok(Self { seen: 0, wake })
    }

    /// What to wait on.
    pub(crate) fn wake(&self) -> &'static Wake {
        self.wake
    }

    /// Counts a request that a person made at the console.
    pub(crate) fn ask(&self) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether SIGCONT came since the last call.
    pub(crate) fn goes_on(&self) -> bool {
        GO_ON.swap(false, Ordering::Relaxed)
    }

    /// How many requests there are in all, if one came since the last call.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.wake().hush();
        let now = COUNT.load(Ordering::Relaxed);
        let news = now != self.seen;
        self.seen = now;
        news.then_some(now)
    }
}

/// Only a counter and one write(2): both may be done in a signal handler.
extern "C" fn note(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    if let Some(wake) = WAKE.get() {
        wake.ring();
    }
}

/// As above.
extern "C" fn go_on(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    GO_ON.store(true, Ordering::Relaxed);
    if let Some(wake) = WAKE.get() {
        wake.ring();
    }
}

static GO_ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU32 = AtomicU32::new(0);
static WAKE: OnceLock<Wake> = OnceLock::new();
