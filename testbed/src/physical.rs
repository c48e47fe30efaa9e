//! The physical server as its owner knows it: switched on, it runs its firmware, the boot loader on its disk and
//! the system that the loader finds. Nothing of the testbed is in it; its serial port is all that leads out.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::console::{Console, ConsoleError};
use crate::l1::fault;
use crate::machine::{Boot, Chardev, Device, Disk, Machine, Place};
use crate::stale::{Signs, Watch};
use crate::{Fault, MachineError, Testbed};

/// The physical server, switched on. Switched off hard when this is dropped.
#[derive(Debug)]
pub struct PhysicalServer {
    emulator: Child,
    /// Ended before the emulator is.
    watch: Option<Watch>,
    folder: PathBuf,
}

/// The physical server did not start or did not go off as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhysicalError {
    /// The machine could not be described to the emulator.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Its serial port could not be opened.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// A file of the run could not be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was still on.
    #[error("the physical server is still on {} s after it was told to power off", limit.as_secs())]
    StillOn {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The emulator failed.
    #[error("the emulator of the physical server ended with {status}: {words}")]
    Emulator {
        /// How it ended.
        status: ExitStatus,
        /// Its last words.
        words: String,
        /// The fault of its own that these words tell of, if it is a known one.
        fault: Option<Fault>,
    },
}

impl PhysicalServer {
    /// The server of the demo: an NVMe controller at 01:00.0 with the image `disk`, which is written to, and an
    /// e1000e at 00:19.0. Starts nothing by itself: it is booted by firmware here and by `L1` as a host.
    pub fn machine(disk: &Path) -> Machine {
        Machine::bare()
            .device(Device::Nvme {
                place: Place::port(2),
                serial: "PELLUCID-BOOT".into(),
                disk: Disk::Kept(disk.to_owned()),
            })
            .device(Device::E1000e {
                place: Place::root(0x19),
            })
    }

    /// Switches it on with `disk` in it and returns it with its serial console. Whatever arrives on the console
    /// also goes to `copies` and to the log.
    ///
    /// # Errors
    /// The emulator does not start, or the firmware is not there.
    pub fn switch_on(
        testbed: &Testbed,
        disk: &Path,
        mut copies: Vec<Box<dyn Write + Send>>,
    ) -> Result<(PhysicalServer, Console), PhysicalError> {
        let folder = run_folder()?;
        let variables = folder.join("variables.fd");
        fs::copy(FIRMWARE_VARIABLES, &variables).of(FIRMWARE_VARIABLES)?;
        let (socket, debugger) = (folder.join("serial"), folder.join("debugger"));
        let machine = PhysicalServer::machine(disk)
            .memory_mib(MEMORY_MIB)
            .boot(Boot::Firmware {
                code: FIRMWARE_CODE.into(),
                variables,
            })
            .console(Chardev::Socket(socket.clone()))
            .debugger(&debugger);
        let log = folder.join(EMULATOR_LOG);
        let words = File::create(&log).of(&log)?;
        let console_log = folder.join(CONSOLE_LOG);
        copies.push(Box::new(File::create(&console_log).of(&console_log)?));
        let signs = Signs::new();
        copies.push(Box::new(signs.clone()));
        let mut command = machine.command(&testbed.emulator, &folder)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words);
        let emulator = command.spawn().of(&testbed.emulator.program)?;
        let server = PhysicalServer {
            emulator,
            watch: Some(Watch::start(debugger, signs)),
            folder,
        };
        let console = Console::connect(&socket, Duration::from_secs(20), copies)?;
        Ok((server, console))
    }

    /// Waits until the server has switched itself off. The emulator then ends with success.
    ///
    /// # Errors
    /// The server is still on after `limit`, or the emulator failed.
    pub fn wait_until_off(mut self, limit: Duration) -> Result<(), PhysicalError> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            match self.emulator.try_wait().of("the emulator")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let (words, fault) = (self.log(EMULATOR_LOG), self.fault());
                    return Err(PhysicalError::Emulator { status, words, fault });
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Err(PhysicalError::StillOn { limit })
    }

    /// The emulator's own fault that its log or the console tells of. Nothing of this project runs in the
    /// physical server, so whatever kills its kernel is such a fault.
    pub fn fault(&self) -> Option<Fault> {
        fault::in_logs(&self.log(EMULATOR_LOG), &self.log(CONSOLE_LOG))
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for PhysicalServer {
    /// The emulator first, then the folder that it uses.
    fn drop(&mut self) {
        self.watch = None;
        if matches!(self.emulator.try_wait(), Ok(None)) {
            // It may end by itself just now; then there is nothing left to kill.
            let _ = self.emulator.kill();
        }
        let _ = self.emulator.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl PhysicalError {
    /// The emulator's own fault behind this error, if it is one that is known.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            PhysicalError::Emulator { fault, .. } => *fault,
            _ => None,
        }
    }
}

/// Makes `io::Error`s name their file.
trait Subject<T> {
    fn of(self, path: impl Into<PathBuf>) -> Result<T, PhysicalError>;
}

impl<T> Subject<T> for io::Result<T> {
    fn of(self, path: impl Into<PathBuf>) -> Result<T, PhysicalError> {
        self.map_err(|source| PhysicalError::File {
            path: path.into(),
            source,
        })
    }
}

/// A folder with a short name, because the path of a Unix socket must be short.
fn run_folder() -> Result<PathBuf, PhysicalError> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("pellucid-physical.{}.{run}", std::process::id()));
    fs::create_dir_all(&folder).of(&folder)?;
    Ok(folder)
}

/// Debian's build of the UEFI firmware, and its empty variable store.
const FIRMWARE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

const MEMORY_MIB: u32 = 2048;
const EMULATOR_LOG: &str = "emulator.log";
const CONSOLE_LOG: &str = "console.log";
