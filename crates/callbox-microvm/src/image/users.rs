//! Users of an image: reading `/etc/passwd`, and adding the bot's.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use super::error::io;
use super::{ImageError, tree};

/// Name of the user that recipe images get for the bot.
pub(super) const BOT: &str = "bot";
/// Its user and group id.
pub(super) const BOT_ID: u32 = 1000;

/// Adds the user `bot` with a home directory, unless the name is taken.
pub(super) fn add_bot(root: &Path) -> Result<(), ImageError> {
    if find_user(&read(root, "etc/passwd")?, BOT).is_some() {
        return Ok(());
    }
    append(root, "etc/group", &format!("{BOT}:x:{BOT_ID}:\n"))?;
    append(root, "etc/passwd", &format!("{BOT}:x:{BOT_ID}:{BOT_ID}::/home/{BOT}:/bin/sh\n"))?;
    let home = root.join("home").join(BOT);
    fs::create_dir_all(&home).map_err(io("create", &home))?;
    tree::set_mode(&home, 0o755)?;
    chown(&home, Some(BOT_ID), Some(BOT_ID)).map_err(io("change the owner of", &home))
}

/// User and group id that `user` means in the image at `root`: a name or a number, with
/// `:group` (a name or a number) behind it or not; empty means root.
pub(super) fn resolve(root: &Path, user: &str) -> Result<(u32, u32), ImageError> {
    let passwd = read(root, "etc/passwd")?;
    let group = read(root, "etc/group")?;
    resolve_in(&passwd, &group, user).map_err(|reason| ImageError::Unfit { reason })
}

fn resolve_in(passwd: &str, groups: &str, user: &str) -> Result<(u32, u32), String> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let (uid, own_gid) = match (name, name.parse::<u32>()) {
        ("", _) => (0, 0),
        (_, Ok(uid)) => (uid, find_gid_of(passwd, uid).unwrap_or(0)),
        (name, Err(_)) => find_user(passwd, name)
            .ok_or_else(|| format!("user \"{name}\" is not in the image's /etc/passwd"))?,
    };
    let gid = match group {
        None | Some("") => own_gid,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => find_group(groups, group)
                .ok_or_else(|| format!("group \"{group}\" is not in the image's /etc/group"))?,
        },
    };
    Ok((uid, gid))
}

/// `name:x:uid:gid:…`
fn find_user(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

fn find_gid_of(passwd: &str, uid: u32) -> Option<u32> {
    let uid = uid.to_string();
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.as_str()))?;
    fields.get(3)?.parse().ok()
}

/// `name:x:gid:…`
fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)?
        .get(2)?
        .parse()
        .ok()
}

/// The file's text. Missing is empty: an image from scratch has no users. Links are not
/// followed, they might lead to the host's files.
fn read(root: &Path, file: &str) -> Result<String, ImageError> {
    let path = root.join(file);
    let etc = root.join("etc");
    let plain = fs::symlink_metadata(&etc).is_ok_and(|meta| meta.is_dir())
        && fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
    if !plain {
        return Ok(String::new());
    }
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn append(root: &Path, file: &str, line: &str) -> Result<(), ImageError> {
    let text = read(root, file)? + line;
    let path = root.join(file);
    fs::write(&path, text).map_err(io("write", &path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\napp:x:1001:2002::/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nmedia:x:3003:app\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let cases = [
            ("", (0, 0)),
            ("app", (1001, 2002)),
            ("1001", (1001, 2002)),
            ("app:media", (1001, 3003)),
            ("1234", (1234, 0)),
            ("1234:77", (1234, 77)),
            (":media", (0, 3003)),
        ];
        for (user, ids) in cases {
            assert_eq!(resolve_in(PASSWD, GROUP, user), Ok(ids), "{user:?}");
        }
    }

    #[test]
    fn unknown_names_are_named() {
        let error = resolve_in(PASSWD, GROUP, "nobody-here").unwrap_err();
        assert!(error.contains("\"nobody-here\""), "{error}");
        let error = resolve_in(PASSWD, GROUP, "app:ghosts").unwrap_err();
        assert!(error.contains("\"ghosts\""), "{error}");
    }
}
