//! The guest's clock between its runs: how far it was set from the host's, in a file if one is named.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Seconds that the guest's clock is ahead of the host's.
pub(crate) struct Clock {
    offset: i64,
    file: Option<PathBuf>,
    unsaved: bool,
    saved: Option<Instant>,
}

impl Clock {
    /// The offset that the file has; none while there is no file.
    pub(crate) fn open(file: Option<&Path>) -> io::Result<Self> {
        let text = file.map(fs::read_to_string);
        let offset = match (text, file) {
            (Some(Ok(text)), Some(path)) => text.trim().parse().map_err(|_| unreadable(path))?,
            (Some(Err(error)), Some(path)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::new(
                    error.kind(),
                    format!(
                        "{}: {error}; name a file with --rtc-offset that this user may read",
                        path.display()
                    ),
                ));
            }
            _ => 0,
        };
        Ok(Self {
            offset,
            file: file.map(Path::to_owned),
            unsaved: false,
            saved: None,
        })
    }

    pub(crate) fn offset(&self) -> i64 {
        self.offset
    }

    /// Keeps an offset: at once the first time, then at most once a second, since a guest may set its clock all the time.
    pub(crate) fn keep(&mut self, offset: i64) {
        self.unsaved |= offset != self.offset;
        self.offset = offset;
        if self.patience() == Some(Duration::ZERO) {
            self.flush();
        }
    }

    /// How long until [`Clock::keep`] has something to write.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let since = self.saved.map_or(PACE, |saved| saved.elapsed());
        self.unsaved.then(|| PACE.saturating_sub(since))
    }

    /// Writes what is not written yet. An offset that cannot be written is kept for the next run of this process, and said.
    pub(crate) fn flush(&mut self) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        self.saved = Some(Instant::now());
        if let Some(path) = &self.file
            && let Err(error) = replace(path, self.offset)
        {
            tell!(
                "vmm: {}: the guest's clock cannot be kept: {error}\r",
                path.display()
            );
        }
    }
}

/// Whatever happens meanwhile, the file has the old offset or the new one.
fn replace(path: &Path, offset: i64) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    writeln!(file, "{offset}")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

const PACE: Duration = Duration::from_secs(1);

fn unreadable(path: &Path) -> io::Error {
    let text = format!(
        "{}: no offset of a clock, which is a number of seconds; remove the file to start with the host's time",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use super::*;

    #[test]
    fn an_offset_outlives_the_process_that_noted_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db1.rtc");
        let mut clock = Clock::open(Some(&path)).unwrap();
        assert_eq!((clock.offset(), path.exists()), (0, false));
        clock.keep(0);
        assert!(!path.exists(), "nothing was set");
        clock.keep(-7200);
        assert_eq!(Clock::open(Some(&path)).unwrap().offset(), -7200);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no half-written file is left"
        );
        let mut unnamed = Clock::open(None).unwrap();
        unnamed.keep(5);
        assert_eq!(unnamed.offset(), 5);
    }

    #[test]
    fn a_guest_that_sets_its_clock_all_the_time_costs_one_write_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        let mut clock = Clock::open(Some(&path)).unwrap();
        assert_eq!(clock.patience(), None);
        (1..=1000).for_each(|offset| clock.keep(offset));
        let written: i64 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        assert!(written < 1000, "{written}");
        assert!(clock.patience().is_some_and(|patience| patience <= PACE));
        clock.flush();
        assert_eq!(
            (fs::read_to_string(&path).unwrap().trim(), clock.patience()),
            ("1000", None)
        );
    }

    #[test]
    fn a_file_that_says_something_else_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        fs::write(&path, "noon").unwrap();
        let refusal = Clock::open(Some(&path)).err().unwrap().to_string();
        assert!(
            refusal.contains("clock") && refusal.contains("seconds"),
            "{refusal}"
        );
        assert!(Clock::open(Some(folder.path())).is_err());
    }
}
