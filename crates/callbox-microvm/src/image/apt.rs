//! The host's own apt configuration, so that no archive's address stands in this project.
//!
//! Both forms of sources are read (one line per source, and deb822) and written out again as
//! deb822, restricted to the recipe's suite with its `-updates` and `-security`. Sources
//! without a component `main` are left out: they are other people's add-ons.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::ImageError;
use super::error::io;
use super::program::Program;

/// Stands in a recipe for the suite that this host runs.
const HOST: &str = "host";

/// The suite that a recipe means.
pub(super) fn suite(said: &str) -> Result<String, ImageError> {
    if said != HOST {
        return Ok(said.into());
    }
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).map_err(io("read", path))?;
    codename(&text).ok_or_else(|| ImageError::Unfit {
        reason: "the recipe's suite is \"host\", but /etc/os-release has no VERSION_CODENAME"
            .into(),
    })
}

fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let value = value.trim().trim_matches('"');
    (!value.is_empty()).then(|| value.into())
}

/// The sources of this host for one suite, as the text of a `.sources` file.
pub(super) fn sources(suite: &str) -> Result<String, ImageError> {
    let mut all = Vec::new();
    for file in source_files(Path::new("/etc/apt"))? {
        let text = fs::read_to_string(&file).map_err(io("read", &file))?;
        all.extend(match file.extension().is_some_and(|ext| ext == "sources") {
            true => parse_deb822(&text),
            false => parse_lines(&text),
        });
    }
    select(&all, suite)
}

/// What apt must be told about fetching: proxies, certificates, retries, and where the
/// credentials of the host are.
pub(super) fn options() -> Result<String, ImageError> {
    const KEPT: [&str; 9] = [
        "Acquire::http::",
        "Acquire::https::",
        "Acquire::ForceIPv",
        "Acquire::Retries ",
        "Acquire::Check-",
        "Acquire::Max-FutureTime ",
        "Acquire::AllowInsecureRepositories ",
        "Acquire::AllowWeakRepositories ",
        "APT::Sandbox::User ",
    ];
    let dump = Program::find("apt-config", "apt", "reading the host's apt configuration")?
        .args(["dump"])
        .run(&[])?;
    let mut kept: String = dump
        .lines()
        .filter(|line| {
            KEPT.iter().any(|prefix| line.starts_with(prefix)) && !line.ends_with(" \"\";")
        })
        .map(|line| format!("{line}\n"))
        .collect();
    kept.push_str("Dir::Etc::netrc \"/etc/apt/auth.conf\";\n");
    kept.push_str("Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n");
    Ok(kept)
}

/// One source: the fields of a deb822 stanza.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    uris: String,
    suites: Vec<String>,
    components: Vec<String>,
    /// All other fields, as they were (`Signed-By` may hold a whole key over many lines).
    rest: Vec<(String, String)>,
}

fn source_files(etc: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let mut files = Vec::new();
    let main = etc.join("sources.list");
    if main.is_file() {
        files.push(main);
    }
    let parts = etc.join("sources.list.d");
    if parts.is_dir() {
        for entry in fs::read_dir(&parts).map_err(io("read", &parts))? {
            let path = entry.map_err(io("read", &parts))?.path();
            if path.extension().is_some_and(|ext| ext == "list" || ext == "sources") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn parse_deb822(text: &str) -> Vec<Entry> {
    let mut stanzas = vec![Vec::<(String, String)>::new()];
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanzas.last_mut().and_then(|stanza| stanza.last_mut()) {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((field, value)) = line.split_once(':') {
            let field = (field.trim().to_owned(), value.trim().to_owned());
            stanzas.last_mut().map(|stanza| stanza.push(field)).unwrap_or_default();
        }
    }
    stanzas.into_iter().filter_map(entry_of_stanza).collect()
}

fn entry_of_stanza(stanza: Vec<(String, String)>) -> Option<Entry> {
    let mut entry = Entry::default();
    let mut binary = false;
    for (field, value) in stanza {
        let words = || value.split_whitespace().map(str::to_owned).collect();
        match field.to_ascii_lowercase().as_str() {
            "types" => binary = value.split_whitespace().any(|kind| kind == "deb"),
            "enabled" if matches!(value.as_str(), "no" | "false" | "0") => return None,
            "enabled" => {}
            "uris" => entry.uris = value,
            "suites" => entry.suites = words(),
            "components" => entry.components = words(),
            _ => entry.rest.push((field, value)),
        }
    }
    binary.then_some(entry)
}

/// `deb [option=value …] URI SUITE COMPONENT…`
fn parse_lines(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Entry {
        uris: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        rest: options.split_whitespace().filter_map(option_field).collect(),
    })
}

/// The deb822 field of an option such as `signed-by=/path` or `arch+=i386`.
fn option_field(option: &str) -> Option<(String, String)> {
    let (name, value) = option.split_once('=')?;
    let (name, suffix) = match name.strip_suffix('+') {
        Some(name) => (name, "-Add"),
        None => match name.strip_suffix('-') {
            Some(name) => (name, "-Remove"),
            None => (name, ""),
        },
    };
    let field = match name {
        "arch" => "Architectures",
        "lang" => "Languages",
        "target" => "Targets",
        "signed-by" => "Signed-By",
        "trusted" => "Trusted",
        "check-valid-until" => "Check-Valid-Until",
        "check-date" => "Check-Date",
        "by-hash" => "By-Hash",
        "pdiffs" => "PDiffs",
        other => other,
    };
    let value = value.replace(',', " ");
    Some((format!("{field}{suffix}"), value))
}

/// The entries for `suite`, written out.
fn select(all: &[Entry], suite: &str) -> Result<String, ImageError> {
    let wanted = ["", "-updates", "-security", "/updates"].map(|end| format!("{suite}{end}"));
    let mut text = String::new();
    let mut base = false;
    for entry in all {
        let suites: Vec<&String> =
            entry.suites.iter().filter(|offered| wanted.contains(offered)).collect();
        if suites.is_empty() || !entry.components.iter().any(|component| component == "main") {
            continue;
        }
        base |= suites.iter().any(|offered| *offered == suite);
        let suites = suites.iter().map(|offered| offered.as_str()).collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "Types: deb\nURIs: {}\nSuites: {suites}", entry.uris);
        let _ = writeln!(text, "Components: {}", entry.components.join(" "));
        for (field, value) in &entry.rest {
            let _ = writeln!(text, "{field}: {value}");
        }
        text.push('\n');
    }
    if base {
        return Ok(text);
    }
    let known: BTreeSet<String> = all.iter().flat_map(|entry| entry.suites.clone()).collect();
    Err(ImageError::NoAptSource { suite: suite.into(), known: known.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DEB822: &str = "\
# a comment
Types: deb deb-src
URIs: http://archive.test/debian
Suites: bookworm bookworm-updates trixie
# another
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://addon.test
Suites: bookworm
Components: stable

Types: deb
Enabled: no
URIs: http://off.test
Suites: bookworm
Components: main
";

    #[test]
    fn deb822_sources_are_restricted_to_the_suite() {
        let text = select(&parse_deb822(DEB822), "bookworm").unwrap();
        assert_eq!(
            text,
            "Types: deb\nURIs: http://archive.test/debian\nSuites: bookworm bookworm-updates\n\
             Components: main contrib\nSigned-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n"
        );
    }

    #[test]
    fn one_line_sources_keep_their_options() {
        let text = "deb [arch=amd64,i386 signed-by=/k.gpg] http://a.test/debian bookworm main # here\n\
                    deb-src http://a.test/debian bookworm main\n\
                    # deb http://b.test bookworm main\n\
                    deb http://a.test/security bookworm-security main\n";
        assert_eq!(
            select(&parse_lines(text), "bookworm").unwrap(),
            "Types: deb\nURIs: http://a.test/debian\nSuites: bookworm\nComponents: main\n\
             Architectures: amd64 i386\nSigned-By: /k.gpg\n\n\
             Types: deb\nURIs: http://a.test/security\nSuites: bookworm-security\nComponents: main\n\n"
        );
    }

    #[test]
    fn the_hosts_suite_is_its_codename() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"").as_deref(), Some("trixie"));
        assert_eq!(codename("ID=other"), None);
        assert_eq!(suite("sid").unwrap(), "sid");
    }

    #[test]
    fn a_suite_that_the_host_lacks_is_refused_by_name() {
        let error = select(&parse_deb822(DEB822), "sid").unwrap_err().to_string();
        assert!(error.contains("\"sid\"") && error.contains("trixie"), "{error}");
    }
}
