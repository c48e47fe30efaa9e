//! Which kernel modules initrds have.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use super::archive::{MAGIC, Member, invalid, is_archive, read_archive};
use super::compression::Compression;
use crate::kernel::SourceFile;

/// The kernel modules in the initrds of one kernel, found by reading their lists of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitrdModules {
    /// Modules by name, with `_` for `-`.
    modules: BTreeSet<String>,
    /// What `modules.builtin` lists; `None` when there is no such file.
    built_in: Option<BTreeSet<String>>,
    /// Why not all was read.
    unread: Option<String>,
}

/// Whether a driver will be there when the kernel looks for its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The initrd has its module.
    Module,
    /// It is built into the kernel.
    BuiltIn,
    /// It is nowhere.
    Missing,
    /// The initrd does not tell: it has no modules, or it could not be read to its end.
    Unknown,
}

impl InitrdModules {
    /// Reads the initrds of a kernel, in their order, until the drivers `enough` are found or all is read.
    ///
    /// Reads at most 1 GiB, decompressed bytes included, for at most 20 seconds, through 128 KiB of buffers and a decoder's window of at most
    /// 130 MiB. What cannot be read is no error: [`InitrdModules::unread`] says so.
    #[must_use]
    pub fn survey(initrds: &mut [SourceFile<'_>], enough: &[&str]) -> Self {
        let mut found = Self::default();
        let budget = Budget {
            bytes: Cell::new(MAX_BYTES),
            files: Cell::new(MAX_FILES),
            until: Instant::now() + PATIENCE,
        };
        for initrd in initrds {
            initrd.rewind();
            let name = initrd.name().to_owned();
            let mut file = budget.buffered(initrd);
            match found.read_all(&mut file, enough, &budget) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    found.unread = Some(format!("{name}: {error}"));
                    break;
                }
            }
        }
        found
    }

    /// Whether the driver `name` will be there.
    #[must_use]
    pub fn presence(&self, name: &str) -> Presence {
        match &self.built_in {
            _ if self.modules.contains(name) => Presence::Module,
            Some(built_in) if built_in.contains(name) => Presence::BuiltIn,
            _ if self.unread.is_some() || self.modules.is_empty() => Presence::Unknown,
            Some(_) => Presence::Missing,
            // Whether the kernel has it is told nowhere.
            None => Presence::Unknown,
        }
    }

    fn has(&self, name: &str) -> bool {
        matches!(self.presence(name), Presence::Module | Presence::BuiltIn)
    }

    /// Why not all of the initrds was read; `None` when it was, or when enough was found.
    #[must_use]
    pub fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// Reads the archives of one file, one behind the other; `false` when enough was found.
    fn read_all(&mut self, file: &mut dyn BufRead, enough: &[&str], budget: &Budget) -> io::Result<bool> {
        while let Some(start) = next(file)? {
            let goes_on = if is_archive(&start) {
                self.read_one(file, enough, budget)?
            } else {
                let compression = Compression::of(&start);
                let compression =
                    compression.ok_or_else(|| invalid("it is no initrd that a kernel unpacks"))?;
                let mut whole = (&start[..]).chain(&mut *file);
                let inner = compression
                    .decoder(&mut whole)
                    .and_then(|decoder| self.read_inner(&mut budget.buffered(decoder), enough, budget));
                inner.map_err(|error| named(compression, &error))?
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The archives inside a compressed stretch.
    fn read_inner(&mut self, inner: &mut dyn BufRead, enough: &[&str], budget: &Budget) -> io::Result<bool> {
        while let Some(start) = next(inner)? {
            if !is_archive(&start) {
                return Err(invalid("there is no archive in it"));
            }
            if !self.read_one(inner, enough, budget)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_one(&mut self, stream: &mut dyn BufRead, enough: &[&str], budget: &Budget) -> io::Result<bool> {
        let visit = &mut |member: Member| {
            self.add(&member);
            budget.files.set(budget.files.get().saturating_sub(1));
            let has_enough = !enough.is_empty() && enough.iter().all(|name| self.has(name));
            budget.files.get() > 0 && !has_enough
        };
        let goes_on = read_archive(stream, |name| name.ends_with(BUILT_IN), visit)?;
        if budget.files.get() == 0 {
            return Err(invalid("it has more files than any initrd"));
        }
        Ok(goes_on)
    }

    fn add(&mut self, member: &Member) {
        let Some((_, path)) = member.name.rsplit_once("lib/modules/") else {
            return;
        };
        if let Some(content) = &member.content {
            let list = String::from_utf8_lossy(content);
            let names = list.lines().filter_map(module_name);
            self.built_in
                .get_or_insert_default()
                .extend(names.take(MAX_MODULES));
        } else if let Some(name) = module_name(path)
            && self.modules.len() < MAX_MODULES
        {
            self.modules.insert(name);
        }
    }
}

/// `nvme_core` of `kernel/drivers/nvme/host/nvme-core.ko.xz`.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, end) = file.split_once(".ko")?;
    matches!(end, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

/// The first six bytes of the next archive, behind the zeros that the kernel passes over; `None` at the end.
fn next(stream: &mut dyn BufRead) -> io::Result<Option<[u8; MAGIC]>> {
    loop {
        let buffer = stream.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let all = buffer.len();
        if ZEROS.get(..all) == Some(buffer) {
            stream.consume(all);
            continue;
        }
        let zeros = buffer.iter().take_while(|&&byte| byte == 0).count();
        stream.consume(zeros);
        if zeros < all {
            let mut start = [0; MAGIC];
            stream.read_exact(&mut start)?;
            return Ok(Some(start));
        }
    }
}

fn named(compression: Compression, error: &io::Error) -> io::Error {
    let text = match compression {
        Compression::Other(name) => format!("it is compressed by {name}, which is not looked into"),
        known => format!("as {known:?}: {error}"),
    };
    io::Error::new(error.kind(), text)
}

/// What may still be read, compressed and decompressed bytes alike.
struct Budget {
    bytes: Cell<u64>,
    files: Cell<u64>,
    until: Instant,
}

impl Budget {
    fn buffered<'b, S: Read + 'b>(&'b self, stream: S) -> BufReader<Bounded<'b, S>> {
        let budget = self;
        BufReader::with_capacity(BUFFER, Bounded { stream, budget })
    }
}

/// A stream that fails when more is read than the budget has, or for longer.
struct Bounded<'b, S> {
    stream: S,
    budget: &'b Budget,
}

impl<S: Read> Read for Bounded<'_, S> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.bytes.get();
        if left == 0 && !data.is_empty() {
            return Err(invalid("it has, or unpacks to, more than 1 GiB"));
        }
        // What costs much for few bytes, such as tables for blocks of nothing, is bounded by nothing else.
        if Instant::now() >= self.budget.until {
            return Err(invalid("it takes longer than 20 seconds to unpack"));
        }
        let most = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.stream.read(&mut data[..most])?;
        self.budget.bytes.set(left - count as u64);
        Ok(count)
    }
}

const BUILT_IN: &str = "/modules.builtin";
const BUFFER: usize = 64 << 10;
static ZEROS: [u8; BUFFER] = [0; BUFFER];
/// Initrds with the firmware of graphics cards come to half of it.
const MAX_BYTES: u64 = 1 << 30;
/// Near thirty times what a full one takes.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_FILES: u64 = 200_000;
const MAX_MODULES: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_given_up() {
        let budget = Budget {
            bytes: Cell::new(MAX_BYTES),
            files: Cell::new(MAX_FILES),
            until: Instant::now(),
        };
        let mut found = InitrdModules::default();
        let mut file = budget.buffered(&b"070701"[..]);
        let error = found.read_all(&mut file, &[], &budget).unwrap_err().to_string();
        assert_eq!(error, "it takes longer than 20 seconds to unpack");
    }
}
