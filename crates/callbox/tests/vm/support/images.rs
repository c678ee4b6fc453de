//! Images of a test's own, which it may build anew.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{Home, Ran};

impl Home {
    /// Has a copy of this image of its own, and no other image.
    pub fn own_image(&self, name: &str) {
        let images = self.data().join("images");
        let shared = fs::canonicalize(&images).unwrap();
        fs::remove_file(&images).unwrap();
        let version = fs::read_link(shared.join(name).join("current")).unwrap();
        let own = images.join(name);
        fs::create_dir_all(&own).unwrap();
        let from = shared.join(name).join(&version);
        run(Command::new("cp").args(["-a", "--reflink=auto"]).args([&from, &own.join(&version)]));
        symlink(version, own.join("current")).unwrap();
    }

    /// Builds the image anew, with `version` in the file `/app/version`.
    pub async fn rebuild_image(&self, name: &str, version: &str) {
        let command = ["python3", "/app/http_bot.py"];
        self.rebuild_image_as(name, version, &command).await;
    }

    /// The same with another command.
    pub async fn rebuild_image_as(&self, name: &str, version: &str, command: &[&str]) {
        let dir = tempfile::tempdir_in(self.path().join("tmp")).unwrap();
        let archive = archive(&self.current(name), dir.path(), version, command);
        let config = self.path().join("callbox.toml");
        let (archive, config) = (archive.to_str().unwrap(), config.to_str().unwrap());
        let arguments = ["image", "build", archive, "--name", name, "--config", config, "--json"];
        Ran::of(self.callbox(&arguments)).await.expect(0);
    }

    /// How many versions of this image are kept.
    pub fn versions_of(&self, name: &str) -> usize {
        let kept = fs::read_dir(self.data().join("images").join(name)).unwrap().flatten();
        kept.filter(|entry| entry.file_type().unwrap().is_dir()).count()
    }

    /// How many templates are there.
    pub fn templates_made(&self) -> usize {
        let templates = fs::read_dir(self.templates()).unwrap().flatten();
        templates.filter(|entry| entry.path().join("template.json").exists()).count()
    }

    /// The root file system of the image as it is now.
    fn current(&self, name: &str) -> PathBuf {
        self.data().join("images").join(name).join("current/rootfs.erofs")
    }
}

/// A docker-archive of that root file system in one layer, in another version.
fn archive(rootfs: &Path, dir: &Path, version: &str, command: &[&str]) -> PathBuf {
    let (root, layers) = (dir.join("root"), dir.join("archive"));
    fs::create_dir(&layers).unwrap();
    run(Command::new("fsck.erofs").arg(format!("--extract={}", root.display())).arg(rootfs));
    fs::write(root.join("app/version"), version).unwrap();
    let layer = layers.join("layer.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&layer).arg("."));
    let digest = Command::new("sha256sum").arg(&layer).output().unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap();
    let digest = digest.split_whitespace().next().unwrap();
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {
            "Cmd": command, "Env": ["PYTHONUNBUFFERED=1"], "WorkingDir": "/app", "User": "1000:1000",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": ["tiny:test"], "Layers": ["layer.tar"] }]);
    fs::write(layers.join("config.json"), config.to_string()).unwrap();
    fs::write(layers.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("tiny.tar");
    run(Command::new("tar").arg("-C").arg(&layers).arg("-cf").arg(&archive).arg("."));
    archive
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}
