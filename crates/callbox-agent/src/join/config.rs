//! What a joining agent is told: its arguments, its file, and what the image says of the bot.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use callbox_protocol::join::{JOIN_FILE, Join};

use crate::boot::RUN_DIR;
use crate::complain;
use crate::place::Image;

const USAGE: &str = "usage: callbox-agent join [--config FILE] [-- PROGRAM [ARGUMENT…]]";

/// The file to read, and the image's words for its bot.
pub(super) fn arguments(arguments: &[OsString]) -> io::Result<(PathBuf, Vec<String>)> {
    let own = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    let (options, rest) = arguments.split_at(own);
    let file = match options {
        [] => PathBuf::from(JOIN_FILE),
        [flag, file] if flag == "--config" => PathBuf::from(file),
        _ => return Err(io::Error::other(USAGE)),
    };
    let argv = rest.iter().skip(1).map(|word| {
        let text = word.to_str().map(str::to_owned);
        text.ok_or_else(|| io::Error::other(format!("{} is not UTF-8", word.display())))
    });
    Ok((file, argv.collect::<io::Result<_>>()?))
}

/// Reads the file, and takes it away: the bot is no party to it. A provider that starts the machine
/// again puts it back.
pub(super) fn take(path: &Path) -> io::Result<Join> {
    let said = |what: &str, error: &dyn std::fmt::Display| {
        io::Error::other(format!("{what} {}: {error}", path.display()))
    };
    let text = fs::read(path).map_err(|error| said("cannot read", &error))?;
    // Only where it is wrong: serde's own message can quote the token.
    let join = serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        said("cannot use", &format!("not what was expected at line {line}, column {column}"))
    })?;
    if let Err(error) = fs::remove_file(path) {
        // A file system that is read-only protects the bot's host no less.
        complain(&format!("{} stays: {error}", path.display()));
    }
    Ok(join)
}

/// What the bot is run with where the dispatcher says nothing.
pub(super) fn image(argv: Vec<String>) -> io::Result<Image> {
    let text = |text: OsString| text.into_string().ok();
    let env = env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    let cwd = env::current_dir()?;
    let cwd = cwd.to_str().ok_or_else(|| io::Error::other("the working directory is not UTF-8"))?;
    Ok(Image { argv, env: env.collect(), cwd: cwd.to_owned() })
}

/// Where the bot finds its files: the usual place, or one that an unprivileged agent may write.
pub(super) fn run_dir() -> io::Result<PathBuf> {
    let usual = PathBuf::from(RUN_DIR);
    if fs::create_dir_all(&usual).is_ok()
        && rustix::fs::access(&usual, rustix::fs::Access::WRITE_OK).is_ok()
    {
        return Ok(usual);
    }
    let own = env::temp_dir().join("callbox");
    fs::create_dir_all(&own)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_images_words_come_after_two_dashes() {
        let (file, argv) = arguments(&words(&["--", "python3", "bot.py", "--x"])).expect("good");
        assert_eq!((file, argv.len()), (PathBuf::from(JOIN_FILE), 3));
        let (file, argv) = arguments(&words(&["--config", "/x"])).expect("good");
        assert_eq!((file, argv.len()), (PathBuf::from("/x"), 0));
        for bad in [&["python3"][..], &["--config"], &["--config", "a", "b"]] {
            assert!(arguments(&words(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_is_taken_once_and_never_quoted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("join.json");
        fs::write(&path, r#"{"url":"http://x","machine":"m","token":"s3cret"}"#).expect("written");
        let error = take(&path).expect_err("half of it is missing").to_string();
        assert!(!error.contains("s3cret") && error.contains("line 1"), "{error}");
        let good =
            r#"{"url":"u","machine":"m","token":"t","orphan_ms":1,"stop_grace_ms":2,"new":3}"#;
        fs::write(&path, good).expect("written");
        assert_eq!(take(&path).expect("good").orphan_ms, 1);
        assert!(!path.exists());
    }
}
