//! Doing what is owed. Each duty ends with the event that says what came of it; what may be
//! tried again is tried again here, until the session's own deadline makes it pointless.

use std::{sync::Arc, time::Duration};

use callbox_core::{
    Duty, EndCode, EndReason, EventKind, Fault, FaultKind, MachineState, Session, UsageAt,
};
use callbox_machines::{MachineSpec, Made, Provider, StartFault};
use callbox_protocol::api::LogSource;
use callbox_transports::Transport;
use tokio::time::Instant;

use super::{
    Duties,
    attend::{self, ENDS_ITSELF},
    warn::warn,
};
use crate::{
    config::Bot,
    outside::{self, ANSWER, in_time},
    planted,
};

/// Between attempts at a call that may work later. Doubles up to the last.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);

impl Duties {
    pub(super) async fn perform(self, duty: Duty, session: Session) -> EventKind {
        match duty {
            Duty::Admit => self.plane.queue.wait(&self.plane, &session).await,
            Duty::EnsureMachine => self.ensure_machine(&session).await,
            Duty::OpenRoom => self.open_room(&session).await,
            Duty::Attend => attend::attend(&self, &session).await,
            Duty::WatchRoom => self.watch_room(&session).await,
            Duty::Warn => self.warn(&session).await,
            Duty::DestroyMachine => self.destroy_machine(&session).await,
            Duty::CloseRoom => self.close_room(&session).await,
            Duty::WakeAt(_) => EventKind::TimePassed,
        }
    }

    async fn ensure_machine(&self, session: &Session) -> EventKind {
        let incarnation = session.incarnation;
        let failed = |code, detail: String| EventKind::MachineFailed {
            incarnation,
            reason: EndReason::new(code, detail),
        };
        let found = self.bot(session).and_then(|bot| Ok((bot, self.provider(session)?)));
        let (bot, provider) = match found {
            Ok(found) => found,
            Err(detail) => return failed(EndCode::StartFailed, detail),
        };
        let name = session.machine_name().expect("a wanted machine has a name");
        let (bot, version) = (Arc::clone(&bot.machine), session.version.clone());
        let inbox = self.inbox.clone();
        let made = Made::new(move |id| {
            let _ = inbox.send(EventKind::MachineMade { incarnation, id: id.to_owned() });
        });
        let spec = MachineSpec { name, incarnation, bot, version, made };
        let mut pause = FIRST_PAUSE;
        loop {
            match outside::call("machine.ensure", provider.ensure(&spec)).await {
                Ok(started) => {
                    self.link.send_replace(Some(started.link));
                    return EventKind::MachineStarted { incarnation, facts: started.facts };
                }
                Err(StartFault::Bot { detail, log_tail }) => {
                    self.keep_tail(session, &log_tail);
                    return failed(EndCode::BotNotReady, detail);
                }
                Err(StartFault::Provider(fault)) => match fault.kind {
                    FaultKind::Refused | FaultKind::NotFound => {
                        return failed(EndCode::StartFailed, fault.detail);
                    }
                    FaultKind::Unknown if planted::is("unknown-is-refused") => {
                        return failed(EndCode::StartFailed, fault.detail);
                    }
                    // `ensure` adopts a machine of this name, so looking and repeating are one.
                    FaultKind::Unavailable | FaultKind::Unknown => {
                        tracing::warn!(%fault, "the machine did not start, trying again");
                    }
                },
            }
            wait(&mut pause).await;
        }
    }

    async fn warn(&self, session: &Session) -> EventKind {
        let (links, deadline) = (self.link.subscribe(), session.deadline_at);
        match warn(&self.plane, links, deadline, EndCode::MaxDuration).await {
            Ok(()) => EventKind::WarningDelivered,
            Err(detail) => EventKind::WarningFailed { detail },
        }
    }

    /// The bot is asked to end first, so that it can say good-bye to whom it talks to; a machine
    /// that does not answer is ended all the same.
    async fn destroy_machine(&self, session: &Session) -> EventKind {
        let incarnation = session.incarnation;
        let name = session.machine_name().expect("a machine to destroy has a name");
        if session.machine == MachineState::Running {
            self.meter.measure(session, UsageAt::End).await;
        }
        let link = self.link.borrow().clone();
        if let Some(link) = link {
            let grace =
                self.plane.bot(&session.bot).map_or(Duration::from_secs(3), |bot| bot.stop_grace);
            let goodbye = async {
                if outside::call("machine.stop", link.stop(grace)).await.is_ok() {
                    link.closed().await;
                }
            };
            let _ = tokio::time::timeout(grace + Duration::from_secs(1), goodbye).await;
            self.link.send_replace(None);
        }
        if planted::is("two-at-once") && session.machine == MachineState::Failed {
            return EventKind::MachineDestroyed { incarnation };
        }
        // A provider that is gone from the configuration cannot be asked. Its machines end
        // themselves, as nobody speaks to them; one that was half made goes with the first sweep
        // after the provider came back.
        let (began, alone) = (Instant::now(), self.plane.config.orphan_after + ENDS_ITSELF);
        let mut pause = FIRST_PAUSE;
        loop {
            match self.plane.providers.get(session.provider.as_str()) {
                None if began.elapsed() >= alone => {
                    tracing::error!(
                        provider = session.provider,
                        machine = name,
                        "no such provider is configured; its machine has ended itself by now"
                    );
                    return EventKind::MachineDestroyed { incarnation };
                }
                None => tracing::error!(
                    provider = session.provider,
                    "no such provider is configured; its machine stays until it ends itself"
                ),
                Some(provider) => {
                    let destroyed = in_time(ANSWER, provider.destroy(&name));
                    match outside::call("machine.destroy", destroyed).await {
                        Ok(()) => return EventKind::MachineDestroyed { incarnation },
                        Err(Fault { kind: FaultKind::NotFound, .. }) => {
                            return EventKind::MachineDestroyed { incarnation };
                        }
                        Err(_) if planted::is("destroy-once") => {
                            return EventKind::MachineDestroyed { incarnation };
                        }
                        Err(fault) => {
                            tracing::warn!(%fault, "the machine was not destroyed, trying again")
                        }
                    }
                }
            }
            wait(&mut pause).await;
        }
    }

    pub(super) fn bot(&self, session: &Session) -> Result<Arc<Bot>, String> {
        let bot = self.plane.bot(&session.bot).cloned();
        bot.ok_or_else(|| format!("bot {:?} is no longer configured", session.bot))
    }

    pub(super) fn provider(&self, session: &Session) -> Result<Arc<dyn Provider>, String> {
        let provider = self.plane.providers.get(session.provider.as_str()).cloned();
        provider.ok_or_else(|| format!("provider {:?} is not available", session.provider))
    }

    pub(super) fn transport(&self, session: &Session) -> Option<Arc<dyn Transport>> {
        self.plane.transports.get(session.transport.as_str()).cloned()
    }

    fn keep_tail(&self, session: &Session, lines: &[String]) {
        let log = self.plane.logs.writer(session.id);
        let now = u64::try_from(self.plane.clock.now().as_micros() / 1000).unwrap_or(0);
        for line in lines {
            log.write(now, LogSource::Bot, line);
        }
    }
}

pub(super) async fn wait(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(LAST_PAUSE);
}
