//! How a call came to its end, and what driver and client are told of it.

use callbox_core::{EndCode, EndReason, EventKind, MachineState, Outcome, Session};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, timeout};

use super::client::Close;
use crate::plane::{Handle, over};

/// Who ended the call. On the wire between relay and dispatcher, so there are only additions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub(super) enum End {
    /// The client closed, or its connection broke.
    ClientLeft {
        /// How it was seen.
        detail: String,
    },
    /// The client sent more than is held.
    Overflow {
        /// How much.
        detail: String,
    },
    /// The bot closed its websocket.
    BotClosed {
        /// As the websocket protocol has them; 1005 for none.
        code: u16,
        /// The bot's words.
        reason: String,
    },
    /// The bot's websocket could not be opened, or broke.
    BotBroke {
        /// How it was seen.
        detail: String,
    },
}

impl End {
    pub(super) fn client_left(detail: impl Into<String>) -> End {
        End::ClientLeft { detail: detail.into() }
    }

    pub(super) fn bot_broke(detail: impl Into<String>) -> End {
        End::BotBroke { detail: detail.into() }
    }

    /// What this end alone says to the client, before a driver has made anything of it.
    pub(super) fn close(&self) -> Option<Close> {
        let (code, end) = match self {
            End::ClientLeft { .. } => return None,
            End::Overflow { .. } => (1009, EndCode::ClientOverflow),
            End::BotClosed { code: 1000 | 1001 | 1005, .. } => (1000, EndCode::BotFinished),
            End::BotClosed { .. } | End::BotBroke { .. } => (1011, EndCode::BotFailed),
        };
        Some(Close { code, reason: end.as_str().to_owned() })
    }

    /// Whether the bot is at its end and the client is not: another bot may go on with the call.
    pub(super) fn is_a_bots_failure(&self) -> bool {
        match self {
            End::BotClosed { code, .. } => !matches!(code, 1000 | 1001 | 1005),
            End::BotBroke { .. } => true,
            End::ClientLeft { .. } | End::Overflow { .. } => false,
        }
    }

    /// Tells the driver, in its words. The machine's own account of a bot's failure is waited
    /// for, up to `patience`: a bot that dies breaks its websocket first; its exit code says more,
    /// and comes soon after. The failure is that of machine `incarnation`, after which the client
    /// may get another one; without that number, its call cannot go on.
    pub(super) async fn tell(&self, handle: &Handle, incarnation: Option<u32>, patience: Duration) {
        let detail = match self {
            End::ClientLeft { detail } => {
                return handle.tell(EventKind::ClientLeft { detail: detail.clone() });
            }
            End::Overflow { detail } => {
                return handle.tell(EventKind::ClientOverflow { detail: detail.clone() });
            }
            End::BotClosed { code: 1000 | 1001 | 1005, .. } => {
                let why = EndReason::new(EndCode::BotFinished, "the bot closed its websocket");
                return handle.tell(EventKind::EndRequested(why));
            }
            End::BotClosed { code, reason } => {
                format!("the bot closed its websocket with code {code} {reason:?}")
            }
            End::BotBroke { detail } => detail.clone(),
        };
        let known = |session: &Session| {
            over(session) || incarnation.is_some_and(|incarnation| given_up(session, incarnation))
        };
        if timeout(patience, handle.until(known)).await.is_err() {
            handle.tell(match incarnation {
                Some(incarnation) => EventKind::BotBroke { incarnation, detail },
                None => EventKind::EndRequested(EndReason::new(EndCode::BotFailed, detail)),
            });
        }
    }
}

/// Whether this machine of the session is known to be of no use any more.
fn given_up(session: &Session, incarnation: u32) -> bool {
    session.incarnation != incarnation || session.machine == MachineState::Failed
}

impl Close {
    /// What the session's end says to its client.
    pub(super) fn of(handle: &Handle) -> Close {
        let state = handle.session.borrow().state.clone();
        match state.why() {
            Some(why) => {
                let code = match why.code.outcome() {
                    _ if why.code == EndCode::ClientOverflow => 1009,
                    Outcome::Completed => 1000,
                    Outcome::Failed => 1011,
                };
                Close { code, reason: why.code.as_str().to_owned() }
            }
            // The session goes on elsewhere, and the call was cut: whoever was in it may come again.
            None => Close { code: 1012, reason: EndCode::DispatcherRestarted.as_str().to_owned() },
        }
    }
}
