//! What a client sends before its bot is ready: kept in order, bounded.

use std::{collections::VecDeque, fmt};

use tokio_tungstenite::tungstenite::Message;

/// Held messages.
pub(super) struct Held {
    messages: VecDeque<Message>,
    bytes: usize,
    limit: usize,
}

/// More was sent than is held.
pub(super) struct Full {
    limit: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client sent more than {} bytes before the bot was ready", self.limit)
    }
}

/// What a message costs beside its payload, so that a flood of empty ones is bounded too.
const OVERHEAD: usize = 64;

impl Held {
    pub(super) fn new(limit: usize) -> Held {
        Held { messages: VecDeque::new(), bytes: 0, limit }
    }

    pub(super) fn push(&mut self, message: Message) -> Result<(), Full> {
        let payload = match &message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
            // Answered by the websocket itself; nothing to deliver.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                return Ok(());
            }
        };
        self.bytes += payload + OVERHEAD;
        if self.bytes > self.limit {
            return Err(Full { limit: self.limit });
        }
        self.messages.push_back(message);
        Ok(())
    }

    pub(super) fn into_messages(self) -> impl Iterator<Item = Message> {
        self.messages.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_stops_at_its_limit() {
        let mut held = Held::new(3 * (OVERHEAD + 1));
        for text in ["a", "b", "c"] {
            assert!(held.push(Message::text(text)).is_ok());
        }
        assert!(held.push(Message::Ping(vec![0; 1000].into())).is_ok(), "pings are not held");
        assert!(held.push(Message::Binary(vec![0].into())).is_err());
        let texts: Vec<Message> = held.into_messages().collect();
        assert_eq!(texts, ["a", "b", "c"].map(Message::text));
    }
}
