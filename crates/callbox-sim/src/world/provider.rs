//! The provider, as one dispatcher sees it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use callbox_core::{Fault, MachineFacts, of_machine_name};
use callbox_link::{Link, fresh_wake};
use callbox_machines::{
    Admission, BotVersion, Claims, Listed, MachineSpec, Progress, Provider, StartFault, Started,
};
use callbox_protocol::agent::Phase;
use tokio::time::{Instant, timeout};

use super::{World, carrier::Line, facts::Cause, front::Life, machines::key};

/// The provider's and the transport's name in configurations.
pub const NAME: &str = "sim";
/// How long a machine that was made may be silent before its start has failed.
const ANSWER: Duration = Duration::from_secs(20);

/// See the module's documentation.
pub struct SimProvider(pub Arc<Life>);

/// What becomes of a call, as the world decides when it arrives.
pub enum Fate {
    /// What was asked happens, and is said.
    Works,
    /// Nothing happens.
    Fails(Fault),
    /// It happens, and this is said.
    Happens(Fault),
}

impl World {
    /// What becomes of a call by which something comes or goes.
    pub fn fate(&self, what: &str) -> Fate {
        let weather = &self.weather;
        let of = |fault: &str| format!("fault.{fault}.{what}");
        let away = self.inner().provider_away_until > Instant::now();
        if away || self.happens(weather.unavailable) {
            self.inner().count(&of("unavailable"));
            return Fate::Fails(Fault::unavailable("the simulated world is busy"));
        }
        if self.happens(weather.lost) {
            let fault = Fault::unknown("the answer got lost in the simulated world");
            let happened = self.happens(0.6);
            self.inner().count(&of(if happened { "lost-answer" } else { "lost-request" }));
            return if happened { Fate::Happens(fault) } else { Fate::Fails(fault) };
        }
        Fate::Works
    }

    /// The same for what may also be refused.
    pub fn fate_of_order(&self, what: &str) -> Fate {
        let refused = || Fault::refused("the simulated world does not want to");
        if self.happens(self.weather.refused) {
            self.inner().count(&format!("fault.refused.{what}"));
            return Fate::Fails(refused());
        }
        if self.happens(self.weather.lies) {
            self.inner().count(&format!("fault.refused-a-lie.{what}"));
            return Fate::Happens(refused());
        }
        self.fate(what)
    }
}

enum Standing {
    Made(Line),
    Making,
    Gone,
}

impl SimProvider {
    /// Where a machine of this name is looked for.
    fn key(&self, name: &str) -> String {
        key(self.host(), name)
    }

    fn host(&self) -> u64 {
        if self.0.world.weather.hosted { self.0.host } else { 0 }
    }

    fn standing(&self, name: &str) -> Standing {
        let inner = self.0.world.inner();
        // What was said to be gone is not talked to.
        match inner.machines.get(&self.key(name)) {
            Some(machine) if !machine.behind_our_back => match &machine.agent {
                Some(agent) => Standing::Made(Line::new(agent.carrier(), &machine.lines)),
                None => Standing::Making,
            },
            _ => Standing::Gone,
        }
    }

    async fn made(&self, name: &str) -> Result<Line, Fault> {
        let mut changes = self.0.world.changes();
        loop {
            match self.standing(name) {
                Standing::Made(line) => return Ok(line),
                Standing::Gone => return Err(Fault::unavailable("it ended while it was made")),
                Standing::Making => drop(changes.changed().await),
            }
        }
    }
}

#[async_trait]
impl Provider for SimProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn on_this_host(&self) -> bool {
        self.0.world.weather.hosted
    }

    async fn prepare(&self, _bot: &BotVersion, _: &dyn Progress) -> Result<(), StartFault> {
        Ok(())
    }

    fn admit(&self, _next: &MachineSpec, claimed: &Claims) -> Result<Admission, Fault> {
        Ok(match self.0.world.weather.room_for {
            Some(room) if claimed.count() >= room => {
                self.0.world.inner().count("queue.full");
                Admission::Full { detail: format!("all {room} places are taken") }
            }
            _ => Admission::Granted,
        })
    }

    fn max_starting(&self) -> Option<usize> {
        self.0.world.weather.max_starting
    }

    async fn ensure(&self, spec: &MachineSpec) -> Result<Started, StartFault> {
        let (world, name, host) = (Arc::clone(&self.0.world), spec.name.clone(), self.host());
        let ordered = self.0.call_vendor("ensure", 40.0, move |waited_for| async move {
            let fate = world.fate_of_order("ensure");
            if let Fate::Fails(fault) | Fate::Happens(fault) = &fate
                && fault.kind == callbox_core::FaultKind::Refused
                && let Some((session, _)) = of_machine_name(&name)
            {
                world.inner().facts(session).did(Cause::Refused);
            }
            match fate {
                Fate::Fails(fault) => Err(fault),
                Fate::Happens(fault) => {
                    world.order_machine(host, &name, waited_for);
                    Err(fault)
                }
                Fate::Works => {
                    world.order_machine(host, &name, waited_for);
                    Ok(())
                }
            }
        });
        ordered.await?;
        spec.made.tell(&format!("m-{}", spec.name));
        let line = self.made(&spec.name).await?;
        self.0.crash_point("before", "wake").await;
        let waking = async {
            let link = Link::open(Box::new(line)).await.map_err(Fault::unavailable)?;
            let health = link.health().await.map_err(Fault::unavailable)?;
            if health.phase == Phase::Prepared {
                link.wake(&fresh_wake(&spec.name)).await.map_err(Fault::unavailable)?;
            }
            Ok::<_, Fault>(link)
        };
        let slow = Fault::unavailable("the machine does not answer");
        let link = timeout(ANSWER, waking).await.unwrap_or(Err(slow))?;
        self.0.crash_point("after", "wake").await;
        let facts = MachineFacts {
            accelerator: "none".into(),
            start: "simulated".into(),
            stages: Vec::new(),
            not_enforced: Vec::new(),
            price: None,
        };
        Ok(Started { link, facts })
    }

    async fn connect(&self, name: &str) -> Result<Link, Fault> {
        let world = Arc::clone(&self.0.world);
        let looked = self.0.call_vendor("connect", 10.0, move |_| async move {
            match world.fate("connect") {
                Fate::Works => Ok(()),
                Fate::Fails(fault) | Fate::Happens(fault) => Err(fault),
            }
        });
        looked.await?;
        let Standing::Made(line) = self.standing(name) else {
            return Err(Fault::not_found("no such simulated machine"));
        };
        Link::open(Box::new(line)).await.map_err(Fault::unavailable)
    }

    async fn destroy(&self, name: &str) -> Result<(), Fault> {
        let (world, name, host) = (Arc::clone(&self.0.world), name.to_owned(), self.host());
        let call = self.0.call_vendor("destroy", 60.0, move |_| async move {
            match world.fate("destroy") {
                Fate::Fails(fault) => Err(fault),
                Fate::Happens(fault) => {
                    world.destroy_machine(host, &name);
                    Err(fault)
                }
                Fate::Works => {
                    world.destroy_machine(host, &name);
                    Ok(())
                }
            }
        });
        call.await
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        let (world, host) = (Arc::clone(&self.0.world), self.host());
        let call = self.0.call_vendor("list-machines", 100.0, move |_| async move {
            match world.fate("list-machines") {
                Fate::Works => Ok(world.listed_machines(host)),
                Fate::Fails(fault) | Fate::Happens(fault) => Err(fault),
            }
        });
        call.await
    }
}
