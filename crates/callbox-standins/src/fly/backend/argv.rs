//! What is run in a microVM: the program, and before it, a shell that writes the files.

use callbox_fly::wire::{Init, MachineConfig};

/// Longest single argument of a Linux process, in bytes, and some room.
const LONGEST: usize = 120 * 1024;

/// Writes each file (path, mode, base64) and becomes the program. No braces: the agent would
/// take what is in them for a placeholder.
const WRITE: &str = "set -e\n\
    while [ \"$1\" != -- ]; do\n\
    mkdir -p \"$(dirname \"$1\")\"\n\
    printf %s \"$3\" | base64 -d > \"$1\"\n\
    chmod \"$2\" \"$1\"\n\
    shift 3\n\
    done\n\
    shift\n\
    exec \"$@\"";

/// The whole argument list for `config` over an image's own.
///
/// # Errors
/// When there is nothing to run, or a file cannot be written this way.
pub fn program(config: &MachineConfig, image: &[String]) -> Result<Vec<String>, String> {
    let init = config.init.clone().unwrap_or_default();
    let program = own(&init, image);
    if program.is_empty() {
        return Err("neither the machine nor its image says what to run".to_owned());
    }
    if config.files.is_empty() {
        return Ok(program);
    }
    let mut argv = ["/bin/sh", "-c", WRITE, "callbox-files"].map(str::to_owned).to_vec();
    for file in &config.files {
        let path = &file.guest_path;
        let Some(content) = &file.raw_value else {
            return Err(format!("{path:?}: only files by raw_value are written"));
        };
        if content.len() > LONGEST {
            return Err(format!("{path:?} is too large"));
        }
        let mode = format!("{:o}", file.mode.unwrap_or(0o644));
        argv.extend([path.clone(), mode, content.clone()]);
    }
    argv.push("--".to_owned());
    argv.extend(program);
    Ok(argv)
}

/// `exec` beats everything; `entrypoint` and `cmd` take the place of the image's, whose argument
/// list is both in one here: `cmd` alone takes the place of all of it.
fn own(init: &Init, image: &[String]) -> Vec<String> {
    if !init.exec.is_empty() {
        return init.exec.clone();
    }
    if init.entrypoint.is_empty() && init.cmd.is_empty() {
        return image.to_vec();
    }
    [init.entrypoint.as_slice(), &init.cmd].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(config: serde_json::Value) -> Result<String, String> {
        let image = ["python3".to_owned(), "bot.py".to_owned()];
        let config = serde_json::from_value(config).expect("a config");
        program(&config, &image).map(|argv| argv.join(" "))
    }

    #[test]
    fn the_machine_says_what_runs_and_else_the_image() {
        for (init, argv) in [
            (json!({}), "python3 bot.py"),
            (json!({"cmd": ["sleep", "1"]}), "sleep 1"),
            (json!({"entrypoint": ["sh"], "cmd": ["-c", "x"]}), "sh -c x"),
            (json!({"exec": ["a"], "cmd": ["b"]}), "a"),
        ] {
            assert_eq!(words(json!({"init": init})), Ok(argv.to_owned()));
        }
    }

    #[test]
    fn files_are_written_first() {
        let file = json!({"guest_path": "/a/b", "raw_value": "YQ==", "mode": 256});
        let argv = words(json!({"files": [file]})).expect("can be written");
        assert!(argv.ends_with("callbox-files /a/b 400 YQ== -- python3 bot.py"), "{argv}");
        assert!(!argv.contains(['{', '}']));
        let secret = json!({"guest_path": "/a", "secret_name": "s"});
        assert!(words(json!({"files": [secret]})).is_err());
    }

    #[test]
    fn the_shell_does_what_it_shall() {
        let home = std::env::temp_dir().join(format!("callbox-files-{}", std::process::id()));
        let path = home.join("deep/er.txt");
        let file = json!({"guest_path": path, "raw_value": "aGFsbG8=", "mode": 384});
        let config = json!({"files": [file], "init": {"exec": ["cat", path]}});
        let argv = program(&serde_json::from_value(config).expect("a config"), &[]).expect("argv");
        let output = std::process::Command::new(&argv[0]).args(&argv[1..]).output().expect("runs");
        let _ = std::fs::remove_dir_all(&home);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hallo");
    }
}
