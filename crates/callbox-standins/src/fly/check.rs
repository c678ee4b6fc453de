//! Whether a machine's configuration makes sense (fly.md section 2.2).
//!
//! What Fly refuses is documented; with which sentence, mostly not: those are ours.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use callbox_fly::limits;
use callbox_fly::wire::{CpuKind, File, Guest, MachineConfig, RestartPolicy};

use super::refusal::Refusal;

/// The configuration with its guest filled in, or why it is none.
pub fn config(mut config: MachineConfig) -> Result<MachineConfig, Refusal> {
    if config.image.as_deref().unwrap_or_default().trim().is_empty() {
        return Err(Refusal::invalid("config.image is required"));
    }
    config.guest = Some(match (config.size.take(), config.guest.take()) {
        (Some(_), Some(_)) => {
            return Err(Refusal::invalid("config.size and config.guest exclude each other"));
        }
        (Some(size), None) => guest(preset(&size)?)?,
        (None, guest_or_none) => guest(guest_or_none.unwrap_or_default())?,
    });
    if let Some(RestartPolicy::Unknown(_)) = config.restart.as_ref().and_then(|r| r.policy.clone())
    {
        return Err(Refusal::new(422, "invalid restart policy"));
    }
    if let Some(stop) = &config.stop_config {
        if stop.timeout.is_some_and(|timeout| timeout.0 > limits::STOP_TIMEOUT) {
            return Err(Refusal::invalid("stop_config.timeout is more than 5m0s"));
        }
        signal(stop.signal.as_deref())?;
    }
    for one in &config.files {
        file(one)?;
    }
    Ok(config)
}

/// Such as `shared-cpu-2x`, `performance-4x`.
fn preset(size: &str) -> Result<Guest, Refusal> {
    let unknown = || Refusal::invalid(format!("unknown machine size {size:?}"));
    let (kind, cpus) = size.rsplit_once('-').ok_or_else(unknown)?;
    let kind = match kind {
        "shared-cpu" => CpuKind::Shared,
        "performance" => CpuKind::Performance,
        _ => return Err(unknown()),
    };
    let cpus = cpus.strip_suffix('x').and_then(|cpus| cpus.parse().ok()).ok_or_else(unknown)?;
    Ok(Guest { cpu_kind: Some(kind), cpus: Some(cpus), ..Guest::default() })
}

fn guest(mut guest: Guest) -> Result<Guest, Refusal> {
    let kind = guest.cpu_kind.get_or_insert(CpuKind::Shared).clone();
    let shape = limits::SHAPES.iter().find(|shape| shape.cpu_kind == kind.as_str());
    let Some(shape) = shape else {
        return Err(Refusal::invalid(format!("unknown cpu_kind {:?}", kind.as_str())));
    };
    let cpus = *guest.cpus.get_or_insert(1);
    if !shape.cpus.contains(&cpus) {
        return Err(Refusal::invalid(format!("no {kind} machine has {cpus} cpus")));
    }
    let (least, most) = (shape.min_memory_mb * cpus, shape.max_memory_mb * cpus);
    let memory = *guest.memory_mb.get_or_insert(least);
    if !(least..=most).contains(&memory) {
        return Err(Refusal::invalid(format!(
            "memory_mb {memory} is not within {least} and {most} for {cpus} {kind} cpus"
        )));
    }
    if !memory.is_multiple_of(shape.step_mb) {
        let step = shape.step_mb;
        return Err(Refusal::invalid(format!("memory_mb {memory} is no multiple of {step}")));
    }
    Ok(guest)
}

fn file(file: &File) -> Result<(), Refusal> {
    let path = &file.guest_path;
    if !path.starts_with('/') {
        return Err(Refusal::invalid(format!("guest_path {path:?} is not absolute")));
    }
    let sources = [&file.raw_value, &file.secret_name, &file.image_config];
    if sources.iter().filter(|source| source.is_some()).count() != 1 {
        let what = format!("file {path:?} needs one of raw_value, secret_name, image_config");
        return Err(Refusal::invalid(what));
    }
    if file.raw_value.as_ref().is_some_and(|value| STANDARD.decode(value).is_err()) {
        return Err(Refusal::invalid(format!("raw_value of {path:?} is not base64")));
    }
    Ok(())
}

/// The signals that the API knows (fly.md section 3.4).
const SIGNALS: [&str; 13] = [
    "SIGABRT", "SIGALRM", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGKILL", "SIGPIPE", "SIGQUIT",
    "SIGSEGV", "SIGTERM", "SIGTRAP", "SIGUSR1",
];

/// Whether it is a signal that can be sent; none is fine.
pub fn signal(signal: Option<&str>) -> Result<(), Refusal> {
    match signal {
        Some(signal) if !signal.is_empty() && !SIGNALS.contains(&signal) => {
            Err(Refusal::invalid(format!("unknown signal {signal:?}")))
        }
        _ => Ok(()),
    }
}

/// A machine's name. The rule is ours: what a host name can hold, and underscores.
pub fn name(name: &str) -> Result<(), Refusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=63).contains(&name.len()) && name.chars().all(legal) {
        return Ok(());
    }
    Err(Refusal::invalid(format!("invalid machine name {name:?}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(value: serde_json::Value) -> Result<MachineConfig, Refusal> {
        config(serde_json::from_value(value).expect("a config"))
    }

    #[test]
    fn guests_are_filled_in_and_measured() {
        for (guest, memory) in [
            (json!({}), 256),
            (json!({"cpus": 2}), 512),
            (json!({"cpu_kind": "performance"}), 2048),
            (json!({"cpu_kind": "shared", "cpus": 1, "memory_mb": 2048}), 2048),
            (json!({"cpu_kind": "performance", "cpus": 16, "memory_mb": 131_072}), 131_072),
        ] {
            let checked = checked(json!({"image": "a", "guest": guest})).expect("fine");
            assert_eq!(checked.guest.and_then(|guest| guest.memory_mb), Some(memory));
        }
        for guest in [
            json!({"memory_mb": 300}),
            json!({"memory_mb": 2304}),
            json!({"memory_mb": 0}),
            json!({"cpus": 3}),
            json!({"cpus": 0}),
            json!({"cpu_kind": "performance", "memory_mb": 3072}),
            json!({"cpu_kind": "quantum"}),
        ] {
            let refused = checked(json!({"image": "a", "guest": guest})).expect_err("not fine");
            assert_eq!(refused.status, 400, "{guest}");
        }
    }

    #[test]
    fn sizes_are_a_shorthand() {
        let checked_one = checked(json!({"image": "a", "size": "performance-2x"})).expect("fine");
        assert_eq!(checked_one.guest.and_then(|guest| guest.memory_mb), Some(4096));
        assert!(checked(json!({"image": "a", "size": "huge"})).is_err());
        assert!(checked(json!({"image": "a", "size": "shared-cpu-1x", "guest": {}})).is_err());
    }

    #[test]
    fn the_rest_is_looked_at() {
        for (config, status) in [
            (json!({}), 400),
            (json!({"image": "a", "restart": {"policy": "spot-price"}}), 422),
            (json!({"image": "a", "stop_config": {"timeout": "301s"}}), 400),
            (json!({"image": "a", "stop_config": {"signal": "SIGSAD"}}), 400),
            (json!({"image": "a", "files": [{"guest_path": "a", "raw_value": ""}]}), 400),
            (json!({"image": "a", "files": [{"guest_path": "/a"}]}), 400),
            (json!({"image": "a", "files": [{"guest_path": "/a", "raw_value": "!"}]}), 400),
        ] {
            assert_eq!(checked(config.clone()).expect_err("refused").status, status, "{config}");
        }
        assert!(name("cb-1_A").is_ok() && name("").is_err() && name("a b").is_err());
    }
}
