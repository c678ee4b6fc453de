//! What the host does when QEMU fails: with a QEMU that is a shell script, so that it fails as
//! told. No guest is started here.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use callbox_microvm::image::{Image, ImageStore};
use callbox_microvm::{
    AcceleratorChoice, Error, From, Host, HostConfig, MachineShape, Network, Start,
};
use callbox_protocol::agent::{CommandReady, Contract, Prepare};

/// A host whose QEMU runs `script` when it is asked for more than its version. `$TRIES` is a
/// file of the script's own.
struct Scripted {
    data: tempfile::TempDir,
    config: HostConfig,
    host: Host,
}

impl Scripted {
    async fn new(script: &str) -> Scripted {
        let data = tempfile::Builder::new().prefix("cbq").tempdir().unwrap();
        let at = |name: &str| data.path().join(name);
        fs::write(at("agent"), b"\x7fELF").unwrap();
        let qemu = format!(
            "#!/bin/sh\n[ $1 = --version ] && echo 'QEMU emulator version 7.2.0 (script)' && exit\n\
             TRIES={}\necho try >> $TRIES\n{script}\n",
            at("tries").display()
        );
        fs::write(at("qemu"), qemu).unwrap();
        fs::set_permissions(at("qemu"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = HostConfig::new(at("data"), at("agent"));
        config.qemu = at("qemu");
        config.kernel = Some(kernel(&at("kernel")));
        config.accelerator = AcceleratorChoice::Tcg;
        config.boot_timeout = Duration::from_millis(300);
        let host = Host::open(config.clone()).await.unwrap();
        Scripted { data, config, host }
    }

    async fn start(&self, name: &str) -> Result<(), Error> {
        let start = Start {
            name: name.into(),
            from: From::Cold,
            shape: shape(),
            image: image(self.host.data_dir()),
            prepare: prepare(),
        };
        self.host.start(start).await.map(|_| ())
    }

    fn tries(&self) -> usize {
        fs::read_to_string(self.data.path().join("tries")).unwrap_or_default().lines().count()
    }

    async fn assert_nothing_left(&self) {
        assert_eq!(self.host.list().await.unwrap(), []);
        assert_eq!(fs::read_dir(self.host.data_dir().join("run")).unwrap().count(), 0);
    }
}

/// A tree like an unpacked kernel package's, of a kernel that has everything built in.
fn kernel(root: &Path) -> PathBuf {
    let modules = root.join("lib/modules/6.1-test");
    fs::create_dir_all(root.join("boot")).unwrap();
    fs::create_dir_all(modules.join("kernel")).unwrap();
    fs::write(root.join("boot/vmlinuz-6.1-test"), "kernel").unwrap();
    let built_in =
        ["virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "erofs", "overlay"];
    let lines: String = built_in.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
    fs::write(modules.join("modules.builtin"), lines).unwrap();
    root.to_path_buf()
}

fn shape() -> MachineShape {
    MachineShape { memory_mib: 256, vcpus: 1, disk_mib: 16, network: Network::None }
}

fn prepare() -> Prepare {
    Prepare {
        contract: Contract::Command { ready: CommandReady::Started, warning_signal: None },
        argv: vec!["/bot".into()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        uid: 1000,
        gid: 1000,
        port: 8080,
        ready_timeout_ms: 1000,
    }
}

#[tokio::test]
async fn a_qemu_that_ends_is_tried_twice_and_quoted() {
    let scripted = Scripted::new("echo 'no such processor' >&2; exit 1").await;
    let error = scripted.start("a").await.expect_err("it cannot start");
    assert!(
        matches!(&error, Error::Ended { said, .. } if said.contains("no such processor")),
        "{error:?}"
    );
    assert_eq!(scripted.tries(), 2);
    scripted.assert_nothing_left().await;
}

#[tokio::test]
async fn a_qemu_that_stands_still_meets_its_deadline_twice() {
    // `read` waits on one of the listening sockets that the host handed down: nothing to read.
    let scripted = Scripted::new("while :; do read line <&2; done").await;
    let error = scripted.start("a").await.expect_err("it cannot start");
    assert!(matches!(&error, Error::Deadline { stage: "boot", .. }), "{error:?}");
    assert_eq!(scripted.tries(), 2);
    scripted.assert_nothing_left().await;
}

#[tokio::test]
async fn a_machine_that_is_destroyed_while_it_starts_stays_destroyed() {
    let scripted = Scripted::new("while :; do read line <&2; done").await;
    let (started, destroyed) = tokio::join!(scripted.start("a"), async {
        // The level to wait for: the first try is under way.
        while scripted.tries() == 0 {
            tokio::task::yield_now().await;
        }
        scripted.host.destroy("a").await
    });
    destroyed.expect("destroyed");
    let error = started.expect_err("it was destroyed");
    assert!(matches!(error, Error::Ended { .. } | Error::Destroyed(_)), "{error:?}");
    assert_eq!(scripted.tries(), 1, "a destroyed machine was started again");
    scripted.assert_nothing_left().await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_process() {
    let scripted = Scripted::new("while :; do read line <&2; done").await;
    tokio::select! {
        started = scripted.start("a") => panic!("it cannot start: {started:?}"),
        () = async {
            while !scripted.host.list().await.unwrap().iter().any(|machine| machine.alive) {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    let ended = async {
        while scripted.host.list().await.unwrap()[0].alive {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("its qemu ends");
    scripted.host.destroy("a").await.unwrap();
    scripted.assert_nothing_left().await;
}

#[tokio::test]
async fn a_bake_that_dies_is_cleared_by_the_next_host() {
    let scripted = Scripted::new("while :; do read line <&2; done").await;
    let image = image(scripted.host.data_dir());
    let (templates, run) =
        (scripted.host.data_dir().join("templates"), scripted.host.data_dir().join("run"));
    let (shape, bot) = (shape(), prepare());
    let baking = scripted.host.template(&shape, &image, &bot, &());
    tokio::select! {
        baked = baking => panic!("it cannot be baked: {baked:?}"),
        () = async {
            while scripted.tries() == 0 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert!(names(&run)[0].starts_with(".bake-"), "what a dead process leaves behind");
    assert_eq!(scripted.host.list().await.unwrap(), [], "a bake is nobody's machine");

    // More than once, as a lock lives on for a moment in what another test has just forked.
    let cleared = async {
        while !names(&run).is_empty() {
            Host::open(scripted.config.clone()).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), cleared).await.expect("it is cleared");
    let left = names(&templates);
    assert!(matches!(left.as_slice(), [lock] if lock.ends_with(".lock")), "{left:?}");
}

#[tokio::test]
async fn qemu_gets_nothing_of_our_environment() {
    let scripted = Scripted::new("export -p >&2; exit 1").await;
    let error = scripted.start("a").await.expect_err("it cannot start");
    let Error::Ended { said, .. } = error else { panic!("{error:?}") };
    // PWD and the like are the shell's own.
    assert!(!said.contains("HOME") && !said.contains("CARGO"), "{said}");
    scripted.assert_nothing_left().await;
}

/// An image of which only the name is looked at here.
fn image(data_dir: &Path) -> Image {
    let digest = "0".repeat(64);
    let directory = data_dir.join("images/test").join(&digest);
    fs::create_dir_all(&directory).unwrap();
    let manifest = serde_json::json!({
        "format": 1, "name": "test", "digest": digest, "size": 0, "created_at_ms": 0, "inputs": "",
        "source": { "kind": "container", "archive": "", "references": [], "image_id": "" },
        "config": { "argv": [], "env": {}, "cwd": "/", "uid": 1000, "gid": 1000 },
        "facts": {
            "entries": 0, "unpacked_bytes": 0, "python_packages": [], "debian_packages": [],
            "python_sources": 0, "missing_pyc": 0,
        },
    });
    fs::write(directory.join("image.json"), manifest.to_string()).unwrap();
    let current = data_dir.join("images/test/current");
    if !current.exists() {
        std::os::unix::fs::symlink(&digest, &current).unwrap();
    }
    ImageStore::open(data_dir).unwrap().get("test").unwrap()
}
