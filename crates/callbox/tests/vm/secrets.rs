//! What is in the files of a template, and what must not be.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::support::{Dispatcher, Home, Ran, Setting, Wire};

/// A text that occurs nowhere by chance.
fn mark(what: &str) -> String {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    format!("mark-{what}-{}", uuid.trim())
}

/// Everything secret that a dispatcher comes across, planted and then searched for in all files
/// of the template: after it was made, and after sessions ran on clones of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_holds_what_is_documented_and_no_secret() {
    let home = Home::without_templates();
    let planted = |what| (what, mark(what));
    let (environment, from_environment, from_file, body, public) = (
        planted("environment"),
        planted("secret-from-environment"),
        planted("secret-from-file"),
        planted("session-body"),
        planted("bot-env"),
    );
    let file = home.path().join("secret");
    fs::write(&file, &from_file.1).unwrap();
    let bots = format!(
        "[bots.tiny]\nimage = \"tiny\"\nmemory_mib = 256\ndisk_mib = 16\n\
         env = {{ PUBLIC = {:?} }}\n\
         [bots.tiny.secrets]\nFROM_FILE = {{ file = {file:?} }}\n\
         FROM_ENVIRONMENT = {{ env = \"PLANTED_SECRET\" }}\n",
        public.1
    );
    let key = ("api-key", key(&home, &bots).await);
    let setting = Setting {
        environment: &[
            ("PLANTED_IN_ENVIRONMENT", &environment.1),
            ("PLANTED_SECRET", &from_environment.1),
            ("PLANTED_KEY", &key.1),
        ],
        ..Setting::default()
    };
    let dispatcher = Dispatcher::ready_as(&home, &bots, &setting).await.with_key(&key.1);
    let mut secrets = vec![environment, from_environment, from_file, body.clone(), key];
    let check = |secrets: &[(&str, String)], when: &str| {
        let template = only_template(&home);
        for name in ["mem", "state", "template.json"] {
            let found = found(&template.join(name), secrets);
            assert!(found.is_empty(), "{name} has {found:?} {when}");
        }
        // The control: a search that finds nothing would prove nothing. What the configuration
        // gives the bot as `env` is documented to be in the template, and is found there.
        for name in ["mem", "template.json"] {
            let found = found(&template.join(name), std::slice::from_ref(&public));
            assert!(found.contains("bot-env"), "{name} has no bot-env {when}");
        }
    };
    check(&secrets, "after it was made");
    for _ in 0..2 {
        let session = dispatcher.start_with("tiny", json!({ "private": body.1 })).await;
        secrets.push(("session-token", session.token.clone()));
        let mut wire = Wire::join(&session).await;
        wire.send("hello").await.unwrap();
        wire.next().await;
        let shown = dispatcher.session(&session.id).await;
        assert_eq!(shown["start"], "clone", "{shown}");
        wire.hang_up().await;
        dispatcher.end_of(&session.id).await;
    }
    check(&secrets, "after sessions ran on its clones");
    dispatcher.terminate().await;
}

/// A bot that is ready with a connection open cannot be frozen; everybody is told which it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_holds_a_connection_open_becomes_no_template() {
    let home = Home::without_templates();
    // One process with both ends, which then becomes the bot.
    let program = "import os, socket\\n\
        server = socket.create_server(('127.0.0.1', 9009))\\n\
        ends = socket.create_connection(('127.0.0.1', 9009)), server.accept()[0]\\n\
        [end.set_inheritable(True) for end in ends]\\n\
        os.execvp('python3', ['python3', '/app/http_bot.py'])";
    let bots = format!(
        "[bots.holds]\nimage = \"tiny\"\nmemory_mib = 256\ndisk_mib = 16\n\
         argv = [\"python3\", \"-c\", \"{program}\"]\n"
    );
    let dispatcher = Dispatcher::ready(&home, &bots).await;
    let log = home.log();
    assert!(log.contains("the bot cannot be prepared"), "{log}");
    let session = dispatcher.start("holds").await;
    let (code, detail) = dispatcher.end_of(&session.id).await;
    assert_eq!(code, "bot-not-ready", "{detail}");
    for part in ["open connections", "127.0.0.1:9009", "(python3 ", "both ends in the machine"] {
        assert!(detail.contains(part), "no {part:?} in {detail}");
    }
    let templates = fs::read_dir(home.templates()).unwrap().flatten();
    let made = templates.filter(|entry| entry.path().is_dir()).count();
    assert_eq!(made, 0);
    dispatcher.stop().await;
}

async fn key(home: &Home, bots: &str) -> String {
    let config = home.configure(bots);
    let arguments = ["keys", "create", "--private", "--name", "test", "--json"];
    let config = ["--config", config.to_str().unwrap()];
    let made = Ran::of(home.callbox(&[&arguments[..], &config].concat())).await.expect(0).json();
    made["key"].as_str().unwrap().to_owned()
}

fn only_template(home: &Home) -> PathBuf {
    let entries = fs::read_dir(home.templates()).unwrap().flatten();
    let made = entries.map(|entry| entry.path()).filter(|path| path.join("mem").exists());
    let made: Vec<_> = made.collect();
    assert_eq!(made.len(), 1, "{made:?}");
    made[0].clone()
}

/// Which of these texts are in the file.
fn found<'a>(file: &Path, texts: &'a [(&'a str, String)]) -> BTreeSet<&'a str> {
    let mut grep = Command::new("grep");
    // Memory is mostly zeros: lines that end with them are short.
    grep.args(["--text", "--null-data", "--only-matching", "--fixed-strings"]);
    for (_, text) in texts {
        grep.arg("-e").arg(text);
    }
    let output = grep.arg("--").arg(file).stderr(Stdio::inherit()).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}: {}", file, output.status);
    let matches = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = texts.iter().filter(|(_, text)| matches.contains(text.as_str()));
    names.map(|(name, _)| *name).collect()
}
