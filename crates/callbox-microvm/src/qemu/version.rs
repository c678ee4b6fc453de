//! Which QEMU this host has.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// Oldest QEMU whose `x-ignore-shared` and `microvm` this crate was written for.
const OLDEST: (u32, u32) = (5, 2);

/// A QEMU that was found and asked for its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// Absolute path of the binary.
    pub path: PathBuf,
    /// Everything behind `QEMU emulator version `, the distribution's own number included: a
    /// template belongs to exactly one build.
    pub version: String,
}

impl Qemu {
    /// Finds `program` (a path, or a name in `PATH`) and asks for its version. Blocks for some
    /// 10 ms.
    ///
    /// # Errors
    /// When it is not there, cannot be run or is too old.
    pub fn find(program: &Path) -> Result<Qemu, Error> {
        let name = program.display().to_string();
        let path = look_up(program, env::var_os("PATH").as_deref()).ok_or_else(|| {
            Error::tool(&name)(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "it is not installed; hint: on Debian, `apt-get install qemu-system-x86`",
            ))
        })?;
        let output = Command::new(&path)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(Error::tool(&name))?;
        if !output.status.success() {
            return Err(Error::tool_failed(&name, &output));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (version, number) = parse(&text).ok_or_else(|| {
            Error::Unusable(format!("{name:?} does not say its version as qemu does: {text:?}"))
        })?;
        if number < OLDEST {
            let (major, minor) = OLDEST;
            return Err(Error::Unusable(format!(
                "qemu {version} is too old: templates need {major}.{minor}"
            )));
        }
        Ok(Qemu { path, version })
    }
}

fn parse(text: &str) -> Option<(String, (u32, u32))> {
    let version = text.lines().next()?.strip_prefix("QEMU emulator version ")?.trim();
    let mut numbers = version.split(['.', ' ']).map(str::parse);
    Some((version.to_owned(), (numbers.next()?.ok()?, numbers.next()?.ok()?)))
}

/// The first executable of this name in `path`; a program with a slash is itself.
pub(crate) fn look_up(program: &Path, path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let runs = |candidate: &PathBuf| {
        rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok() && candidate.is_file()
    };
    if program.components().count() > 1 {
        return program.canonicalize().ok().filter(runs);
    }
    env::split_paths(path?).map(|directory| directory.join(program)).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_version_counts_and_its_number_is_compared() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright\n";
        let (version, number) = parse(text).expect("parsed");
        assert_eq!(version, "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)");
        assert_eq!(number, (7, 2));
        assert_eq!(parse("something else"), None);
    }

    #[test]
    fn a_missing_qemu_is_named_with_a_hint() {
        let error = Qemu::find(Path::new("no-such-qemu")).expect_err("missing");
        let text = crate::error::chain(&error);
        assert!(text.contains("no-such-qemu") && text.contains("hint"), "{text}");
    }
}
