//! Writes a cpio archive of the "newc" kind, as kernels unpack an initramfs from.
//! Owners, times and inode numbers are fixed, so equal content gives equal bytes.

/// An archive under construction.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// An empty archive.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a folder; the folders above it must have been added before.
    pub(crate) fn folder(&mut self, path: &str) -> &mut Self {
        self.member(path, 0o040_755, (0, 0), &[])
    }

    /// Adds a regular file.
    pub(crate) fn file(&mut self, path: &str, executable: bool, content: &[u8]) -> &mut Self {
        self.member(
            path,
            if executable { 0o100_755 } else { 0o100_644 },
            (0, 0),
            content,
        )
    }

    /// Adds a symbolic link to `target`.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.member(path, 0o120_777, (0, 0), target.as_bytes())
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, numbers: (u32, u32)) -> &mut Self {
        self.member(path, 0o020_600, numbers, &[])
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.member("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn member(&mut self, path: &str, mode: u32, numbers: (u32, u32), content: &[u8]) -> &mut Self {
        self.inode += 1;
        let name = path.trim_start_matches('/');
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            numbers.0,
            numbers.1,
            name_length,
            0,
        ]
        .map(|value| format!("{value:08x}"));
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend_from_slice(fields.concat().as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
        self
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn members_are_aligned_and_the_trailer_ends_the_archive() {
        let mut archive = Archive::new();
        archive.folder("dev").file("dev/x", false, b"abc");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }

    #[test]
    fn equal_content_gives_equal_bytes() {
        let build = || {
            let mut archive = Archive::new();
            archive
                .folder("bin")
                .link("bin/sh", "busybox")
                .device("console", (5, 1));
            archive.finish()
        };
        assert_eq!(build(), build());
    }

    #[test]
    fn another_reader_of_the_format_lists_the_members() {
        let Some(busybox) = crate::setup::program::find("busybox") else {
            eprintln!("not run: no busybox to read the archive with");
            return;
        };
        let mut archive = Archive::new();
        archive
            .folder("bin")
            .file("bin/busybox", true, b"12345")
            .link("bin/sh", "busybox");
        let mut child = Command::new(busybox)
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let listed = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(listed, "bin\nbin/busybox\nbin/sh\n");
    }
}
