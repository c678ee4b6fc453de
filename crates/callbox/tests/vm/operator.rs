//! The commands of operators, on a host on which machines run.

use serde_json::Value;

use crate::support::{Dispatcher, Home, Ran};

const BOTS: &str = r#"
[bots.tiny]
image = "tiny"
start = "cold"
memory_mib = 256
disk_mib = 64
"#;

async fn operate(home: &Home, arguments: &[&str]) -> Ran {
    let config = home.configure(BOTS);
    Ran::of(home.callbox(&[arguments, &["--config", config.to_str().unwrap()]].concat())).await
}

#[tokio::test]
async fn doctor_says_what_is_there_and_what_to_do() {
    let home = Home::new();
    let ran = operate(&home, &["doctor", "--json"]).await;
    let report = ran.json();
    assert_eq!(ran.code, if report["ok"] == true { 0 } else { 1 }, "{ran:?}");
    let checks = report["checks"].as_array().unwrap();
    for check in checks {
        assert!(check["ok"] == true || check["hint"].is_string(), "{check}");
    }
    // What these tests need is there, or they would not run.
    for name in ["processor", "qemu", "kvm", "agent", "guest kernel", "data directory", "address"] {
        let check = checks.iter().find(|check| check["name"] == name);
        assert_eq!(
            check.map(|check| &check["ok"]),
            Some(&Value::Bool(true)),
            "{name} in {report:#}"
        );
    }
    let text = operate(&home, &["doctor"]).await;
    assert_eq!(text.code, ran.code);
    assert!(text.stdout.contains("qemu") && !text.stdout.contains('\u{1b}'), "{text:?}");
}

#[tokio::test]
async fn images_are_listed_and_inspected() {
    let home = Home::new();
    let images = operate(&home, &["image", "list", "--json"]).await.expect(0).json();
    for name in ["parrot", "tiny"] {
        let image = images.as_array().unwrap().iter().find(|image| image["name"] == name);
        let image = image.unwrap_or_else(|| panic!("no {name} in {images:#}"));
        assert_eq!(image["digest"].as_str().map(str::len), Some(64), "{image}");
        assert!(image["size_bytes"].as_u64().unwrap() > 1 << 20, "{image}");
        let report = operate(&home, &["image", "inspect", name, "--json"]).await.expect(0).json();
        assert_eq!(report["digest"], image["digest"]);
        assert_eq!(report["config"]["argv"][0], "python3", "{report:#}");
        // Byte code that is missing would be made anew in every machine.
        assert_eq!(report["missing_pyc"], 0, "{name}");
    }
    let table = operate(&home, &["image", "list"]).await.expect(0).stdout;
    assert!(table.contains("parrot") && table.contains("MiB"), "{table}");
    let text = operate(&home, &["image", "inspect", "tiny"]).await.expect(0).stdout;
    assert!(text.contains("http_bot.py"), "{text}");
}

#[tokio::test]
async fn a_configuration_tells_where_each_value_comes_from() {
    let home = Home::bare();
    let config = home.configure(BOTS);
    let mut command = home.callbox(&["config", "--json", "--config", config.to_str().unwrap()]);
    command.env("CALLBOX_LIMITS__MAX_SESSIONS", "3");
    let lines = Ran::of(command).await.expect(0).json();
    let line = |key: &str| {
        let found = lines.as_array().unwrap().iter().find(|line| line["key"] == key);
        let found = found.unwrap_or_else(|| panic!("no {key} in {lines:#}"));
        (found["value"].as_str().unwrap().to_owned(), found["source"].as_str().unwrap().to_owned())
    };
    let file = config.to_str().unwrap().to_owned();
    assert_eq!(line("limits.max_sessions"), ("3".into(), "environment".into()));
    assert_eq!(line("bots.tiny.image"), ("\"tiny\"".into(), file.clone()));
    assert_eq!(line("bots.tiny.timeouts.ready_s").0, "240");
    assert_eq!(line("bots.tiny.port"), ("8080".into(), "default".into()));
    assert_eq!(line("listen"), ("\"127.0.0.1:0\"".into(), file));
}

#[tokio::test]
async fn a_key_opens_until_it_is_revoked() {
    let home = Home::new();
    std::fs::create_dir_all(home.data()).unwrap();
    let fake = "[bots.nobody]\nprovider = \"fake\"\n";
    let config = home.configure(fake);
    let keys = |arguments: &[&str]| {
        let common = ["--config", config.to_str().unwrap()];
        Ran::of(home.callbox(&[&["keys"], arguments, &common].concat()))
    };
    let made = keys(&["create", "--private", "--name", "test", "--json"]).await.expect(0).json();
    let dispatcher = Dispatcher::ready(&home, fake).await;
    dispatcher.run(&["ps"]).await.expect(1).explains(&["key"]);
    let with_key = || {
        let mut command = dispatcher.command(&["ps", "--json"]);
        command.env("CALLBOX_KEY", made["key"].as_str().unwrap());
        Ran::of(command)
    };
    with_key().await.expect(0).json();
    let id = made["id"].as_str().unwrap();
    let listed = keys(&["list", "--json"]).await.expect(0);
    assert!(listed.stdout.contains(id) && !listed.stdout.contains("cbk_prv"), "{listed:?}");
    keys(&["revoke", id]).await.expect(0);
    with_key().await.expect(1);
    dispatcher.terminate().await;
}

/// `ps`, `show`, `logs --follow` and `stop` of a session that lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_watched_and_stopped() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let session = dispatcher.start("tiny").await;
    let follow = dispatcher.command(&["logs", &session.id, "--follow", "--json"]);
    let following = Ran::of(follow);
    let stopping = async {
        dispatcher.when("ready", &session.id).await;
        let listed = dispatcher.run(&["ps", "--json"]).await.expect(0).json();
        assert_eq!(listed["sessions"][0]["id"], session.id.as_str(), "{listed:#}");
        assert_eq!(listed["sessions"][0]["state"], "joining", "{listed:#}");
        let shown = dispatcher.run(&["show", &session.id]).await.expect(0).stdout;
        assert!(shown.contains("joining"), "{shown}");
        let stopped = dispatcher.run(&["stop", &session.id, "--wait", "60"]).await.expect(0);
        assert!(stopped.stdout.contains("stopped"), "{stopped:?}");
        assert_eq!(home.machines(), 0);
    };
    let (followed, ()) = tokio::join!(following, stopping);
    let lines = followed.expect(0).json_lines();
    for words in ["tiny: listening", "ended"] {
        let told = lines.iter().any(|line| line["text"].as_str().unwrap().contains(words));
        assert!(told, "no {words:?} in {lines:#?}");
    }
    dispatcher.stop().await;
}
