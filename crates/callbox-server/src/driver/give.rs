//! Giving a machine its session's data, once.

use std::{collections::BTreeMap, time::Duration};

use callbox_core::{Limits, Session};
use callbox_link::{Link, LinkError};
use callbox_protocol::agent::{Phase, SessionData};
use callbox_transports::{Plan, Room};
use tokio::time::timeout;

use super::Duties;
use crate::outside;

/// How long an answer to something small is waited for: a provider's, or a running machine's.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// How long a machine outlives its session's last deadline before it ends itself.
const OVERDUE: Duration = Duration::from_secs(600);

/// Why a machine does not have its session's data.
pub(super) enum NotGiven {
    /// The data could not be put together: a secret cannot be read, the bot is not configured any
    /// more.
    Data(String),
    /// The machine did not take it, or does not answer.
    Link(LinkError),
}

/// Gives the machine its session's data, unless an earlier dispatcher did: what that one could
/// read, and we perhaps cannot, is not needed again.
pub(super) async fn give(duties: &Duties, session: &Session, link: &Link) -> Result<(), NotGiven> {
    let answer = async {
        let health = link.health().await.map_err(NotGiven::Link)?;
        if matches!(health.phase, Phase::InSession | Phase::Over) {
            return Ok(());
        }
        let data = session_data(duties, session).map_err(NotGiven::Data)?;
        let given = outside::call("machine.session", link.session(&data)).await;
        given.map(drop).map_err(NotGiven::Link)
    };
    timeout(ANSWER, answer).await.unwrap_or(Err(NotGiven::Link(LinkError::Closed)))
}

fn session_data(duties: &Duties, session: &Session) -> Result<SessionData, String> {
    let bot = duties.bot(session)?;
    let transport = duties
        .transport(session)
        .ok_or_else(|| format!("transport {:?} is no longer configured", session.transport))?;
    let (room, base_url) = (Room::of(session), session.base_url.as_str());
    let join = transport.plan(&Plan { room: &room, base_url, bot_port: bot.machine.run.port });
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
