//! Being with a machine that runs: it gets its session's data once, and is listened to until it
//! has nothing more to say.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use callbox_core::{BotExit, EndCode, EndReason, EventKind, Fault, FaultKind, Limits, Session};
use callbox_link::{Link, LinkError};
use callbox_machines::Provider;
use callbox_protocol::{
    agent::{AgentEventKind, LogLine, LogStream, Phase, SessionData},
    api::LogSource,
};
use futures::{
    StreamExt as _,
    stream::{BoxStream, Fuse},
};
use tokio::time::{Instant, timeout};

use super::{
    Chain, Duties,
    duties::{FIRST_PAUSE, wait},
    restart::lines_of,
};
use crate::{config::Bot, logs::Log, outside};

/// How long an answer to something small is waited for: a provider's, or a running machine's.
const ANSWER: Duration = Duration::from_secs(20);
/// How often the connection to a machine is made anew before the machine counts as lost.
const RECONNECTS: u32 = 3;
/// A machine that no dispatcher speaks to has ended itself so long after its time at the latest:
/// its bot gets a moment.
const ENDS_ITSELF: Duration = Duration::from_secs(10);

/// How long a machine outlives its session's last deadline before it ends itself.
const OVERDUE: Duration = Duration::from_secs(600);

/// Silence after a bot's end that means that all was said.
const PAUSE: Duration = Duration::from_millis(100);
/// How long last words may take in all.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Ends with the event that ends the session; everything before it goes to the inbox.
pub(super) async fn attend(duties: &Duties, session: &Session) -> EventKind {
    let incarnation = session.incarnation;
    let lost = |detail: String| EventKind::MachineLost { incarnation, detail };
    let (bot, provider) = match duties.bot_and_provider(session) {
        Ok(found) => found,
        Err(detail) => return lost(detail),
    };
    let name = session.machine_name().expect("a running machine has a name");
    let data = match session_data(duties, &bot, session) {
        Ok(data) => data,
        Err(detail) => {
            let reason = EndReason::new(EndCode::StartFailed, detail);
            return EventKind::MachineFailed { incarnation, reason };
        }
    };
    let mut heard = Heard { incarnation, event: 0, log: written_before(duties, session) };
    // A machine that no dispatcher spoke to for so long is gone, whatever its provider says.
    let alone = duties.plane.config.orphan_after + ENDS_ITSELF;
    // Of all attempts together; whatever comes after the machine was heard has all its time.
    let mut end_of_patience = Instant::now() + alone;
    let mut lost_because = String::from("the connection to its agent ended");
    for attempt in 0..=RECONNECTS {
        if attempt > 0 {
            // The agent serves one connection at a time: the old one goes before the next comes.
            duties.link.send_replace(None);
        }
        let link = duties.link.borrow().clone();
        let link = match link {
            Some(link) if attempt == 0 => link,
            _ => match connect(&*provider, &name, end_of_patience).await {
                Ok(link) => link,
                Err(because) => return lost(because),
            },
        };
        duties.link.send_replace(Some(link.clone()));
        if let Err(error) = deliver(&link, &data).await {
            match error {
                LinkError::Agent { .. } | LinkError::NotReseeded { .. } => {
                    let detail = Chain(&error).to_string();
                    return EventKind::BotNotReady { incarnation, detail };
                }
                _ => {
                    lost_because = Chain(&error).to_string();
                    continue;
                }
            }
        }
        let log = duties.plane.logs.writer(session.id);
        let end = tokio::select! {
            end = listen(&link, duties, &log, &mut heard) => end,
            () = silence(&link, bot.silent_after) => {
                // Nor would it answer a good-bye.
                duties.link.send_replace(None);
                let seconds = bot.silent_after.as_secs_f64();
                Some(lost(format!("it answers nothing for {seconds} s, though its connection is open")))
            }
        };
        if let Some(end) = end {
            return end;
        }
        end_of_patience = Instant::now() + alone;
    }
    duties.link.send_replace(None);
    lost(lost_because)
}

/// A new way to the machine, or why there is none. A provider that cannot say, or says nothing,
/// tells nothing of the machine, whose call may go on: it is asked again until `end`.
async fn connect(provider: &dyn Provider, name: &str, end: Instant) -> Result<Link, String> {
    let mut pause = FIRST_PAUSE;
    loop {
        let answer = outside::call("machine.connect", provider.connect(name));
        let because = match timeout(ANSWER, answer).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(Fault { kind: FaultKind::NotFound | FaultKind::Refused, detail })) => {
                return Err(detail);
            }
            Ok(Err(Fault { kind: FaultKind::Unavailable | FaultKind::Unknown, detail })) => detail,
            Err(_) => "there is no answer".into(),
        };
        if Instant::now() >= end {
            return Err(because);
        }
        tracing::warn!(because, "cannot connect to the machine, trying again");
        wait(&mut pause).await;
    }
}

/// Resolves when the machine has answered nothing for `limit`. A guest that stands still closes
/// no connection: only a question shows it.
async fn silence(link: &Link, limit: Duration) {
    loop {
        tokio::time::sleep(limit / 3).await;
        match timeout(limit - limit / 3, link.health()).await {
            Ok(Ok(_)) => {}
            // Whoever listens sees a broken connection, too, and makes another one.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// What was heard before the connection broke, so that nothing is heard twice.
struct Heard {
    incarnation: u32,
    event: u64,
    log: u64,
}

/// How many of the machine's lines an earlier dispatcher has written down. The machine numbers
/// them from 1 and keeps them, so that none is written twice.
fn written_before(duties: &Duties, session: &Session) -> u64 {
    let (entries, _) = duties.plane.logs.read(session.id, 0).unwrap_or_default();
    // An earlier machine's lines have other numbers.
    lines_of(&entries, session.incarnation)
}

/// Gives the machine its session's data, unless an earlier dispatcher did.
async fn deliver(link: &Link, data: &SessionData) -> Result<(), LinkError> {
    let answer = async {
        if matches!(link.health().await?.phase, Phase::InSession | Phase::Over) {
            return Ok(());
        }
        outside::call("machine.session", link.session(data)).await.map(|_| ())
    };
    timeout(ANSWER, answer).await.unwrap_or(Err(LinkError::Closed))
}

fn session_data(duties: &Duties, bot: &Bot, session: &Session) -> Result<SessionData, String> {
    let transport = duties
        .transport(session)
        .ok_or_else(|| format!("transport {:?} is no longer configured", session.transport))?;
    let join = transport.plan(session.id, &session.base_url, bot.machine.run.port);
    let mut env = BTreeMap::new();
    for (name, source) in &bot.secrets {
        let secret = source.read().map_err(|error| format!("the bot's secret {name}: {error}"))?;
        env.insert(name.clone(), secret.reveal().to_owned());
    }
    Ok(SessionData {
        session_id: session.id.to_string(),
        incarnation: session.incarnation,
        bot: session.bot.clone(),
        transport: session.transport.clone(),
        room_url: join.bot_room_url,
        token: join.bot_token,
        body: session.body.clone(),
        env,
        longest_life_ms: Some(u64::try_from(longest_life(session).as_millis()).unwrap_or(u64::MAX)),
    })
}

/// Longer than the session can last from now on: all its deadlines one after the other, and time
/// for a tear-down that is overdue.
fn longest_life(session: &Session) -> Duration {
    let Limits { ready, join, live, ending, .. } = session.limits;
    ready + join + live + ending + OVERDUE
}

/// Listens until the connection ends; then none, or the event that ends the session.
async fn listen(
    link: &Link,
    duties: &Duties,
    log: &Arc<Log>,
    heard: &mut Heard,
) -> Option<EventKind> {
    let incarnation = heard.incarnation;
    let mut events = link.events(heard.event);
    // Fused: it may end before the last words are asked of it.
    let mut logs = link.logs(heard.log).fuse();
    let mut logs_open = true;
    loop {
        tokio::select! {
            // In no order: whoever never stops writing must not hold back what happens. What a bot
            // wrote before its end is read with it.
            line = logs.next(), if logs_open => match line {
                Some(Ok(line)) => keep(log, &line, heard),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the machine's log cannot be read further");
                    logs_open = false;
                }
                None => logs_open = false,
            },
            event = events.next() => match event {
                Some(Ok(event)) => {
                    heard.event = event.seq;
                    match event.kind {
                        AgentEventKind::Ready => { let _ = duties.inbox.send(EventKind::BotReady { incarnation }); }
                        AgentEventKind::NotReady { detail } => {
                            drain(&mut logs, log, heard).await;
                            return Some(EventKind::BotNotReady { incarnation, detail });
                        }
                        AgentEventKind::BotExited { code, signal, out_of_memory } => {
                            drain(&mut logs, log, heard).await;
                            let exit = BotExit { code, signal, out_of_memory };
                            return Some(EventKind::BotExited { incarnation, exit });
                        }
                        AgentEventKind::Unknown => {}
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the machine's events cannot be read further");
                    drain(&mut logs, log, heard).await;
                    return None;
                }
                None => {
                    drain(&mut logs, log, heard).await;
                    return None;
                }
            },
        }
    }
}

fn keep(log: &Log, line: &LogLine, heard: &mut Heard) {
    heard.log = line.seq;
    let source = match line.stream {
        LogStream::Stdout | LogStream::Stderr => LogSource::Bot,
        LogStream::Agent => LogSource::Agent,
    };
    log.write(line.at_ms, source, &line.text);
}

/// A bot's last words come with its end; they are the ones that people look for. A machine that
/// goes on talking holds nobody up.
async fn drain(
    logs: &mut Fuse<BoxStream<'static, Result<LogLine, LinkError>>>,
    log: &Log,
    heard: &mut Heard,
) {
    let last_words = async {
        while let Ok(Some(Ok(line))) = timeout(PAUSE, logs.next()).await {
            keep(log, &line, heard);
        }
    };
    let _ = timeout(LAST_WORDS, last_words).await;
}
