//! The machines of the whole organisation, in pages by the time of their last change.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use callbox_fly::limits;
use callbox_fly::wire::{MachineConfig, OrgMachine, OrgMachines};

use super::body::Query;
use super::machines::told;
use crate::fly::StandIn;
use crate::fly::record::Record;
use crate::fly::refusal::Refusal;
use crate::fly::trouble::Struck;
use crate::fly::world::Answer;

pub async fn list(
    State(standin): State<StandIn>,
    Path(organization): Path<String>,
    Extension(struck): Extension<Struck>,
    query: Query,
) -> Answer<Json<OrgMachines>> {
    let inner = standin.world.lock();
    if organization != inner.organization {
        return Err(Refusal::new(404, "organization not found"));
    }
    let now = inner.clock.now();
    let most = query.number("limit")?.unwrap_or(limits::ORG_PAGE).clamp(1, limits::ORG_PAGE);
    let after = query.get("updated_after").map(str::parse::<jiff::Timestamp>).transpose();
    let after = after.map_err(|_| Refusal::invalid("updated_after is no time"))?;
    let (regions, states) = (query.list("region"), query.list("state"));
    let among = |list: &[&str], word: &str| list.is_empty() || list.contains(&word);
    let deleted = query.flag("include_deleted");
    let mut found: Vec<(String, OrgMachine)> = inner
        .machines
        .values()
        .filter(|one| among(&regions, &one.region))
        .filter(|one| after.is_none_or(|after| one.updated_at > after))
        .filter_map(|one| {
            let state = told(one, &struck, now, deleted)?;
            let shown =
                OrgMachine { state: Some(state.clone()), ..shown(one, query.flag("summary")) };
            among(&states, state.as_str()).then(|| (place(one), shown))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    if let Some(cursor) = query.get("cursor") {
        found.retain(|(place, _)| place.as_str() > cursor);
    }
    let more = found.len() > most as usize;
    found.truncate(most as usize);
    let last = found.last();
    Ok(Json(OrgMachines {
        next_cursor: last.filter(|_| more).map(|(place, _)| place.clone()),
        last_machine_id: last.map(|(_, one)| one.id.clone()),
        last_updated_at: last.and_then(|(_, one)| one.updated_at.clone()),
        machines: found.into_iter().map(|(_, one)| one).collect(),
        error_regions: Vec::new(),
    }))
}

/// Where a machine stands in the order; sorts as text.
fn place(one: &Record) -> String {
    format!("{:020}-{}", one.updated_at.as_nanosecond(), one.id)
}

fn shown(one: &Record, summary: bool) -> OrgMachine {
    let config = MachineConfig {
        image: one.config.image.clone(),
        guest: one.config.guest.clone(),
        metadata: one.config.metadata.clone(),
        ..MachineConfig::default()
    };
    OrgMachine {
        id: one.id.clone(),
        app_name: one.app.clone(),
        name: Some(one.name.clone()),
        state: Some(one.state.clone()),
        region: Some(one.region.clone()),
        version: Some(one.version.clone()),
        instance_id: Some(one.version.clone()),
        private_ip: Some(one.private_ip.clone()),
        created_at: Some(one.created_at.to_string()),
        updated_at: Some(one.updated_at.to_string()),
        config: (!summary).then_some(config),
    }
}
