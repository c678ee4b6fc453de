//! Real builds and imports: Debian from this host's archives, root, mkfs.erofs.
//!
//! Fails where that cannot be had; `CALLBOX_SKIP_IMAGE_TESTS=1` skips it.
#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use callbox_microvm::Progress;
use callbox_microvm::image::{
    BuildOptions, FindingKind, HOST_PACKAGES, Image, ImageError, ImageStore, Recipe, inspect,
};

#[derive(Default)]
struct Stages(Mutex<Vec<String>>);

impl Progress for Stages {
    fn stage(&self, name: &str) {
        self.0.lock().unwrap().push(name.into());
    }
}

/// A store that is gone after the test, or `None` where these tests are to be skipped.
fn store() -> Option<(tempfile::TempDir, ImageStore)> {
    if std::env::var_os("CALLBOX_SKIP_IMAGE_TESTS").is_some_and(|value| value == "1") {
        eprintln!("skipped: CALLBOX_SKIP_IMAGE_TESTS=1");
        return None;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "image tests need root; CALLBOX_SKIP_IMAGE_TESTS=1 skips them"
    );
    for program in ["mmdebstrap", "mkfs.erofs", "fsck.erofs"] {
        assert!(
            Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output()
                .unwrap()
                .status
                .success(),
            "image tests need {program} (apt-get install {}); CALLBOX_SKIP_IMAGE_TESTS=1 skips them",
            HOST_PACKAGES.join(" ")
        );
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    Some((dir, store))
}

fn tiny() -> Recipe {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images");
    Recipe::read(&images.join("tiny.toml")).unwrap()
}

/// The whole chain of an error: what people are shown.
fn told(error: &ImageError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// No build under way, no mount, nothing half made.
fn assert_nothing_left(data_dir: &Path) {
    let scratch = data_dir.join("images/.scratch");
    let left: Vec<PathBuf> = fs::read_dir(scratch)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(data_dir.to_str().unwrap()), "{mounts}");
}

fn extract(image: &Image, to: &Path) {
    let done = Command::new("fsck.erofs")
        .arg(format!("--extract={}", to.display()))
        .arg(&image.rootfs)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_recipe_becomes_an_image_once() {
    let Some((dir, store)) = store() else { return };
    let stages = Stages::default();
    let built = store
        .build(&tiny(), BuildOptions::default(), &stages)
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(!built.kept);
    assert!(stages.0.lock().unwrap().len() > 5);
    assert_nothing_left(dir.path());
    store.verify(&built.image).unwrap();
    check_report(&built.image);
    check_content(&built.image, dir.path());

    let started = Instant::now();
    let again = store.build(&tiny(), BuildOptions::default(), &()).unwrap();
    assert!(again.kept);
    assert_eq!(again.image, built.image);
    assert!(started.elapsed() < Duration::from_secs(5));

    refused_build_changes_nothing(&store, dir.path(), &built.image);
}

fn check_report(image: &Image) {
    let report = inspect(image);
    assert_eq!(report.findings, []);
    assert!(report.debian_packages.iter().any(|package| package.name == "libc6"));
    assert!(report.python_sources > 300, "{}", report.python_sources);
    assert_eq!(
        (image.config.uid, image.config.gid, image.config.cwd.as_str()),
        (1000, 1000, "/app")
    );
}

fn check_content(image: &Image, dir: &Path) {
    let root = dir.join("extracted");
    extract(image, &root);
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert!(text("etc/passwd").contains("\nbot:x:1000:1000:"));
    assert_eq!(fs::metadata(root.join("home/bot")).unwrap().uid(), 1000);
    assert!(root.join("app/http_bot.py").exists() && root.join("app/trouble/exits.py").exists());
    assert_ne!(fs::metadata(root.join("app/show.sh")).unwrap().mode() & 0o111, 0);
    assert!(root.join("usr/bin/python3").is_symlink());
    assert!(byte_code_of_json(&root), "no byte code");
    // What is about this host must not travel: where its packages come from, its name, its resolver.
    assert!(!root.join("etc/apt/sources.list.d").exists());
    assert!(!root.join("etc/apt/sources.list").exists());
    assert_eq!(text("etc/resolv.conf"), "");
    assert_eq!(text("etc/hostname"), "callbox\n");
    fs::remove_dir_all(root).unwrap();
}

fn byte_code_of_json(root: &Path) -> bool {
    fs::read_dir(root.join("usr/lib"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("json/__pycache__"))
        .any(|cache| cache.is_dir() && fs::read_dir(cache).unwrap().count() > 3)
}

fn refused_build_changes_nothing(store: &ImageStore, data_dir: &Path, kept: &Image) {
    let path = data_dir.join("bad.toml");
    fs::write(
        &path,
        "name = \"tiny\"\n[debian]\nsuite = \"host\"\npackages = [\"no-such-package-anywhere\"]\n",
    )
    .unwrap();
    let recipe = Recipe::read(&path).unwrap();
    let error = store.build(&recipe, BuildOptions::default(), &()).unwrap_err();
    assert!(error.to_string().contains("no-such-package-anywhere"), "{error}");
    assert_nothing_left(data_dir);
    assert_eq!(store.get("tiny").unwrap(), *kept);
}

/// A `docker save` archive with one layer.
fn docker_archive(to: &Path, user: &str) {
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, text: &str, uid: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mtime(1_700_000_000);
        layer.append_data(&mut header, path, text.as_bytes()).unwrap();
    };
    add(
        "etc/passwd",
        tar::EntryType::Regular,
        "root:x:0:0::/:/bin/sh\napp:x:77:78::/:/bin/sh\n",
        0,
    );
    add("srv", tar::EntryType::Directory, "", 77);
    add("srv/bot", tar::EntryType::Regular, "#!/bin/sh\n", 77);
    let layer = layer.into_inner().unwrap();
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&layer));
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{"Entrypoint":["/srv/bot"],"User":"{user}","WorkingDir":"/work"}},"rootfs":{{"diff_ids":["sha256:{digest}"]}}}}"#
    );
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["team/bot:latest"],"Layers":["layer.tar"]}]"#;
    let mut archive = tar::Builder::new(fs::File::create(to).unwrap());
    for (name, bytes) in [
        ("config.json", config.as_bytes()),
        ("layer.tar", layer.as_slice()),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn a_container_image_becomes_an_image() {
    let Some((dir, store)) = store() else { return };
    let archive = dir.path().join("bot.tar");
    docker_archive(&archive, "app");
    let image =
        store.import(&archive, "imported", &()).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(image.config.argv, ["/srv/bot"]);
    assert_eq!((image.config.uid, image.config.gid), (77, 78));
    let kinds: Vec<FindingKind> =
        inspect(&image).findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::FloatingTag]);

    let root = dir.path().join("extracted");
    extract(&image, &root);
    let bot = fs::metadata(root.join("srv/bot")).unwrap();
    assert_eq!((bot.uid(), bot.mtime(), bot.mode() & 0o777), (77, 1_700_000_000, 0o755));
    assert!(root.join("work").is_dir() && root.join("proc").is_dir());
    assert_nothing_left(dir.path());

    // The same archive gives the same bytes.
    assert_eq!(store.import(&archive, "again", &()).unwrap().digest, image.digest);
}

#[test]
fn a_bad_container_image_leaves_nothing_behind() {
    let Some((dir, store)) = store() else { return };
    let archive = dir.path().join("bot.tar");
    docker_archive(&archive, "nobody-knows");
    let error = told(&store.import(&archive, "a", &()).unwrap_err());
    assert!(error.contains("\"nobody-knows\""), "{error}");
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    let error = told(&store.import(&archive, "a", &()).unwrap_err());
    assert!(error.contains("bot.tar"), "{error}");
    assert_nothing_left(dir.path());
    assert_eq!(store.list().unwrap(), []);
}
