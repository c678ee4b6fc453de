//! Having Fly make a machine once, whatever becomes of the calls.
//!
//! The name does it: a create that is repeated is refused with the id of the machine that exists,
//! so after every doubt the same call is simply made again.

use std::{sync::Arc, time::Duration};

use callbox_core::{Fault, of_reserve_name};
use callbox_fly::{
    Action, CapacityScope, Error, ErrorKind, Happened,
    wire::{CreateMachine, Machine},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{CALL, Inner, fault::fault, find::Place, request};
use crate::{MachineSpec, StartFault};

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// A region that has no room is asked again after so long.
const RECOVERS: Duration = Duration::from_secs(60);
/// An image that was just pushed may not be found for so long (fly.md section 9).
const PUSHED: Duration = Duration::from_secs(60);

impl Inner {
    /// The machine of this spec: the one that exists, or a new one. Goes on until there is one, or
    /// there will be none; its caller has a deadline.
    pub async fn made(self: &Arc<Self>, spec: &MachineSpec) -> Result<Place, StartFault> {
        if let Some(place) = self.known_place(&spec.name) {
            return Ok(place);
        }
        let is_reserve = of_reserve_name(&spec.name).is_some();
        let app = self.app_of(&spec.name).to_owned();
        let token = self.arrivals.first_token(&spec.name);
        let began = Instant::now();
        loop {
            let regions = self.regions(spec);
            let request = request::create(spec, &self.config, &regions, token.clone())?;
            self.pace.turn(Action::Create, &app).await;
            let error = match self.create(&app, &spec.name, request).await {
                Ok(place) => {
                    spec.made.tell(&place.to_string());
                    return Ok(place);
                }
                Err(error) => error,
            };
            tracing::warn!(machine.name = spec.name, app, %error, "Fly made no machine");
            match &error.kind {
                ErrorKind::RateLimited { retry_after } => {
                    let pause = retry_after.unwrap_or(PAUSE);
                    self.pace.too_often(Action::Create, &app, pause).await;
                }
                ErrorKind::Capacity { scope: CapacityScope::Region } | ErrorKind::Quota { .. } => {
                    let named = match &error.kind {
                        ErrorKind::Quota { region } => region.clone(),
                        _ => None,
                    };
                    if !self.has_no_room(named.as_ref(), &regions) {
                        return Err(StartFault::Provider(fault(&error)));
                    }
                }
                ErrorKind::ImageMissing if began.elapsed() > PUSHED => {
                    return Err(StartFault::Provider(Fault::refused(error)));
                }
                // As many as there may be. A session comes before what only waits for one; and
                // whoever waits in line is told so.
                ErrorKind::MachineLimit if !is_reserve && self.make_way().await => {}
                ErrorKind::MachineLimit => return Err(StartFault::Provider(fault(&error))),
                _ if error.may_pass() => sleep(PAUSE).await,
                _ => return Err(StartFault::Provider(fault(&error))),
            }
        }
    }

    /// One call, which is made to its end even if nobody waits for it any more: whoever destroys
    /// the machine then waits for it instead.
    async fn create(
        self: &Arc<Self>,
        app: &str,
        name: &str,
        request: CreateMachine,
    ) -> Result<Place, Error> {
        let (asking, asked) = watch::channel(());
        self.know(name, |known| known.asked = Some(asked));
        let (inner, app, name) = (Arc::clone(self), app.to_owned(), name.to_owned());
        let call = tokio::spawn(async move {
            let made = inner.client.create(&app, &request, CALL).await;
            let made = match made {
                Ok(Machine { id, region, .. }) => Ok(Place { app, id, region }),
                Err(error) => match &error.kind {
                    ErrorKind::NameTaken { machine_id: Some(id) } => {
                        Ok(Place { app, id: id.clone(), region: None })
                    }
                    _ => Err(error),
                },
            };
            inner.know(&name, |known| match &made {
                Ok(place) => known.place = Some(place.clone()),
                Err(error) if error.happened() == Happened::Maybe => {
                    known.doubt = Some(Instant::now());
                }
                Err(_) => {}
            });
            drop(asking);
            made
        });
        call.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Where the bot's machines may be, without those regions that lately had no room; all of them
    /// if none is left.
    fn regions(&self, spec: &MachineSpec) -> Vec<String> {
        let wanted = &spec.bot.cloud.regions;
        let full = self.full.lock().expect("no panic while held");
        let has_room = |region: &&String| {
            full.get(*region).is_none_or(|since: &Instant| since.elapsed() > RECOVERS)
        };
        let left: Vec<String> = wanted.iter().filter(has_room).cloned().collect();
        if left.is_empty() { wanted.clone() } else { left }
    }

    /// Remembers where there was no room. False if there is nowhere else to go: Fly was asked for
    /// any of these regions, and tried them in order.
    fn has_no_room(&self, named: Option<&String>, asked: &[String]) -> bool {
        let mut full = self.full.lock().expect("no panic while held");
        let now = Instant::now();
        match named {
            Some(region) => {
                full.insert(region.clone(), now);
                asked.iter().any(|other| other != region)
            }
            None => {
                full.extend(asked.iter().map(|region| (region.clone(), now)));
                false
            }
        }
    }
}
