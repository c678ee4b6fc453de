//! What cannot work is said at once: in words, with a hint, and with the documented exit code.

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::support::{Dispatcher, Home, Ran, SOON, until};

const FAKE: &str = "[bots.nobody]\nprovider = \"fake\"\n";
const TINY: &str = "[bots.tiny]\nimage = \"tiny\"\nstart = \"cold\"\n";

async fn serve(home: &Home, config: &Path) -> Ran {
    Ran::of(home.callbox(&["serve", "--config", config.to_str().unwrap()])).await
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense() {
    let home = Home::bare();
    for (more, words) in [
        ("[bots.x]\nimagee = \"tiny\"\n", vec!["imagee", "callbox.toml"]),
        ("[bots.x]\nimage = \"tiny\"\nmemory_mib = 1\n", vec!["bots.x.memory_mib", "128"]),
        ("[bots.x]\nimage = \"tiny\"\nmemory_mib = \"much\"\n", vec!["memory_mib", "much"]),
        ("[bots.x]\nimage = \"tiny\"\nprovider = \"cloud\"\n", vec!["bots.x.provider", "cloud"]),
        ("[bots.x]\nimage = \"tiny\"\ntransports = [\"smoke\"]\n", vec!["transports", "smoke"]),
        ("[bots.X]\nimage = \"tiny\"\n", vec!["\"X\"", "a-z"]),
        ("[bots.x\n", vec!["callbox.toml"]),
    ] {
        serve(&home, &home.configure(more)).await.expect(2).explains(&words);
    }
    let nowhere = home.path().join("nowhere.toml");
    serve(&home, &nowhere).await.expect(2).explains(&["nowhere.toml"]);
    assert!(!home.path().join("d/callbox.db").exists(), "nothing was begun");
}

#[tokio::test]
async fn an_address_that_is_taken() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = home.configure_at(&address, Path::new("agent"), FAKE);
    serve(&home, &config).await.expect(1).explains(&[&address, "in use", "port 0"]);
}

#[tokio::test]
async fn an_address_for_everybody_without_a_key() {
    let home = Home::new();
    let config = home.configure_at("0.0.0.0:0", Path::new("agent"), FAKE);
    serve(&home, &config).await.expect(1).explains(&["no API key", "callbox keys create"]);
}

#[tokio::test]
async fn two_dispatchers_on_one_data_directory() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, FAKE).await;
    let second = serve(&home, &home.configure(FAKE)).await.expect(1);
    second.explains(&["another dispatcher", home.data().to_str().unwrap()]);
    dispatcher.assert_alive().await;
    dispatcher.stop().await;
}

#[tokio::test]
async fn a_host_without_an_agent_or_without_qemu() {
    let home = Home::new();
    let config = home.configure_at("127.0.0.1:0", Path::new("/nowhere/agent"), TINY);
    serve(&home, &config).await.expect(1).explains(&["/nowhere/agent", "callbox doctor"]);
    let config = home.configure(TINY);
    let mut without = home.callbox(&["serve", "--config", config.to_str().unwrap()]);
    without.env("CALLBOX_LOCAL__QEMU", "no-such-qemu");
    Ran::of(without).await.expect(1).explains(&["no-such-qemu", "callbox doctor"]);
}

#[tokio::test]
async fn an_image_that_is_not_there() {
    let home = Home::new();
    let config = home.configure("[bots.lost]\nimage = \"lost\"\n");
    let inspect = ["image", "inspect", "lost", "--config", config.to_str().unwrap()];
    Ran::of(home.callbox(&inspect)).await.expect(1).explains(&["\"lost\"", "callbox image"]);
    // The other bots must not suffer, so the dispatcher serves; this bot's sessions say why not.
    let dispatcher = Dispatcher::ready(&home, "[bots.lost]\nimage = \"lost\"\n").await;
    assert!(home.log().contains("the bot cannot be prepared"), "{}", home.log());
    let called = dispatcher.run(&["call", "--quiet"]).await.expect(4);
    called.explains(&["start-failed", "\"lost\""]);
    dispatcher.stop().await;
}

/// As root, nothing else is unwritable for us than a file system that is.
#[tokio::test]
async fn a_disk_that_is_full_or_cannot_be_written() {
    let home = Home::bare();
    let disk = match SmallDisk::at(&home.data()) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("not tried: a small disk cannot be mounted: {error}"),
    };
    disk.fill();
    let config = home.configure(FAKE);
    serve(&home, &config).await.expect(1).explains(&["disk is full", "callbox doctor"]);
    disk.free();
    fills_up_while_serving(&home, &disk).await;
    disk.forbid_writing();
    let refused = serve(&home, &config).await.expect(1).stderr;
    for words in [home.data().to_str().unwrap(), "Read-only file system"] {
        assert!(refused.contains(words), "{refused}");
    }
}

async fn fills_up_while_serving(home: &Home, disk: &SmallDisk<'_>) {
    let many = "[limits]\nmax_sessions = 9999\n[bot_defaults]\nmax_sessions = 9999\n";
    let dispatcher = Dispatcher::ready(home, &format!("{many}{FAKE}")).await;
    disk.fill();
    // What the database has room for within its files is still taken.
    let refused = async {
        loop {
            let answer = dispatcher.try_start("nobody").await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(SOON, refused).await.expect("the disk is full");
    assert_eq!((refused.status, refused.body["code"].as_str()), (503, Some("store-away")));
    assert!(home.log().contains("disk is full"), "{}", home.log());
    assert_eq!(dispatcher.get("/healthz").await.status, 200);
    disk.free();
    let listed = dispatcher.run(&["ps", "--json"]).await.expect(0).json();
    for session in listed["sessions"].as_array().unwrap() {
        let id = session["id"].as_str().unwrap();
        dispatcher.run(&["stop", id, "--wait", "60"]).await.expect(0);
    }
    // As often as it has connections to its database, and more.
    for _ in 0..8 {
        assert_eq!(dispatcher.try_start("nobody").await.status, 200, "it works again");
    }
    dispatcher.terminate().await;
}

/// A file system of 16 MiB.
struct SmallDisk<'a> {
    at: std::path::PathBuf,
    _home: std::marker::PhantomData<&'a Home>,
}

impl SmallDisk<'_> {
    fn at(path: &Path) -> rustix::io::Result<SmallDisk<'static>> {
        std::fs::create_dir(path).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=16m")?;
        Ok(SmallDisk { at: path.to_owned(), _home: std::marker::PhantomData })
    }
    fn fill(&self) {
        let _ = std::fs::write(self.at.join("filler"), vec![0; 17 << 20]);
    }
    fn free(&self) {
        let _ = std::fs::remove_file(self.at.join("filler"));
    }
    fn forbid_writing(&self) {
        rustix::mount::mount_remount(&self.at, MountFlags::RDONLY, "").unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_client_without_a_dispatcher() {
    let home = Home::bare();
    let mut ps = home.callbox(&["ps"]);
    ps.env("CALLBOX_URL", "http://127.0.0.1:9");
    Ran::of(ps).await.expect(1).explains(&["127.0.0.1:9", "callbox serve"]);
    until("nothing was made", SOON, || !home.data().exists()).await;
}
