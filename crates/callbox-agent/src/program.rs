//! Finding the bot's program and the things around it, before anything is started.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use callbox_protocol::agent::SessionData;

/// Where programs are looked for, unless the image says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of the bot: a few things every program expects, then what was asked for.
pub(crate) fn environment(asked: &BTreeMap<String, String>, uid: u32) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("HOME".to_owned(), home(uid)),
    ]);
    environment.extend(asked.iter().map(|(name, value)| (name.clone(), value.clone())));
    environment
}

/// Finds the program as a shell would. Says what is wrong if it is not there.
pub(crate) fn find(
    name: &str,
    environment: &BTreeMap<String, String>,
    cwd: &str,
) -> Result<PathBuf, String> {
    if !Path::new(cwd).is_dir() {
        return Err(format!("the working directory {cwd:?} does not exist in the machine"));
    }
    if name.contains('/') {
        let path = Path::new(cwd).join(name);
        return match fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => Err(format!("{name:?} is not a file")),
            Ok(_) if !is_executable(&path) => Err(format!("{name:?} is not executable")),
            Ok(_) => Ok(path),
            Err(error) => Err(format!("the program {name:?} cannot be started: {error}")),
        };
    }
    let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    path.split(':')
        .map(|directory| Path::new(cwd).join(directory).join(name))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| format!("there is no program {name:?} in the machine's PATH ({path})"))
}

/// Fills a `command` bot's template. The error names the placeholder that is not known.
pub(crate) fn fill(argv: &[String], session: &SessionData) -> Result<Vec<String>, String> {
    argv.iter().map(|word| fill_word(word, Some(session))).collect()
}

/// Checks a template without a session.
pub(crate) fn check(argv: &[String]) -> Result<(), String> {
    argv.iter().try_for_each(|word| fill_word(word, None).map(drop))
}

fn fill_word(word: &str, session: Option<&SessionData>) -> Result<String, String> {
    let mut filled = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        filled.push_str(before);
        // Braces around anything but a plain word are the bot's own, as in JSON.
        match from[1..].split_once('}').filter(|(name, _)| is_name(name)) {
            Some((name, after)) => {
                filled.push_str(&value(name, session)?);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &from[1..];
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn value(name: &str, session: Option<&SessionData>) -> Result<String, String> {
    type Field = fn(&SessionData) -> String;
    let field: Field = match name {
        "room_url" => |session| session.room_url.clone(),
        "token" => |session| session.token.clone(),
        "session_id" => |session| session.session_id.clone(),
        "incarnation" => |session| session.incarnation.to_string(),
        "bot" => |session| session.bot.clone(),
        "body" => |session| session.body.to_string(),
        _ => {
            return Err(format!(
                "the bot's command has the unknown placeholder {{{name}}}; there are \
                 {{room_url}}, {{token}}, {{session_id}}, {{incarnation}}, {{bot}} and {{body}}"
            ));
        }
    };
    Ok(session.map(field).unwrap_or_default())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn home(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2))?
    });
    home.filter(|home| !home.is_empty()).unwrap_or("/").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionData {
        SessionData {
            session_id: "s1".to_owned(),
            incarnation: 1,
            bot: "demo".to_owned(),
            transport: "daily".to_owned(),
            room_url: "https://x/{token}".to_owned(),
            token: "t".to_owned(),
            body: serde_json::json!({"a": 1}),
            env: BTreeMap::new(),
            longest_life_ms: None,
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn placeholders_are_filled_once_and_other_braces_stay() {
        let template =
            words(&["-u", "{room_url}", "--x={token}{bot}", "{\"k\": 1}", "{", "{body}"]);
        let filled = fill(&template, &session()).expect("a good template");
        let expected = ["-u", "https://x/{token}", "--x=tdemo", "{\"k\": 1}", "{", "{\"a\":1}"];
        assert_eq!(filled, expected);
    }

    #[test]
    fn unknown_placeholders_are_named() {
        let error = check(&words(&["{room_url}", "{romm}"])).expect_err("a bad template");
        assert!(error.contains("{romm}"), "{error}");
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let environment = environment(&BTreeMap::new(), 0);
        assert!(find("sh", &environment, "/").is_ok());
        assert!(find("./sh", &environment, "/bin").is_ok());
        for (name, cwd) in
            [("no-such-bot", "/"), ("/etc", "/"), ("/etc/passwd", "/"), ("sh", "/nowhere")]
        {
            let error = find(name, &environment, cwd).expect_err("not a program");
            assert!(error.contains(name) || error.contains(cwd), "{error}");
        }
    }
}
