//! Firmware in place of a kernel: its files, who may use them, and what it is told of the machine.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pellucid_chipset::{FirmwareSpec, FlashStore, FwCfg};
use pellucid_image::{EfiProgram, FirmwareCode, FirmwareError, VariableStore};

use crate::error::VariablesError;
use crate::event::ServerEvent;
use crate::server::EventSink;

mod told;

pub(crate) use told::{Told, ecam_of_older_builds};

/// UEFI firmware as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareSource {
    /// Its code: an `OVMF_CODE` file.
    pub code: PathBuf,
    /// Where its variables are kept. A file that is not there is made from the template when the server starts. Without one the variables
    /// are forgotten when it ends.
    pub variables: Option<PathBuf>,
    /// An `OVMF_VARS` file, only read. If `None`, the one that is beside the code and named as it, with `VARS` for `CODE`.
    pub template: Option<PathBuf>,
    /// A file that it is to start first, as `\EFI\debian\shimx64.efi`.
    pub boot_file: Option<String>,
}

/// The files, read and found to go together. Nothing is held yet.
pub(crate) struct FirmwareFiles {
    pub(crate) code: FirmwareCode,
    /// What the variables are at first.
    store: VariableStore,
    variables: Option<PathBuf>,
    boot_file: Option<EfiProgram>,
}

/// Firmware with its variables, which are this server's alone.
pub(crate) struct FirmwareHeld {
    pub(crate) code: FirmwareCode,
    pub(crate) store: VariableStore,
    pub(crate) kept: Option<Kept>,
}

/// The file of variables, locked as long as this lives.
pub(crate) struct Kept {
    path: PathBuf,
    file: File,
    events: EventSink,
}

impl FirmwareSource {
    /// Reads the files; touches nothing.
    pub(crate) fn open(&self) -> Result<FirmwareFiles, VariablesError> {
        let code = FirmwareCode::open(&self.code)?;
        let boot_file = self.boot_file.as_deref().map(EfiProgram::new).transpose()?;
        let known = self.variables.as_deref().filter(|path| path.exists());
        let path = match known {
            Some(path) => {
                // Tried and given up again: whoever has it is told of now, not when memory has been populated.
                drop(lock(path)?);
                path.to_owned()
            }
            None => {
                if let Some(path) = &self.variables {
                    has_folder(path)?;
                }
                self.template()?
            }
        };
        let store = read(&path, &code)?;
        Ok(FirmwareFiles {
            code,
            store,
            variables: self.variables.clone(),
            boot_file,
        })
    }

    /// Where the first variables come from.
    fn template(&self) -> Result<PathBuf, VariablesError> {
        if let Some(template) = &self.template {
            return Ok(template.clone());
        }
        let name = self.code.file_name().unwrap_or_default().to_string_lossy();
        let sibling = self.code.with_file_name(name.replacen("CODE", "VARS", 1));
        match name.contains("CODE") && sibling.exists() {
            true => Ok(sibling),
            false => Err(VariablesError::NoTemplate {
                code: self.code.clone(),
            }),
        }
    }
}

impl FirmwareFiles {
    /// Makes the file of variables if there is none, and holds it. The boot file is first in its boot order then.
    pub(crate) fn hold(self, events: &EventSink) -> Result<FirmwareHeld, VariablesError> {
        let mut store = self.store;
        let mut kept = None;
        if let Some(path) = self.variables {
            if !path.exists() {
                create(&path, store.bytes()).map_err(failed(&path, "made"))?;
            }
            let file = lock(&path)?;
            // Somebody may have used it since it was looked at.
            store = read(&path, &self.code)?;
            kept = Some(Kept {
                path,
                file,
                events: events.clone(),
            });
        }
        if let Some(boot_file) = &self.boot_file {
            let writes = store.boot_first(boot_file)?;
            if let Some(kept) = &mut kept {
                let done = writes.iter().try_for_each(|write| {
                    kept.file.keep(write.offset, &write.data)?;
                    kept.file.settle()
                });
                done.map_err(failed(&kept.path, "written"))?;
            }
        }
        Ok(FirmwareHeld {
            code: self.code,
            store,
            kept,
        })
    }
}

impl FirmwareHeld {
    /// The firmware as the board has it, told of the machine by `fw_cfg`.
    pub(crate) fn spec(self, fw_cfg: Arc<FwCfg>) -> FirmwareSpec {
        FirmwareSpec {
            code: self.code.bytes().to_vec(),
            variables: self.store.bytes().to_vec(),
            store: self.kept.map(|kept| Box::new(kept) as _),
            fw_cfg,
            debug: None,
        }
    }
}

impl Kept {
    /// Passes on what happened, and tells the server's owner if it failed.
    fn tell(&self, done: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &done {
            (self.events)(ServerEvent::VariablesLost {
                path: self.path.clone(),
                cause: error.to_string(),
            });
        }
        done
    }
}

impl FlashStore for Kept {
    fn keep(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let done = self.file.keep(offset, data);
        self.tell(done)
    }

    fn settle(&mut self) -> io::Result<()> {
        let done = self.file.settle();
        self.tell(done)
    }
}

/// A store that goes with the code.
fn read(path: &Path, code: &FirmwareCode) -> Result<VariableStore, VariablesError> {
    let store = VariableStore::open(path)?;
    let size = store.bytes().len() as u64;
    if size == code.store_size() {
        return Ok(store);
    }
    Err(VariablesError::Firmware(FirmwareError::OtherBuild {
        path: path.to_owned(),
        size,
        code: code.bytes().len() as u64,
        wanted: code.store_size(),
    }))
}

/// Opens a file of variables for this process alone.
fn lock(path: &Path) -> Result<File, VariablesError> {
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(failed(path, "opened"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(VariablesError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(path, "locked")(source)),
    }
}

/// Makes `path` with these bytes, whole or not at all. One that has come into being meanwhile stays as it is.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = File::create(&new)?;
    let made = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| match fs::hard_link(&new, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    let removed = fs::remove_file(&new);
    made.and(removed)?;
    folder(path).and_then(|folder| File::open(folder)?.sync_all())
}

/// The folder that a file is in.
fn folder(path: &Path) -> io::Result<PathBuf> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(match parent.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => parent.to_owned(),
    })
}

fn has_folder(path: &Path) -> Result<(), VariablesError> {
    let found = folder(path).and_then(fs::metadata);
    found.map(drop).map_err(failed(path, "made"))
}

fn failed(path: &Path, act: &'static str) -> impl FnOnce(io::Error) -> VariablesError {
    let path = path.to_owned();
    move |source| VariablesError::File { path, act, source }
}
