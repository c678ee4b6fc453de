//! Layers and archives made by hand, honest and hostile. Entries belong to whoever runs the
//! tests, so that no rights are needed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::blobs::Blobs;
use super::layer::Layers;
use super::layout::{self, Unusable};
use super::rooted::Rooted;

/// A tar archive under construction.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Tar {
        Tar(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Tar {
        let mut header = Header::new_gnu();
        // Written raw: the library refuses to make the hostile paths that are tested here.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(if kind == EntryType::Directory { 0o750 } else { 0o640 });
        header.set_mtime(1_000_000);
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Tar {
        self.entry(EntryType::Regular, path, "", content.as_bytes())
    }

    fn dir(self, path: &str) -> Tar {
        self.entry(EntryType::Directory, path, "", b"")
    }

    fn link(self, path: &str, target: &str) -> Tar {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn unpack(root: &Path, layers: &[Vec<u8>]) -> std::io::Result<()> {
    let rooted = Rooted::open(root)?;
    let mut unpacked = Layers::new(&rooted);
    for layer in layers {
        unpacked.unpack(&mut layer.as_slice())?;
    }
    unpacked.finish()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_layer_keeps_modes_times_and_links() {
    let root = tempfile::tempdir().unwrap();
    let layer = Tar::new()
        .dir("./app/")
        .file("app/bot.py", "print()")
        .entry(EntryType::Link, "app/same.py", "app/bot.py", b"")
        .link("app/absolute", "/app/bot.py")
        .bytes();
    unpack(root.path(), &[layer]).unwrap();
    let bot = fs::metadata(root.path().join("app/bot.py")).unwrap();
    assert_eq!(
        (bot.permissions().mode() & 0o7777, bot.mtime(), bot.nlink()),
        (0o640, 1_000_000, 2)
    );
    let app = fs::metadata(root.path().join("app")).unwrap();
    assert_eq!((app.permissions().mode() & 0o7777, app.mtime()), (0o750, 1_000_000));
    let target = fs::read_link(root.path().join("app/absolute")).unwrap();
    assert_eq!(target, Path::new("/app/bot.py"));
}

#[test]
fn whiteouts_remove_what_lower_layers_brought() {
    let root = tempfile::tempdir().unwrap();
    let lower = Tar::new()
        .file("a/gone", "")
        .file("a/stays", "")
        .file("b/old", "")
        .file("b/deep/old", "")
        .file("c/deep/gone", "")
        .bytes();
    let upper = Tar::new()
        .file("a/.wh.gone", "")
        // Sorts before the marker, and must survive it.
        .file("b/.hidden", "")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "")
        .file(".wh.c", "")
        .file("a/.wh..wh.plnk", "")
        .bytes();
    unpack(root.path(), &[lower, upper]).unwrap();
    assert_eq!(names(root.path()), ["a", "b"]);
    assert_eq!(names(&root.path().join("a")), ["stays"]);
    assert_eq!(names(&root.path().join("b")), [".hidden", "new"]);
}

#[test]
fn a_later_layer_replaces_files_links_and_directories() {
    let root = tempfile::tempdir().unwrap();
    let lower = Tar::new().dir("x").file("x/in", "").file("y", "").link("z", "y").bytes();
    let upper = Tar::new().file("x", "now a file").dir("y").file("z", "now a file").bytes();
    unpack(root.path(), &[lower, upper]).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("x")).unwrap(), "now a file");
    assert!(root.path().join("y").is_dir());
    assert!(!root.path().join("z").is_symlink());
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../evil", "a/../../evil", "/../evil"] {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        let error = unpack(&root, &[Tar::new().file(path, "x").bytes()]).unwrap_err();
        assert!(error.to_string().contains("leads out of the image"), "{path}: {error}");
        assert_eq!(names(outer.path()), ["root"]);
    }
}

#[test]
fn links_inside_the_image_never_reach_the_host() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let host = outer.path().join("host");
    fs::create_dir(&root).unwrap();
    fs::create_dir(&host).unwrap();
    fs::write(host.join("secret"), "untouched").unwrap();
    let absolute = host.to_str().unwrap();
    let layers = [
        Tar::new().link("up", "../host").link("out", absolute).bytes(),
        // Written, removed and linked to through the links of the layer below.
        Tar::new()
            .file("up/planted", "x")
            .file("out/planted", "x")
            .file("out/.wh.secret", "")
            .file("up/.wh..wh..opq", "")
            .bytes(),
    ];
    unpack(&root, &layers).unwrap();
    assert_eq!(names(&host), ["secret"]);
    assert_eq!(fs::read_to_string(host.join("secret")).unwrap(), "untouched");
    let steal = Tar::new().entry(EntryType::Link, "copy", "out/secret", b"").bytes();
    assert!(unpack(&root, &[steal]).is_err());
    let climb = Tar::new().entry(EntryType::Link, "copy", "../host/secret", b"").bytes();
    assert!(unpack(&root, &[climb]).is_err());
    // A directory of one layer that becomes a link in the next: its time must not go through.
    let before = fs::metadata(&host).unwrap().mode();
    let swap = [Tar::new().dir("d").bytes(), Tar::new().link("d", absolute).bytes()];
    unpack(&root, &swap).unwrap();
    assert_eq!(fs::metadata(&host).unwrap().mode(), before);
    assert_ne!(fs::metadata(&host).unwrap().mtime(), 1_000_000);
}

#[test]
fn a_truncated_layer_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let mut layer = Tar::new().file("big", &"x".repeat(10_000)).bytes();
    layer.truncate(4_000);
    let error = unpack(root.path(), &[layer]).unwrap_err();
    assert!(error.to_string().contains("big"), "{error}");
}

/// A docker archive of one layer, as files of a tar.
fn docker_archive(layer: &[u8], arch: &str) -> Vec<u8> {
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{"Entrypoint":["python3"],"Cmd":["bot.py"],
        "Env":["A=1=2"],"WorkingDir":"/app","User":"1000:1000"}},"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#,
        hex::encode(Sha256::digest(layer))
    );
    let manifest =
        r#"[{"Config":"c.json","RepoTags":["mybot:latest"],"Layers":["one/layer.tar"]}]"#;
    Tar::new()
        .file("c.json", &config)
        .entry(EntryType::Symlink, "one/layer.tar", "../two/layer.tar", b"")
        .entry(EntryType::Regular, "two/layer.tar", "", layer)
        .file("manifest.json", manifest)
        .bytes()
}

fn open(bytes: &[u8]) -> (tempfile::TempDir, std::io::Result<Blobs>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    fs::write(&path, bytes).unwrap();
    let blobs = Blobs::open(&path, dir.path());
    (dir, blobs)
}

fn host_arch() -> String {
    layout::wanted_platform().split_once('/').unwrap().1.to_owned()
}

#[test]
fn docker_archives_are_understood_compressed_or_not() {
    let layer = Tar::new().file("app/bot.py", "").bytes();
    let plain = docker_archive(&layer, &host_arch());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for bytes in [plain, gzip.finish().unwrap(), zstd] {
        let (_dir, blobs) = open(&bytes);
        let blobs = blobs.unwrap();
        let found = layout::read(&blobs).unwrap();
        assert_eq!(found.references, ["mybot:latest"]);
        assert!(found.image_id.starts_with("sha256:"));
        let runtime = found.config.config.as_ref().unwrap();
        assert_eq!(runtime.user.as_deref(), Some("1000:1000"));
        // Through the link of old archives.
        let root = tempfile::tempdir().unwrap();
        super::unpack(&blobs, &found, root.path(), &()).unwrap();
        assert!(root.path().join("app/bot.py").exists());
        let config = super::image_config(found.config.config.unwrap(), root.path()).unwrap();
        assert_eq!(config.argv, ["python3", "bot.py"]);
        assert_eq!(config.env["A"], "1=2");
        assert_eq!((config.cwd.as_str(), config.uid, config.gid), ("/app", 1000, 1000));
    }
}

#[test]
fn another_platform_is_named() {
    let (_dir, blobs) = open(&docker_archive(&Tar::new().file("a", "").bytes(), "s390x"));
    match layout::read(&blobs.unwrap()) {
        Err(Unusable::Platform(found)) => assert_eq!(found, "linux/s390x"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_is_found_wherever_it_is() {
    let layer = Tar::new().file("app/bot.py", "content").bytes();
    let archive = docker_archive(&layer, &host_arch());
    // One bit of the layer's content.
    let mut flipped = archive.clone();
    let at = flipped.windows(7).position(|window| window == b"content").unwrap();
    flipped[at] ^= 1;
    let (_dir, blobs) = open(&flipped);
    let blobs = blobs.unwrap();
    let found = layout::read(&blobs).unwrap();
    let root = tempfile::tempdir().unwrap();
    match super::unpack(&blobs, &found, root.path(), &()) {
        Err(Unusable::Broken(reason, _)) => assert!(reason.contains("damaged"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // Cut off within the layer; not an archive at all; compressed rubbish.
    assert!(open(&archive[..archive.len() / 2]).1.is_err());
    assert!(open(b"this is no archive").1.is_err());
    assert!(open(&[0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 5]).1.is_err());
    assert!(open(&[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4, 5]).1.is_err());
    // A tar of something else.
    let (_dir, blobs) = open(&Tar::new().file("holiday.jpg", "").bytes());
    assert!(
        matches!(layout::read(&blobs.unwrap()), Err(Unusable::Broken(reason, _)) if reason.contains("neither"))
    );
}

/// An OCI layout in a directory, with an index for two platforms and an attestation.
fn oci_layout(dir: &Path, layer: &[u8]) {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(dir.join("blobs/sha256").join(&digest), bytes).unwrap();
        format!("sha256:{digest}")
    };
    let arch = host_arch();
    let config = put(
        format!(
            r#"{{"architecture":"{arch}","os":"linux","config":{{"Cmd":["/bot"]}},"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#,
            hex::encode(Sha256::digest(layer))
        )
        .as_bytes(),
    );
    let layer = put(&zstd::encode_all(layer, 1).unwrap());
    let manifest =
        put(format!(r#"{{"config":{{"digest":"{config}"}},"layers":[{{"digest":"{layer}"}}]}}"#)
            .as_bytes());
    let inner = put(format!(
        r#"{{"manifests":[
            {{"digest":"sha256:{0}","platform":{{"architecture":"s390x","os":"linux"}}}},
            {{"digest":"sha256:{0}","platform":{{"architecture":"unknown","os":"unknown"}}}},
            {{"digest":"{manifest}","platform":{{"architecture":"{arch}","os":"linux"}}}}]}}"#,
        "0".repeat(64)
    )
    .as_bytes());
    let index = format!(
        r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{inner}",
        "annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#
    );
    fs::write(dir.join("index.json"), index).unwrap();
}

#[test]
fn oci_layouts_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    oci_layout(dir.path(), &Tar::new().file("bot", "x").bytes());
    let blobs = Blobs::open(dir.path(), dir.path()).unwrap();
    let found = layout::read(&blobs).unwrap();
    assert_eq!(found.references, [":latest"]);
    let root = tempfile::tempdir().unwrap();
    super::unpack(&blobs, &found, root.path(), &()).unwrap();
    assert!(root.path().join("bot").exists());
}

#[test]
fn damaged_oci_documents_are_found() {
    let dir = tempfile::tempdir().unwrap();
    oci_layout(dir.path(), &Tar::new().file("bot", "x").bytes());
    for entry in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read(&path).unwrap();
        if text.starts_with(b"{\"config\"") {
            fs::write(&path, [text.as_slice(), b" "].concat()).unwrap();
        }
    }
    let blobs = Blobs::open(dir.path(), dir.path()).unwrap();
    assert!(
        matches!(layout::read(&blobs), Err(Unusable::Broken(reason, _)) if reason.contains("damaged"))
    );
}

#[test]
fn a_layout_cannot_make_us_read_files_of_the_host() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "[]").unwrap();
    let dir = outer.path().join("layout");
    fs::create_dir(&dir).unwrap();
    symlink("../secret", dir.join("manifest.json")).unwrap();
    let blobs = Blobs::open(&dir, &dir).unwrap();
    assert_eq!(blobs.document("manifest.json").unwrap(), None);
    assert!(blobs.document("../secret").is_err());
}
