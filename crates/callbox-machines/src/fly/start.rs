//! From a machine that Fly made to a bot that is ready: the agent dials, and is told what to do.

use std::{sync::Mutex, time::Duration};

use callbox_core::{Fault, MachineFacts, StartStage};
use callbox_fly::{
    Action, Error,
    wire::{Machine, State},
};
use callbox_link::{Link, LinkError, fresh_wake};
use callbox_protocol::agent::Phase;
use tokio::time::{Instant, sleep};

use super::{CALL, Inner, WALLS, fault::fault, find::Place};
use crate::{ImageRun, MachineSpec, StartFault, Started};

/// Between two looks at a machine whose agent has not come.
const LOOK: Duration = Duration::from_secs(5);

/// What the parts of a start took.
#[derive(Default)]
pub(super) struct Stages(Mutex<Vec<StartStage>>);

impl Stages {
    /// One more, which began then and is over.
    pub fn add(&self, name: &str, since: Instant) {
        let stage = StartStage { name: name.into(), took: since.elapsed() };
        self.0.lock().expect("no panic while held").push(stage);
    }
}

impl Inner {
    /// Waits for the machine's agent and has the bot made ready.
    pub async fn started(
        &self,
        spec: &MachineSpec,
        place: &Place,
        stages: Stages,
    ) -> Result<Started, StartFault> {
        let since = Instant::now();
        let (link, _) = self.agent_of(&spec.name, place).await?;
        stages.add("boot", since);
        self.awake(spec, place, link, stages, "cold").await
    }

    /// Has the bot made ready and the machine woken.
    pub async fn awake(
        &self,
        spec: &MachineSpec,
        place: &Place,
        mut link: Link,
        stages: Stages,
        start: &str,
    ) -> Result<Started, StartFault> {
        loop {
            match self.make_ready(&link, spec, &stages).await {
                Ok(()) => break,
                // Its connection broke; it dials again, and goes on where it was.
                Err(LinkError::Closed | LinkError::Hello(_)) => {
                    link = self.agent_of(&spec.name, place).await?.0;
                }
                Err(error) => return Err(StartFault::of_prepare(error)),
            }
        }
        let facts = MachineFacts {
            accelerator: "fly".into(),
            start: start.into(),
            stages: stages.0.into_inner().expect("no panic while held"),
            not_enforced: vec![WALLS.into()],
            price: self.price(&spec.bot, place.region.as_deref()),
        };
        Ok(Started { link, facts })
    }

    /// The next connection of the machine's agent and its process, unless the machine ends before.
    pub async fn agent_of(&self, name: &str, place: &Place) -> Result<(Link, String), StartFault> {
        tokio::select! {
            link = self.arrivals.link_of(name) => Ok(link),
            why = self.end_of(place) => Err(why),
        }
    }

    /// One that was awake already, before a restart of ours, is taken as it is.
    async fn make_ready(
        &self,
        link: &Link,
        spec: &MachineSpec,
        stages: &Stages,
    ) -> Result<(), LinkError> {
        let phase = link.health().await?.phase;
        if phase == Phase::Booted {
            let since = Instant::now();
            link.prepare(&spec.bot.run.prepare(&ImageRun::default())).await?;
            stages.add("prepare", since);
        }
        if matches!(phase, Phase::Booted | Phase::Prepared | Phase::Frozen) {
            let since = Instant::now();
            link.wake(&fresh_wake(&spec.name)).await?;
            stages.add("wake", since);
        }
        Ok(())
    }

    /// Resolves when the machine has ended: with why, as far as Fly says it.
    pub async fn end_of(&self, place: &Place) -> StartFault {
        loop {
            sleep(LOOK).await;
            match self.look_at(place).await {
                Ok(machine) if has_ended(&machine) => return StartFault::Provider(ended(&machine)),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    let why = "the machine ended before its agent reached this dispatcher; is \
                               `callbox-agent join` its image's entry point?";
                    return StartFault::Provider(Fault::refused(why));
                }
                Err(error) if error.may_pass() => {
                    tracing::warn!(machine.id = place.id, %error, "cannot look at a machine");
                }
                Err(error) => return StartFault::Provider(fault(&error)),
            }
        }
    }

    pub async fn look_at(&self, place: &Place) -> Result<Machine, Error> {
        self.pace.turn(Action::Get, &place.id).await;
        self.client.get(&place.app, &place.id, CALL).await
    }
}

/// Whether nothing runs in it any more.
pub(super) fn has_ended(machine: &Machine) -> bool {
    machine.state.as_ref().is_some_and(|state| {
        state.is_gone() || matches!(state, State::Failed | State::Stopped | State::Stopping)
    })
}

fn ended(machine: &Machine) -> Fault {
    let state = machine.state.as_ref().map_or("gone", State::as_str);
    let exit = machine.events.iter().find_map(|event| event.exit());
    Fault::refused(match exit {
        Some(exit) if exit.oom_killed => format!("the machine is {state}: it ran out of memory"),
        Some(exit) => match exit.guest_exit_code.or(exit.exit_code) {
            Some(code) => format!("the machine is {state}: its program ended with code {code}"),
            None => format!("the machine is {state}: its program ended"),
        },
        None => format!("the machine is {state}, and its agent never came"),
    })
}
