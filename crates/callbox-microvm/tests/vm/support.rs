//! What the test of real machines needs from its surroundings: the agent's binary, an image with
//! a bot that tells about itself, and a data directory that is empty again afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use callbox_microvm::image::{Image, ImageStore};
use callbox_microvm::{AcceleratorChoice, MachineShape, Network};
use callbox_protocol::agent::{CommandReady, Contract, Prepare, SessionData};
use sha2::{Digest, Sha256};

/// Set to `1` to go without this test on a host that cannot run it.
pub const SKIP: &str = "CALLBOX_SKIP_VM_TESTS";
/// Path of an agent that was built already.
const AGENT: &str = "CALLBOX_AGENT";
/// Which accelerator to test with.
const ACCELERATOR: &str = "CALLBOX_VM_ACCELERATOR";
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// The bot: says who it is, and serves a page on its port.
const BOT: &str = r#"#!/bin/busybox sh
echo "uuid=$(/bin/busybox cat /proc/sys/kernel/random/uuid)"
echo "machine=$(/bin/busybox cat /etc/machine-id)"
echo "now=$(/bin/busybox date +%s)"
echo "net="$(/bin/busybox ip -o -4 addr show)
/bin/busybox mkdir -p /tmp/www
echo "page of $1" > /tmp/www/index.html
exec /bin/busybox httpd -f -p 127.0.0.1:8080 -h /tmp/www
"#;

/// Software emulation works everywhere and is slow enough to show what hangs; name another one
/// in the environment (`auto`, `kvm`).
pub fn accelerator() -> AcceleratorChoice {
    match std::env::var(ACCELERATOR).as_deref() {
        Err(_) | Ok("tcg") => AcceleratorChoice::Tcg,
        Ok("auto") => AcceleratorChoice::Auto,
        Ok("kvm") => AcceleratorChoice::Kvm,
        Ok(other) => panic!("{ACCELERATOR} is {other:?}, not auto, kvm or tcg"),
    }
}

/// What this host lacks; empty if the test can run.
pub fn lacking() -> Vec<String> {
    let mut lacking = Vec::new();
    if !cfg!(target_arch = "x86_64") {
        lacking.push("the host is no x86-64".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        lacking.push("importing the test's image needs root".to_owned());
    }
    for program in ["qemu-system-x86_64", "mkfs.erofs", "apt-get", "dpkg-deb"] {
        let there = Command::new(program).arg("--help").stdin(Stdio::null()).output();
        if there.is_err() {
            lacking.push(format!("there is no {program}"));
        }
    }
    lacking
}

/// The agent: the one named in the environment, or built now.
pub fn agent() -> PathBuf {
    if let Some(path) = std::env::var_os(AGENT) {
        return PathBuf::from(path);
    }
    let target_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("agent");
    let status = Command::new(env!("CARGO"))
        .args(["build", "-q", "-p", "callbox-agent", "--profile", "agent", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the agent does not build; name a built one in {AGENT}");
    target_dir.join(TARGET).join("agent/callbox-agent")
}

/// An image with busybox, the bot and `more` programs, imported the way a container image is.
pub fn image(data_dir: &Path, more: &[(&str, &[u8])]) -> Image {
    let work = tempfile::tempdir().expect("tempdir");
    let mut layer = tar::Builder::new(Vec::new());
    let busybox = std::fs::read(busybox(work.path())).expect("busybox");
    let own = [("bin/busybox", busybox.as_slice()), ("bot.sh", BOT.as_bytes())];
    for (path, contents) in own.iter().chain(more).copied() {
        append(&mut layer, path, contents, 0o755);
    }
    let layer = layer.into_inner().expect("in memory");
    let digest = hex::encode(Sha256::digest(&layer));
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": { "User": "1000:1000", "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = serde_json::json!([{ "Config": "config.json", "Layers": ["layer.tar"] }]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "layer.tar", &layer, 0o644);
    append(&mut archive, "config.json", config.to_string().as_bytes(), 0o644);
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes(), 0o644);
    let path = work.path().join("image.tar");
    std::fs::write(&path, archive.into_inner().expect("in memory")).expect("write");
    let store = ImageStore::open(data_dir).expect("image store");
    store.import(&path, "busybox", &()).expect("imported")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, contents: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, path, contents).expect("in memory");
}

/// Debian's static busybox, unpacked but not installed.
fn busybox(work: &Path) -> PathBuf {
    let shell = |command: &str| {
        let output = Command::new("sh")
            .args(["-ec", command])
            .current_dir(work)
            .stdin(Stdio::null())
            .output()
            .expect("sh runs");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    };
    shell("apt-get download busybox-static && dpkg-deb -x busybox-static_*.deb unpacked");
    ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|path| work.join("unpacked").join(path))
        .find(|path| path.exists())
        .expect("the package has a busybox")
}

pub fn shape() -> MachineShape {
    MachineShape { memory_mib: 256, vcpus: 1, disk_mib: 32, network: Network::None }
}

pub fn prepare() -> Prepare {
    Prepare {
        contract: Contract::Command { ready: CommandReady::Listening, warning_signal: None },
        argv: ["/bin/busybox", "sh", "/bot.sh", "{session_id}"].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        cwd: "/".into(),
        uid: 1000,
        gid: 1000,
        port: 8080,
        ready_timeout_ms: 20_000,
    }
}

pub fn session(id: &str) -> SessionData {
    SessionData {
        session_id: id.into(),
        incarnation: 1,
        bot: "test".into(),
        transport: "websocket".into(),
        room_url: "ws://127.0.0.1:8080/ws".into(),
        token: String::new(),
        body: serde_json::Value::Null,
        env: BTreeMap::new(),
        longest_life_ms: None,
    }
}

/// Every wait in the test ends; this long is only waited where something is broken.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .unwrap_or_else(|_| panic!("waited a minute for {what}"))
}
