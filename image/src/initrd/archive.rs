//! A cpio archive of the "newc" kind (Documentation/driver-api/early-userspace/buffer-format.rst), read as a stream of names.

use std::io::{self, BufRead};

/// One file of an archive; its content, if it was asked for.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) content: Option<Vec<u8>>,
}

/// Reads one archive behind its first six bytes up to its trailer, and tells `visit` each member; those that `wants` names come with
/// their content. `visit` ends the reading by `false`, which is also what is returned then.
pub(super) fn read_archive(
    stream: &mut dyn BufRead,
    wants: fn(&str) -> bool,
    visit: &mut dyn FnMut(Member) -> bool,
) -> io::Result<bool> {
    loop {
        let mut header = [0; HEADER - MAGIC];
        stream.read_exact(&mut header)?;
        let (size, name_size) = (field(&header, 6)?, field(&header, 11)?);
        if name_size == 0 || name_size > MAX_NAME {
            return Err(invalid("a file name in it is longer than any path"));
        }
        let mut name = vec![0; name_size as usize];
        stream.read_exact(&mut name)?;
        skip(stream, padding(HEADER as u64 + name_size))?;
        name.pop();
        let name = String::from_utf8_lossy(&name).into_owned();
        if name == TRAILER {
            skip(stream, size)?;
            return Ok(true);
        }
        let content = if wants(&name) && size <= MAX_CONTENT {
            let mut content = vec![0; size as usize];
            stream.read_exact(&mut content)?;
            Some(content)
        } else {
            skip(stream, size)?;
            None
        };
        skip(stream, padding(size))?;
        if !visit(Member { name, content }) {
            return Ok(false);
        }
        let mut magic = [0; MAGIC];
        stream.read_exact(&mut magic)?;
        if !is_archive(&magic) {
            return Err(invalid("a file in it does not begin where the one before ends"));
        }
    }
}

/// Whether an archive begins with these bytes.
pub(super) fn is_archive(start: &[u8]) -> bool {
    start.starts_with(b"070701") || start.starts_with(b"070702")
}

/// The hexadecimal field at `index`.
fn field(header: &[u8; HEADER - MAGIC], index: usize) -> io::Result<u64> {
    let text = header
        .get(index * 8..index * 8 + 8)
        .and_then(|raw| std::str::from_utf8(raw).ok());
    let value = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    value.ok_or_else(|| invalid("a file header in it is no hexadecimal number"))
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(4) - size
}

fn skip(stream: &mut dyn BufRead, mut count: u64) -> io::Result<()> {
    while count > 0 {
        let there = stream.fill_buf()?.len();
        if there == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let skipped = there.min(usize::try_from(count).unwrap_or(usize::MAX));
        stream.consume(skipped);
        count -= skipped as u64;
    }
    Ok(())
}

pub(super) fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

pub(super) const MAGIC: usize = 6;
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
const MAX_NAME: u64 = 4096;
const MAX_CONTENT: u64 = 1 << 20;
