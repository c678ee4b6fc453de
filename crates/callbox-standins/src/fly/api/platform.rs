//! Regions and placements.

use axum::Json;
use axum::extract::State;
use callbox_fly::limits::REGIONS;
use callbox_fly::wire::{Placement, Placements, PlacementsRequest, Region, Regions};

use super::body::Body;
use crate::fly::refusal::Refusal;
use crate::fly::world::Answer;
use crate::fly::{StandIn, place};

/// What a region without a limit of its own is said to have room for.
const ROOM: u32 = 100;

pub async fn regions(State(standin): State<StandIn>) -> Json<Regions> {
    let regions = REGIONS.iter().map(|(code, part)| Region {
        code: (*code).to_owned(),
        name: code.to_uppercase(),
        geo_region: Some((*part).to_owned()),
    });
    let nearest = standin.world.settings().region.clone();
    Json(Regions { regions: regions.collect(), nearest })
}

/// A dry run: the machines that are asked for are put into the regions in their order, as far
/// as there is room. `count` 0 asks for the room itself.
pub async fn placements(
    State(standin): State<StandIn>,
    Body(request): Body<PlacementsRequest>,
) -> Answer<Json<Placements>> {
    let inner = standin.world.lock();
    if request.org_slug != inner.organization {
        return Err(Refusal::new(404, "organization not found"));
    }
    let default = format!("{},any", standin.world.settings().region);
    let regions = place::expand(request.region.as_deref().unwrap_or(&default))?;
    let mut left = request.count;
    let mut placed = Vec::new();
    for region in regions {
        let capacity = inner.limits.regions.get(region).and_then(|limits| limits.capacity);
        let used = inner.used(region, None).machines;
        let room = capacity.map_or(ROOM, |capacity| capacity.saturating_sub(used));
        let count = if request.count == 0 { room } else { room.min(left) };
        left -= count.min(left);
        if count > 0 {
            placed.push(Placement { region: region.to_owned(), count, concurrency: count.min(16) });
        }
    }
    Ok(Json(Placements { regions: placed }))
}
