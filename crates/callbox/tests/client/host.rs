//! The commands of this host, where nothing needs to run on it: a dispatcher whose bots are the
//! fake provider's, and sweeps.

use std::{fs, path::Path};

use callbox_server::store::{Sqlite, Store as _};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::support::binary::{Ran, begin, callbox_with, finish, interrupt};
use crate::support::{Mood, StandIn};

/// Where nobody answers.
const NOBODY: &str = "http://127.0.0.1:9";
const SESSION: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

/// A data directory and a configuration.
struct Home(TempDir);

impl Home {
    fn new(more: &str) -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        let data = home.data();
        let text = format!("listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\n{more}");
        fs::write(home.0.path().join("callbox.toml"), text).unwrap();
        home
    }

    fn with_a_fake_bot() -> Home {
        Home::new("[bots.parrot]\nprovider = \"fake\"\n")
    }

    fn data(&self) -> std::path::PathBuf {
        self.0.path().join("data")
    }

    fn begin(&self, arguments: &[&str]) -> Child {
        let config = self.0.path().join("callbox.toml");
        begin(NOBODY, arguments, &[("CALLBOX_CONFIG", config.to_str().unwrap())])
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.begin(arguments)).await
    }

    /// A dispatcher was here, and ended.
    async fn served(&self) {
        let mut child = self.begin(&["serve"]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it serves");
        assert!(line.starts_with("callbox serves on http://"), "{line}");
        interrupt(&child);
        finish(child).await.expect(0);
    }

    /// What a call leaves when its dispatcher is killed, as far as the disk shows it.
    fn leave_a_call(&self) -> [std::path::PathBuf; 2] {
        let machine = self.data().join(format!("run/cb-{}-1", SESSION.replace('-', "")));
        let relay = self.data().join(format!("relays/{SESSION}.sock"));
        fs::create_dir_all(&machine).unwrap();
        fs::create_dir_all(relay.parent().unwrap()).unwrap();
        fs::write(&relay, "").unwrap();
        [machine, relay]
    }
}

fn remove_database(data: &Path) {
    for name in ["callbox.db", "callbox.db-shm", "callbox.db-wal"] {
        let _ = fs::remove_file(data.join(name));
    }
}

#[tokio::test]
async fn with_another_database_nothing_of_the_first_is_touched() {
    let home = Home::with_a_fake_bot();
    home.served().await;
    let ours = fs::read_to_string(home.data().join("deployment")).unwrap();
    let left = home.leave_a_call();
    let refuses = async |why: &str| {
        for command in [&["sweep"][..], &["sweep", "--dry-run"], &["serve"]] {
            let ran = home.run(command).await.expect(1);
            ran.says(&["1 machines and 1 calls of deployment", ours.trim(), why]);
            ran.says(&["CALLBOX_STORE", "callbox sweep --all"]);
            assert!(left.iter().all(|path| path.exists()), "{command:?}");
        }
    };
    // None at all, as when a variable was forgotten.
    remove_database(&home.data());
    refuses("the store is not there yet").await;
    assert!(!home.data().join("callbox.db").exists(), "none was made");
    // Another one's.
    let other = Sqlite::open(&home.data().join("callbox.db")).await.unwrap();
    let theirs = other.deployment().await.unwrap().id;
    drop(other);
    refuses(&format!("the store is of deployment {theirs}")).await;

    // Who knows what he does gives the calls up; then the directory may be the other one's.
    home.run(&["sweep", "--all"]).await.expect(0);
    assert!(left.iter().all(|path| !path.exists()));
    home.served().await;
    let now = fs::read_to_string(home.data().join("deployment")).unwrap();
    assert_eq!(now.trim(), theirs);
}

#[tokio::test]
async fn a_directory_whose_dispatcher_runs_is_swept_by_it() {
    let stand_in = StandIn::new(Mood::Parrot).await;
    let home = Home::with_a_fake_bot();
    fs::create_dir(home.data()).unwrap();
    let held = fs::File::create(home.data().join("callbox.lock")).unwrap();
    held.lock().unwrap();
    let config = home.0.path().join("callbox.toml");
    let variables = [("CALLBOX_CONFIG", config.to_str().unwrap())];
    let sweep = async |arguments: &[&str]| {
        callbox_with(&stand_in.url, &[&["sweep"], arguments].concat(), &variables).await
    };
    let dry = sweep(&["--dry-run"]).await.expect(0);
    assert_eq!(dry.stdout, "would remove  machine     fake/cb-1-1\n");
    let ran = sweep(&[]).await.expect(1);
    assert_eq!(
        ran.stdout,
        "removed  machine     fake/cb-1-1\n\
         left alone  machine     fake/cb-3-1: it is of the deployment 17\n"
    );
    ran.says(&[
        "cannot remove machine fake/cb-2-1: it does not go away",
        "cannot list the rooms of daily: no answer",
    ]);
    let json = sweep(&["--json"]).await.expect(1).json();
    let names = |key: &str| json[key].as_array().unwrap().len();
    assert_eq!((names("found"), names("left_alone"), names("failed")), (1, 1, 2), "{json}");
    // What living calls have is not taken from under it.
    sweep(&["--all"]).await.expect(1).says(&["another dispatcher uses"]);
}

#[tokio::test]
async fn what_a_bot_names_and_is_not_there_is_refused_before_anything_is_begun() {
    for (bot, says) in [
        (
            "provider = \"mars\"",
            "bots.parrot.provider: \"mars\" is not \"local\", \"fly\" or \"fake\"",
        ),
        ("transports = [\"pigeon\"]", "bots.parrot.transports: \"pigeon\" is not \"websocket\""),
        ("ready_when = \"room\"", "bots.parrot.ready_when: \"room\" needs transports that see"),
    ] {
        let provider = if bot.starts_with("provider") { "" } else { "provider = \"fake\"\n" };
        let home = Home::new(&format!("[bots.parrot]\nimage = \"x\"\n{provider}{bot}\n"));
        let ran = home.run(&["serve"]).await.expect(2);
        ran.says(&[says]);
        assert!(!home.data().exists() && ran.stdout.is_empty(), "{ran:?}");
    }
}

#[tokio::test]
async fn who_would_be_open_to_everybody_does_not_say_that_it_serves() {
    let home = Home::with_a_fake_bot();
    let config = home.0.path().join("callbox.toml");
    let text = fs::read_to_string(&config).unwrap().replace("127.0.0.1", "0.0.0.0");
    fs::write(&config, text).unwrap();
    let ran = home.run(&["serve"]).await.expect(1);
    ran.says(&["refusing to serve on 0.0.0.0", "callbox keys create"]);
    assert_eq!(ran.stdout, "");
}
