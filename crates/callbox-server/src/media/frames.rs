//! As much of Pipecat's wire format as the dispatcher must know: is this audio?
//!
//! `Frame { oneof { TextFrame text = 1; AudioRawFrame audio = 2; TranscriptionFrame
//! transcription = 3; MessageFrame message = 4; } }` (pipecat `frames/frames.proto`). A message
//! whose first field is number 2, length-delimited, is audio. Everything else passes unread.

use tokio_tungstenite::tungstenite::Message;

const AUDIO: u8 = (2 << 3) | 2;

pub(super) fn carries_audio(message: &Message) -> bool {
    matches!(message, Message::Binary(bytes) if bytes.first() == Some(&AUDIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_binary_audio_frames_are_audio() {
        assert!(carries_audio(&Message::Binary(vec![0x12, 0x02, 0x1a, 0x00].into())));
        assert!(!carries_audio(&Message::Binary(vec![0x22, 0x00].into())));
        assert!(!carries_audio(&Message::Binary(Vec::new().into())));
        assert!(!carries_audio(&Message::text("\u{12}")));
    }
}
