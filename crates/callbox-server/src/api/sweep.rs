//! `/v1/sweep`: what is outside and belongs to no living session.

use std::collections::HashMap;

use axum::{Json, extract::State};
use callbox_protocol::api::{self, ErrorBody, SweepFound, SweepNotListed};

use super::{App, caller::Operator, error::Error};
use crate::sweep::{self, Fate, Found, Kind, Survey};

/// Say what a sweep would remove and what it would leave alone, and touch nothing.
#[utoipa::path(
    get, path = "/v1/sweep", tag = "operate",
    responses((status = 200, body = api::Sweep), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn look(State(app): State<App>, _operator: Operator) -> Result<Json<api::Sweep>, Error> {
    let survey = sweep::look(&app.plane).await?;
    Ok(Json(told(&survey, None)))
}

/// Sweep now, as a dispatcher does every minute by itself.
#[utoipa::path(
    post, path = "/v1/sweep", tag = "operate",
    responses((status = 200, body = api::Sweep), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn run(State(app): State<App>, _operator: Operator) -> Result<Json<api::Sweep>, Error> {
    let survey = sweep::look(&app.plane).await?;
    let done = sweep::remove(&app.plane, &survey).await;
    let failures: HashMap<(Kind, &str), String> = done
        .into_iter()
        .filter_map(|(found, failure)| Some(((found.kind, found.name.as_str()), failure?)))
        .collect();
    Ok(Json(told(&survey, Some(&failures))))
}

/// With what failed, if anything was done at all.
fn told(survey: &Survey, failures: Option<&HashMap<(Kind, &str), String>>) -> api::Sweep {
    let one = |found: &Found| {
        let unclaimed = || "no living session claims it".to_owned();
        let failure = failures.map(|failures| failures.get(&(found.kind, found.name.as_str())));
        let (outcome, detail) = match (&found.fate, failure) {
            (Fate::Others(id), _) => ("others", format!("it is of the deployment {id}")),
            (Fate::Young, _) => ("young", "it is younger than limits.sweep_grace_s".to_owned()),
            (Fate::Remove, None) => ("remove", unclaimed()),
            (Fate::Remove, Some(None)) => ("removed", unclaimed()),
            (Fate::Remove, Some(Some(failure))) => ("failed", failure.clone()),
        };
        SweepFound {
            kind: found.kind.as_str().into(),
            provider: found.provider.clone(),
            name: found.name.clone(),
            outcome: outcome.into(),
            detail,
        }
    };
    let not_listed = survey.not_listed.iter().map(|(kind, provider, detail)| SweepNotListed {
        kind: kind.as_str().into(),
        provider: provider.clone(),
        detail: detail.clone(),
    });
    api::Sweep {
        dry_run: failures.is_none(),
        found: survey.found.iter().map(one).collect(),
        not_listed: not_listed.collect(),
    }
}
