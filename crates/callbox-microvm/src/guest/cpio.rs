//! The `newc` archive that the kernel unpacks into its first root.
//!
//! Written by hand because the format is one header: 6 bytes of magic, 13 fields of 8 hex digits,
//! the name with its zero byte, the data; name and data padded to 4 bytes. Two archives of the
//! same entries are the same bytes (no times, no owners), so their digest says what is in them.

use std::io::{self, Write};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// An archive in the making. Without [`Archive::finish`] the kernel rejects it.
pub struct Archive<W> {
    to: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// Starts an archive that is written to `to`.
    pub fn new(to: W) -> Archive<W> {
        Archive { to, entries: 0 }
    }

    /// Adds a directory; its parents must have been added before. `path` has no leading slash.
    ///
    /// # Errors
    /// When writing fails.
    pub fn directory(&mut self, path: &str, permissions: u32) -> io::Result<()> {
        self.entry(path, DIRECTORY | permissions, &[])
    }

    /// Adds a regular file with these contents (less than 4 GiB).
    ///
    /// # Errors
    /// When writing fails or the contents are too long for the format.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | permissions, contents)
    }

    /// Writes the trailer and gives the writer back.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let size = u32::try_from(contents.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::FileTooLarge, format!("{path:?} does not fit into newc"))
        })?;
        // The trailer, too, counts as an entry; number 0 would be a hard link to nothing.
        self.entries += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let name_size = path.len() + 1;
        write!(self.to, "070701")?;
        #[rustfmt::skip]
        let fields = [
            self.entries, mode, 0, 0, links, 0, size,
            0, 0, 0, 0, u32::try_from(name_size).unwrap_or(u32::MAX), 0,
        ];
        for field in fields {
            write!(self.to, "{field:08x}")?;
        }
        self.to.write_all(path.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(HEADER + name_size)?;
        self.to.write_all(contents)?;
        self.pad(contents.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        let zeros = [0_u8; 3];
        self.to.write_all(&zeros[..(4 - written % 4) % 4])
    }
}

/// Length of a header in bytes.
const HEADER: usize = 6 + 13 * 8;

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.directory("modules", 0o755).expect("write");
        archive.file("init", 0o755, b"#!x").expect("write");
        archive.file("modules/000-a.ko", 0o644, b"12345").expect("write");
        archive.finish().expect("write")
    }

    #[test]
    fn the_layout_is_newc() {
        let bytes = sample();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        // The directory: inode 1, mode 040755, no data, a name of 8 bytes with its zero.
        assert_eq!(&bytes[6..14], b"00000001");
        assert_eq!(&bytes[14..22], b"000041ed");
        assert_eq!(&bytes[54..62], b"00000000");
        assert_eq!(&bytes[94..102], b"00000008");
        assert_eq!(&bytes[110..118], b"modules\0");
        // 110 + 8 padded to 120, then the next header.
        assert_eq!(&bytes[120..126], b"070701");
        assert_eq!(bytes, sample(), "the same entries must be the same bytes");
    }

    #[test]
    fn cpio_itself_reads_it() {
        let Ok(mut child) = Command::new("cpio")
            .args(["-t", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("not checked against cpio: the program is not installed");
            return;
        };
        child.stdin.take().expect("piped").write_all(&sample()).expect("write");
        let output = child.wait_with_output().expect("cpio ran");
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "modules\ninit\nmodules/000-a.ko\n");
    }
}
