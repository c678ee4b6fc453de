//! What Fly is asked for.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_core::{Fault, of_machine_name, of_reserve_name};
use callbox_fly::{
    limits::{SHAPES, SUSPEND_MEMORY_MB, Shape},
    wire::{
        CpuKind as FlyCpuKind, CreateMachine, File, GoDuration, Guest, MachineConfig, Restart,
        RestartPolicy, StopConfig,
    },
};
use callbox_protocol::join::{JOIN_FILE, Join};

use super::{FlyConfig, GRACE, STOP};
use crate::{BotMachine, CpuKind, MachineSpec, Network, ReserveKind};

/// Whose a machine is: the deployment's id.
pub(super) const DEPLOYMENT: &str = "callbox_deployment";
/// The machine's name once more, as lists can be filtered by metadata only.
pub(super) const MACHINE: &str = "callbox_machine";
/// The replica that has, or had, the machine in reserve.
pub(super) const RESERVE: &str = "callbox_reserve";
/// For people who look at the list.
pub(super) const SESSION: &str = "callbox_session";
pub(super) const INCARNATION: &str = "callbox_incarnation";
const BOT: &str = "callbox_bot";
const VERSION: &str = "callbox_version";

/// A machine for this session, or by its name for a reserve, in the first of these regions that has
/// room.
///
/// What is in here can be read by whoever may read the app: no session's data, and a token that
/// opens one connection once.
pub(super) fn create(
    spec: &MachineSpec,
    config: &FlyConfig,
    regions: &[String],
    token: String,
) -> Result<CreateMachine, Fault> {
    let join = Join {
        url: config.public_url.clone(),
        machine: spec.name.clone(),
        token,
        orphan_ms: millis(config.orphan_after),
        stop_grace_ms: millis(GRACE),
        authorities: config.authorities.clone(),
    };
    let join = serde_json::to_vec(&join).map_err(Fault::refused)?;
    Ok(CreateMachine {
        name: Some(spec.name.clone()),
        region: (!regions.is_empty()).then(|| regions.join(",")),
        config: MachineConfig {
            image: Some(spec.bot.image.clone()),
            guest: Some(guest(&spec.bot)?),
            auto_destroy: Some(true),
            restart: Some(Restart { policy: Some(RestartPolicy::No), max_retries: None }),
            metadata: metadata(spec, config),
            // Fly's own is SIGINT and five seconds.
            stop_config: Some(StopConfig {
                signal: Some("SIGTERM".into()),
                timeout: Some(GoDuration(STOP)),
            }),
            files: vec![File {
                guest_path: JOIN_FILE.into(),
                raw_value: Some(STANDARD.encode(join)),
                mode: Some(0o400),
                ..File::default()
            }],
            ..MachineConfig::default()
        },
        skip_launch: is_to_rest(spec).then_some(true),
        skip_service_registration: Some(true),
        ..CreateMachine::default()
    })
}

/// Whether it is made to be started later.
fn is_to_rest(spec: &MachineSpec) -> bool {
    of_reserve_name(&spec.name).is_some() && spec.bot.reserve.kind == ReserveKind::Stopped
}

fn metadata(spec: &MachineSpec, config: &FlyConfig) -> BTreeMap<String, String> {
    let session = of_machine_name(&spec.name).map(|(session, _)| session.to_string());
    let incarnation = session.as_ref().map(|_| spec.incarnation.to_string());
    let keeper = of_reserve_name(&spec.name).map(str::to_owned);
    let all = [
        (DEPLOYMENT, Some(config.deployment.clone())),
        (MACHINE, Some(spec.name.clone())),
        (SESSION, session),
        (INCARNATION, incarnation),
        (BOT, Some(spec.bot.bot.clone())),
        (VERSION, spec.version.clone()),
        (RESERVE, keeper),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// Whether Fly has what this bot wants.
///
/// # Errors
/// A refusal that names what there is.
pub(super) fn check(bot: &BotMachine) -> Result<(), Fault> {
    // Field by field: a new one is not ignored by accident.
    let BotMachine {
        bot: name,
        image,
        memory_mib: _,
        vcpus: _,
        // A root file system at Fly has 8 GB.
        disk_mib: _,
        network,
        // There is nothing to clone from.
        start: _,
        cloud: _,
        reserve,
        run: _,
    } = bot;
    let memory = guest(bot)?.memory_mb.unwrap_or_default();
    if image.is_empty() {
        return Err(Fault::refused(format!("bots.{name}.image: name an image that Fly can pull")));
    }
    if matches!(network, Network::Internet { allow } if !allow.is_empty()) {
        return Err(Fault::refused(format!(
            "bots.{name}.allow: Fly has no walls that keep a machine to a list"
        )));
    }
    let suspends = reserve.max > 0 && reserve.kind == ReserveKind::Suspended;
    if suspends && memory > SUSPEND_MEMORY_MB {
        return Err(Fault::refused(format!(
            "bots.{name}.reserve.kind: Fly suspends machines of up to {SUSPEND_MEMORY_MB} MB, and \
             this bot's have {memory}; say \"stopped\" or \"started\""
        )));
    }
    Ok(())
}

/// The smallest shape of Fly's that has what the bot wants.
pub(super) fn guest(bot: &BotMachine) -> Result<Guest, Fault> {
    let (kind, cpu_kind) = match bot.cloud.cpu_kind {
        CpuKind::Shared => ("shared", FlyCpuKind::Shared),
        CpuKind::Dedicated => ("performance", FlyCpuKind::Performance),
    };
    let shape = SHAPES.iter().find(|shape| shape.cpu_kind == kind);
    let Shape { cpus, min_memory_mb, max_memory_mb, step_mb, .. } =
        *shape.ok_or_else(|| Fault::refused(format!("Fly has no {kind} processors")))?;
    let wanted = u32::from(bot.vcpus);
    let Some(count) = cpus.iter().copied().find(|count| *count >= wanted) else {
        let most = cpus.last().copied().unwrap_or_default();
        return Err(Fault::refused(format!(
            "bots.{}.vcpus: {wanted} are more than the {most} {kind} ones that Fly has",
            bot.bot
        )));
    };
    let memory = bot.memory_mib.next_multiple_of(step_mb).max(min_memory_mb * count);
    if memory > max_memory_mb * count {
        return Err(Fault::refused(format!(
            "bots.{}.memory_mib: {} are more than the {} that Fly gives to {count} {kind} \
             processors; ask for more vcpus, or cpu_kind = \"dedicated\"",
            bot.bot,
            bot.memory_mib,
            max_memory_mb * count
        )));
    }
    Ok(Guest {
        cpu_kind: Some(cpu_kind),
        cpus: Some(count),
        memory_mb: Some(memory),
        ..Guest::default()
    })
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
