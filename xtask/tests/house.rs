//! The walls and rules of the house, as tests: who may depend on whom, how large a file may be,
//! which licences come in, and that ARCHITECTURE.md speaks of what is there.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata(args: &[&str]) -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(args)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Normal dependencies of every package of ours, by name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap().iter();
            let normal = all.filter(|dependency| dependency["kind"].is_null());
            (name(package), normal.map(name).collect())
        })
        .collect()
}

#[test]
fn the_walls_stand() {
    let all = dependencies();
    let ours = |name: &str| -> BTreeSet<&str> {
        all[name].iter().map(String::as_str).filter(|d| d.starts_with("callbox")).collect()
    };
    let expected = [
        ("callbox-core", vec![]),
        ("callbox-protocol", vec![]),
        ("callbox-fly", vec![]),
        ("callbox-link", vec!["callbox-protocol"]),
        ("callbox-agent", vec!["callbox-protocol"]),
        (
            "callbox-standins",
            vec!["callbox-fly", "callbox-link", "callbox-microvm", "callbox-protocol"],
        ),
        ("callbox-microvm", vec!["callbox-link", "callbox-protocol"]),
        ("callbox-transports", vec!["callbox-core"]),
        (
            "callbox-machines",
            vec![
                "callbox-core",
                "callbox-fly",
                "callbox-link",
                "callbox-microvm",
                "callbox-protocol",
            ],
        ),
        (
            "callbox-server",
            vec![
                "callbox-core",
                "callbox-link",
                "callbox-machines",
                "callbox-protocol",
                "callbox-transports",
            ],
        ),
    ];
    for (name, allowed) in expected {
        let found = ours(name);
        let allowed: BTreeSet<&str> = allowed.into_iter().collect();
        assert!(found.is_subset(&allowed), "{name} may depend on {allowed:?}, not on {found:?}");
    }
    for (name, found) in &all {
        if name != "callbox" && name != "callbox-sim" {
            assert!(!found.contains("callbox-server"), "{name} depends on callbox-server");
        }
        let sql = found.iter().any(|dependency| dependency.starts_with("sqlx"));
        assert!(!sql || name == "callbox-server", "{name} knows SQL");
    }
    let core: BTreeSet<&str> = all["callbox-core"].iter().map(String::as_str).collect();
    let allowed = BTreeSet::from(["serde_json", "thiserror", "uuid"]);
    assert!(core.is_subset(&allowed), "the core's dependencies are a fixed short list: {core:?}");
}

/// Only one module knows each of these.
#[test]
fn inner_walls_stand() {
    for (word, place) in [("sqlx::", "src/store/"), ("axum::Router", "src/api/")] {
        for (path, text) in sources(&root().join("crates/callbox-server/src")) {
            let inside = path.to_string_lossy().contains(place);
            assert!(inside || !text.contains(word), "{} uses {word}", path.display());
        }
    }
}

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules", "dist"].contains(&name.as_str()) {
            found.extend(sources(&path));
        } else if [".rs", ".py", ".ts"].iter().any(|ending| name.ends_with(ending)) {
            found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// Longer than this needs a reason; the list of reasons may only shrink.
const LINES: usize = 500;
const LONGER: &[(&str, &str)] = &[];

#[test]
fn files_are_rooms_and_not_halls() {
    let root = root();
    for dir in ["crates", "xtask", "bot", "bots", "web"] {
        for (path, text) in sources(&root.join(dir)) {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            let lines = text.lines().count();
            let excused = LONGER.iter().any(|(path, _)| *path == name);
            assert!(lines <= LINES || excused, "{name} has {lines} lines");
        }
    }
}

#[test]
fn architecture_speaks_of_what_is_there() {
    let root = root();
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for entry in std::fs::read_dir(root.join("crates")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(text.contains(&name), "ARCHITECTURE.md does not speak of crates/{name}");
    }
    let paths = text.split('`').skip(1).step_by(2).filter(|word| {
        ["crates/", "docs/", "bot/", "bots/", "images/", "web/", "xtask/"]
            .iter()
            .any(|start| word.starts_with(start))
            && !word.contains(['*', '<', '{', ' ', '…'])
    });
    for path in paths {
        assert!(root.join(path).exists(), "ARCHITECTURE.md names {path}, which is not there");
    }
}

/// Licences that an MIT OR Apache-2.0 program can be shipped with.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "Apache-2.0 WITH LLVM-exception",
    "bzip2-1.0.6",
];

#[test]
fn licences_that_come_in_are_known() {
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]);
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none stated").replace('/', " OR ");
        let fine = licence.split(" OR ").any(|choice| {
            choice
                .trim_matches(['(', ')', ' '])
                .split(" AND ")
                .all(|one| LICENCES.contains(&one.trim_matches(['(', ')', ' '])))
        });
        assert!(fine, "{name} has the licence {licence:?}");
    }
}

#[test]
fn nothing_names_this_machine() {
    let tracked = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    let words =
        [concat!("/work", "/main"), concat!("/ro", "ot/.cargo"), concat!("registry.", "npmjs")];
    for name in String::from_utf8_lossy(&tracked.stdout).lines() {
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        for word in words {
            assert!(!text.contains(word), "{name} names {word:?}");
        }
    }
}
