//! The frames on the media websocket: Pipecat's `frames.proto` (the same in pipecat-ai 1.7 to
//! 1.14), and the two RTVI messages that a call begins with.

use prost::{Message, Oneof};
use serde_json::{Value, json};

/// Samples per second that clients send.
pub const SEND_RATE: u32 = 16_000;
/// Samples in one frame of 20 ms.
pub const FRAME_SAMPLES: usize = 320;

/// One binary websocket message.
#[derive(Clone, PartialEq, Message)]
pub struct Frame {
    #[prost(oneof = "Payload", tags = "1, 2, 3, 4, 5")]
    pub payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Payload {
    #[prost(message, tag = "1")]
    Text(Text),
    #[prost(message, tag = "2")]
    Audio(AudioRaw),
    #[prost(message, tag = "3")]
    Transcription(Transcription),
    #[prost(message, tag = "4")]
    Message(JsonMessage),
    #[prost(message, tag = "5")]
    Interruption(Interruption),
}

#[derive(Clone, PartialEq, Message)]
pub struct Text {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub text: String,
}

/// Signed 16-bit little-endian samples, channels interleaved.
#[derive(Clone, PartialEq, Message)]
pub struct AudioRaw {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub audio: bytes::Bytes,
    #[prost(uint32, tag = "4")]
    pub sample_rate: u32,
    #[prost(uint32, tag = "5")]
    pub num_channels: u32,
    #[prost(uint64, optional, tag = "6")]
    pub pts: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Transcription {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub text: String,
    #[prost(string, tag = "4")]
    pub user_id: String,
    #[prost(string, tag = "5")]
    pub timestamp: String,
}

/// JSON in a string: RTVI.
#[derive(Clone, PartialEq, Message)]
pub struct JsonMessage {
    #[prost(string, tag = "1")]
    pub data: String,
}

/// The bot stopped talking because it was talked into.
#[derive(Clone, PartialEq, Message)]
pub struct Interruption {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
}

impl Frame {
    /// Up to 20 ms of speech; what is missing is silence.
    pub fn speech(samples: &[i16]) -> Frame {
        let mut audio = Vec::with_capacity(FRAME_SAMPLES * 2);
        for index in 0..FRAME_SAMPLES {
            let sample = samples.get(index).copied().unwrap_or(0);
            audio.extend_from_slice(&sample.to_le_bytes());
        }
        Frame::from(Payload::Audio(AudioRaw {
            audio: audio.into(),
            sample_rate: SEND_RATE,
            num_channels: 1,
            ..AudioRaw::default()
        }))
    }

    /// What `@pipecat-ai/client-js` says first, right after the websocket is open.
    pub fn client_ready(id: &str) -> Frame {
        let message = json!({
            "label": "rtvi-ai",
            "type": "client-ready",
            "id": id,
            "data": {
                "version": "2.1.0",
                "about": {"library": "callbox", "library_version": env!("CARGO_PKG_VERSION")},
            },
        });
        Frame::from(Payload::Message(JsonMessage { data: message.to_string() }))
    }

    /// Whether this is the bot's answer to [`Frame::client_ready`].
    pub fn is_bot_ready(&self) -> bool {
        let Some(Payload::Message(message)) = &self.payload else { return false };
        let json: Value = serde_json::from_str(&message.data).unwrap_or_default();
        json["label"] == "rtvi-ai" && json["type"] == "bot-ready"
    }
}

impl From<Payload> for Frame {
    fn from(payload: Payload) -> Frame {
        Frame { payload: Some(payload) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Made with pipecat-ai 1.14.0: `frames_pb2.Frame(audio=AudioRawFrame(id=7, name="a",
    /// audio=b"\1\2", sample_rate=16000, num_channels=1, pts=9)).SerializeToString()`.
    const PIPECAT_AUDIO: &[u8] = &[
        0x12, 0x10, 0x08, 0x07, 0x12, 0x01, b'a', 0x1a, 0x02, 1, 2, 0x20, 0x80, 0x7d, 0x28, 1,
        0x30, 9,
    ];

    #[test]
    fn audio_is_what_pipecat_writes() {
        let frame = Frame::from(Payload::Audio(AudioRaw {
            id: 7,
            name: "a".into(),
            audio: bytes::Bytes::from_static(b"\x01\x02"),
            sample_rate: 16_000,
            num_channels: 1,
            pts: Some(9),
        }));
        assert_eq!(frame.encode_to_vec(), PIPECAT_AUDIO);
        assert_eq!(Frame::decode(PIPECAT_AUDIO).unwrap(), frame);
    }

    #[test]
    fn kinds_that_are_not_known_yet_are_no_error() {
        // Field 15, length-delimited, empty.
        assert_eq!(Frame::decode([0x7a, 0].as_slice()).unwrap().payload, None);
    }

    #[test]
    fn bot_ready_is_recognised() {
        let ready = r#"{"label":"rtvi-ai","type":"bot-ready","id":"1","data":{}}"#;
        let frame = |data: &str| Frame::from(Payload::Message(JsonMessage { data: data.into() }));
        assert!(frame(ready).is_bot_ready());
        assert!(!frame("not json").is_bot_ready());
        assert!(!Frame::client_ready("1").is_bot_ready());
    }

    #[test]
    fn frames_are_twenty_milliseconds_whatever_is_left_to_say() {
        for said in [0, 1, FRAME_SAMPLES, FRAME_SAMPLES + 1] {
            let frame = Frame::speech(&vec![5; said]);
            let Some(Payload::Audio(audio)) = frame.payload else { panic!("not audio") };
            assert_eq!(audio.audio.len(), 640);
        }
    }
}
