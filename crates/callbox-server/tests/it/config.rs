//! What is wrong with a configuration is said by name, before anything is started.

use callbox_server::{
    config::{self, DEFAULTS, Loaded},
    store::Address,
};

fn load(text: &str) -> Result<Loaded, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    config::load(Some(file.path())).map_err(|error| error.to_string())
}

#[test]
fn defaults_alone_are_a_whole_configuration_with_one_bot() {
    let loaded = config::load(None).unwrap();
    assert_eq!(loaded.config.bots.keys().collect::<Vec<_>>(), ["parrot"]);
    assert!(loaded.config.listen.ip().is_loopback());
}

#[test]
fn bots_inherit_and_override() {
    let loaded = load(
        "[bot_defaults]\nmemory_mib = 512\n[bots.a]\nimage = \"x\"\n[bots.b]\nimage = \"x\"\nmemory_mib = 256\n[bots.b.timeouts]\nlive_s = 5",
    );
    let bots = loaded.unwrap().config.bots;
    assert_eq!(bots.keys().collect::<Vec<_>>(), ["a", "b"], "the parrot is only for nobody's");
    assert_eq!((bots["a"].machine.memory_mib, bots["b"].machine.memory_mib), (512, 256));
    assert_eq!(bots["b"].limits.live.as_secs(), 5);
    assert_eq!(bots["b"].limits.join, bots["a"].limits.join);
}

#[test]
fn every_value_says_where_it_comes_from() {
    let loaded = load("[limits]\nmax_sessions = 3\n[bots.a]\nimage = \"x\"").unwrap();
    let lines = loaded.lines();
    let source = |key: &str| {
        let line = lines.iter().find(|line| line.key == key);
        line.unwrap_or_else(|| panic!("no {key} in {lines:#?}")).source.clone()
    };
    assert_eq!(source("listen"), "default");
    assert_ne!(source("limits.max_sessions"), "default");
    assert_ne!(source("bots.a.image"), "default");
    assert_eq!(source("bots.a.memory_mib"), "default");
}

#[test]
fn a_secret_that_has_a_default_place_may_lie_elsewhere() {
    use callbox_server::config::secret::SecretSource;
    let elsewhere = "[fly]\ntoken = { file = \"/run/fly\" }\n\
                     [livekit]\nurl = \"ws://a\"\napi_key = { env = \"OURS\" }\n\
                     api_secret = { file = \"/run/livekit\" }";
    let config = load(elsewhere).unwrap().config;
    assert_eq!(config.fly.token, SecretSource::File("/run/fly".into()));
    let livekit = config.livekit.unwrap();
    assert_eq!(livekit.api_key, SecretSource::Env("OURS".into()));
    assert_eq!(livekit.api_secret, SecretSource::File("/run/livekit".into()));
    let both = "[fly]\ntoken = { file = \"a\", env = \"b\" }";
    assert!(load(both).unwrap_err().contains("never as itself"));
}

#[test]
fn ice_servers_are_looked_at() {
    let config = load("[webrtc]\nice_servers = [\"stun:a:3478\", \"turns:b\"]").unwrap().config;
    assert!(config.webrtc.has_turn());
    let wrong = load("[webrtc]\nice_servers = [\"http://a\"]").unwrap_err();
    assert!(wrong.contains("webrtc.ice_servers") && wrong.contains("http://a"), "{wrong}");
}

#[test]
fn secrets_are_only_pointed_at() {
    let text = "[bots.a]\nimage = \"x\"\n[bots.a.secrets]\nOPENAI_API_KEY = { env = \"KEY_OF_A\" }";
    let loaded = load(text).unwrap();
    assert!(loaded.lines().iter().any(|line| line.value.contains("KEY_OF_A")));
    assert!(loaded.config.bots["a"].secrets["OPENAI_API_KEY"].read().is_err(), "it is not set");
    let inline = load("[bots.a]\nimage = \"x\"\n[bots.a.secrets]\nKEY = \"sk-123\"").unwrap_err();
    assert!(!inline.contains("sk-123") && inline.contains("bots.a.secrets.KEY"), "{inline}");
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("colour = 1", "colour"),
        ("[limits]\nmax_sesions = 1", "max_sesions"),
        ("[bots.a]\nimage = \"x\"\nmemory = 1", "memory"),
        ("listen = \"here\"", "listen"),
        ("listen = 7", "listen"),
        ("public_url = \"ftp://x\"", "public_url"),
        ("[bots.a]\nprovider = \"local\"", "bots.a.image"),
        ("[bots.a]\nimage = \"x\"\nmemory_mib = 1", "bots.a.memory_mib"),
        ("[bots.a]\nimage = \"x\"\ntransports = []", "bots.a.transports"),
        ("[bots.a]\nimage = \"x\"\nstart = \"warm\"", "warm"),
        ("[bots.a]\nimage = \"x\"\n[bots.a.timeouts]\njoin_s = -1", "join_s"),
        (
            "[bots.a]\nimage = \"x\"\ncontract = \"command\"\nwarning_signal = \"SIGKILL\"",
            "SIGKILL",
        ),
        ("[bots.a]\nimage = \"x\"\nwarning_signal = \"SIGUSR1\"", "/_callbox/warning"),
        ("[bots.a]\nimage = \"x\"\nreseed = \"command\"", "bots.a.reseed_argv"),
        ("[bots.a]\nimage = \"x\"\nreseed_argv = [\"reseed\"]", "bots.a.reseed_argv"),
        ("[bots.\"../a\"]\nimage = \"x\"", "../a"),
        ("[bots.a]\nimage = \"x\"\nnetwork = \"user\"", "internet"),
        ("[bots.a]\nimage = \"x\"\nallow = [\"203.0.113.7\"]", "bots.a.allow"),
        ("[bots.a]\nimage = \"x\"\nnetwork = \"internet\"\nallow = [\"10.0.0.1\"]", "private"),
        ("[local.network]\ndns = [\"here\"]", "local.network.dns"),
        ("[local.network]\ndeny = [\"fd00::/8\"]", "local.network.deny"),
        ("[local.network]\nlinks = \"240.0.0.0/30\"", "local.network.links"),
        ("[local.network]\nconnections = 0", "local.network.connections"),
        ("[bots.a]\nimage = \"x\"\nstop_grace_s = 1.8e19", "bots.a.stop_grace_s"),
        ("[bots.a]\nimage = \"x\"\n[bots.a.timeouts]\nlive_s = 4e7", "bots.a.timeouts.live_s"),
        ("[bots.a]\nimage = \"x\"\n[bots.a.timeouts]\nwarn_s = 4e7", "bots.a.timeouts.warn_s"),
        ("[bots.a]\nimage = \"x\"\n[bots.a.reserve]\nmax_age_s = 4e7", "bots.a.reserve.max_age_s"),
        ("[local]\nboot_timeout_s = 40000000", "local.boot_timeout_s"),
        ("[limits]\non_shutdown = \"later\"", "later"),
        ("[limits]\nshutdown_deadline_s = 0", "limits.shutdown_deadline_s"),
        ("[bots", "TOML"),
    ];
    for (text, word) in cases {
        let error = load(text).err().unwrap_or_else(|| panic!("{text} was taken"));
        assert!(error.contains(word), "{text:?} gives {error:?}, which does not name {word:?}");
    }
    assert!(config::load(Some(std::path::Path::new("/nowhere/callbox.toml"))).is_err());
}

#[test]
fn a_network_is_none_until_it_is_asked_for() {
    use callbox_machines::{Network, local::NetConfig};

    let none = config::load(None).unwrap().config;
    assert_eq!(none.bots["parrot"].machine.network, Network::None);
    assert_eq!(
        none.local.network,
        NetConfig::default(),
        "the defaults are the same in both places"
    );
    let text = "[local.network]\ndns = [\"10.0.0.2\"]\n[bots.a]\nimage = \"x\"\n\
                network = \"internet\"\nallow = [\"203.0.113.0/24\", \"198.51.100.7:443\"]";
    let some = load(text).unwrap().config;
    let Network::Internet { allow } = &some.bots["a"].machine.network else { panic!("{some:?}") };
    let allow: Vec<_> = allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["203.0.113.0/24", "198.51.100.7:443"]);
    assert_eq!(some.local.network.dns[0].to_string(), "10.0.0.2");
}

#[test]
fn the_printed_defaults_are_a_file_that_is_taken() {
    assert!(load(DEFAULTS).is_ok());
}

#[test]
fn the_address_of_the_store_is_checked_and_never_shown() {
    let url = "postgres://me:s3c%40ret@db.example/calls?sslmode=verify-full";
    let loaded = load(&format!("store = {url:?}")).unwrap();
    let line = loaded.lines().into_iter().find(|line| line.key == "store").unwrap();
    assert_eq!(line.value, "\"postgres://…\"");
    let shown = format!("{:?}", loaded.config);
    assert!(!shown.contains("s3c") && !shown.contains("db.example"), "{shown}");
    assert_eq!(load("store = \"\"").unwrap().config.store, Address::DataDir);
    for (text, named) in [
        ("\"mysql://me:s3cret@host/db\"", "mysql"),
        ("\"s3cret\"", "scheme"),
        ("\"postgres://me:s3c/ret@host/db\"", "%2F"),
        ("\"postgres://me:s3cret@host/db?sslmode=maybe\"", "ssl"),
        ("{ password = \"s3cret\" }", "text"),
        ("[\"s3cret\"]", "text"),
    ] {
        let problem = load(&format!("store = {text}")).unwrap_err();
        assert!(problem.contains(named) && !problem.contains("s3c"), "{text}: {problem}");
        assert!(problem.contains("store"), "{text}: {problem}");
    }
}
