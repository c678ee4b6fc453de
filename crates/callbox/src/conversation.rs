//! When the caller listens, speaks, and hangs up. Pure: told what time it is and what was
//! heard, it says what to do in this frame of 20 ms.

use std::time::Duration;

use crate::heard::Heard;
use crate::media::FRAME_SAMPLES;

/// Sound that is followed by this much silence was a whole utterance.
const UTTERANCE_END: Duration = Duration::from_millis(600);
/// The same for the answer; bots pause between sentences.
const ANSWER_END: Duration = Duration::from_millis(1_200);
/// How long a greeting is waited for once the bot's pipeline answered.
const GREETING_WAIT: Duration = Duration::from_secs(4);
/// The same where only the dispatcher says that the bot is ready: its pipeline may still have
/// to be built.
const PIPELINE_WAIT: Duration = Duration::from_secs(10);
/// Who talks longer than this is interrupted.
const LONGEST_GREETING: Duration = Duration::from_secs(12);

/// What to send in this frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The microphone is off: nobody is there yet, and what the dispatcher holds for a bot that
    /// is still starting is bounded.
    Off,
    /// The microphone is on and nobody speaks: bots tell the end of speech by silence.
    Silence,
    /// The samples from here on.
    Speech(usize),
    /// The call is over.
    HangUp,
}

/// The caller's side of the conversation.
pub struct Conversation {
    /// Samples to say; 0 for a caller who only waits for the first sound.
    to_say: usize,
    longest: Duration,
    phase: Phase,
    bot_there: Option<Duration>,
    greeting_due: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Phase {
    Waiting,
    Greeting,
    Speaking { next: usize },
    Answer { spoken: Duration },
}

impl Conversation {
    /// A caller who has so much to say, and hangs up this long after the bot was there at the
    /// latest.
    pub fn new(to_say: usize, longest: Duration) -> Conversation {
        Conversation { to_say, longest, phase: Phase::Waiting, bot_there: None, greeting_due: None }
    }

    /// The dispatcher says that the bot is ready.
    pub fn session_ready(&mut self, now: Duration) {
        self.bot_there.get_or_insert(now);
        self.greeting_due.get_or_insert(now + PIPELINE_WAIT);
    }

    /// The bot itself says that it is ready.
    pub fn bot_ready(&mut self, now: Duration) {
        self.bot_there.get_or_insert(now);
        let due = now + GREETING_WAIT;
        self.greeting_due = Some(self.greeting_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Whether anybody is there to talk to.
    pub fn bot_is_there(&self) -> bool {
        self.bot_there.is_some()
    }

    /// What the caller is doing, for people.
    pub fn doing(&self) -> &'static str {
        match self.phase {
            Phase::Waiting => "waiting for the bot",
            Phase::Greeting => "listening",
            Phase::Speaking { .. } => "speaking",
            Phase::Answer { .. } => "waiting for the answer",
        }
    }

    /// When the last word was said.
    pub fn spoken(&self) -> Option<Duration> {
        match self.phase {
            Phase::Answer { spoken } => Some(spoken),
            _ => None,
        }
    }

    /// What to do now. To be asked once per 20 ms.
    pub fn turn(&mut self, now: Duration, heard: &Heard) -> Turn {
        if heard.first_audio.is_some() {
            self.bot_there.get_or_insert(now);
        }
        let Some(since) = self.bot_there else { return Turn::Off };
        if now >= since + self.longest {
            return Turn::HangUp;
        }
        match self.phase {
            Phase::Waiting => {
                self.phase = Phase::Greeting;
                Turn::Silence
            }
            Phase::Greeting if self.to_say == 0 => {
                if heard.first_sound.is_some() {
                    Turn::HangUp
                } else {
                    Turn::Silence
                }
            }
            Phase::Greeting if self.greeting_is_over(now, heard) => {
                self.phase = Phase::Speaking { next: FRAME_SAMPLES };
                Turn::Speech(0)
            }
            Phase::Speaking { next } if next < self.to_say => {
                self.phase = Phase::Speaking { next: next + FRAME_SAMPLES };
                Turn::Speech(next)
            }
            Phase::Speaking { .. } => {
                self.phase = Phase::Answer { spoken: now };
                Turn::Silence
            }
            Phase::Answer { spoken } if answer_is_over(now, spoken, heard) => Turn::HangUp,
            Phase::Greeting | Phase::Answer { .. } => Turn::Silence,
        }
    }

    fn greeting_is_over(&self, now: Duration, heard: &Heard) -> bool {
        match (heard.first_sound, heard.sound_until) {
            (Some(first), Some(until)) => {
                now > until + UTTERANCE_END || now > first + LONGEST_GREETING
            }
            _ => {
                let due = self.greeting_due.or(heard.first_audio.map(|at| at + GREETING_WAIT));
                due.is_some_and(|due| now > due)
            }
        }
    }
}

fn answer_is_over(now: Duration, spoken: Duration, heard: &Heard) -> bool {
    heard.answer_sound.is_some()
        && heard.sound_until.is_some_and(|until| now > until.max(spoken) + ANSWER_END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::AudioRaw;

    const TICK: Duration = Duration::from_millis(20);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn sound(heard: &mut Heard, at: Duration) {
        let audio: Vec<u8> = [0u8, 20].repeat(480);
        heard.frame(
            at,
            &AudioRaw {
                audio: audio.into(),
                sample_rate: 24_000,
                num_channels: 1,
                ..AudioRaw::default()
            },
        );
    }

    /// Runs until the caller does something else than `while_`.
    fn until_not(
        conversation: &mut Conversation,
        heard: &Heard,
        now: &mut Duration,
        while_: fn(Turn) -> bool,
    ) -> Turn {
        loop {
            *now += TICK;
            let turn = conversation.turn(*now, heard);
            assert!(*now < ms(60_000), "still {turn:?}");
            if !while_(turn) {
                return turn;
            }
        }
    }

    #[test]
    fn a_whole_call_takes_its_turns() {
        let (mut heard, mut now) = (Heard::default(), ms(0));
        let mut caller = Conversation::new(2 * FRAME_SAMPLES + 1, ms(30_000));
        assert_eq!(caller.turn(ms(10), &heard), Turn::Off);
        caller.session_ready(ms(100));
        sound(&mut heard, ms(500));
        let turn = until_not(&mut caller, &heard, &mut now, |turn| turn == Turn::Silence);
        assert_eq!(turn, Turn::Speech(0));
        assert_eq!(now, ms(1_140), "the greeting ends at 520 ms, then 600 ms of silence");
        heard.caller_speaks(now);
        assert_eq!(caller.turn(now, &heard), Turn::Speech(FRAME_SAMPLES));
        assert_eq!(caller.turn(now, &heard), Turn::Speech(2 * FRAME_SAMPLES));
        assert_eq!(caller.turn(now, &heard), Turn::Silence);
        assert_eq!(caller.spoken(), Some(now));
        sound(&mut heard, now + ms(300));
        let turn = until_not(&mut caller, &heard, &mut now, |turn| turn == Turn::Silence);
        assert_eq!(turn, Turn::HangUp);
    }

    #[test]
    fn a_bot_that_does_not_greet_is_spoken_to() {
        let heard = Heard::default();
        for (own_word, begins) in [(true, 4_000), (false, 10_000)] {
            let mut now = ms(0);
            let mut caller = Conversation::new(1, ms(30_000));
            caller.session_ready(ms(0));
            if own_word {
                caller.bot_ready(ms(0));
            }
            let turn = until_not(&mut caller, &heard, &mut now, |turn| turn == Turn::Silence);
            assert_eq!((turn, now), (Turn::Speech(0), ms(begins + 20)));
        }
    }

    #[test]
    fn nobody_is_listened_to_for_ever() {
        let (heard, mut now) = (Heard::default(), ms(0));
        let mut caller = Conversation::new(1, ms(15_000));
        caller.bot_ready(ms(0));
        let turn = until_not(&mut caller, &heard, &mut now, |turn| turn != Turn::HangUp);
        assert_eq!((turn, now), (Turn::HangUp, ms(15_000)));
    }

    #[test]
    fn a_caller_with_nothing_to_say_hangs_up_at_the_first_sound() {
        let mut heard = Heard::default();
        let mut caller = Conversation::new(0, ms(15_000));
        caller.session_ready(ms(0));
        assert_eq!(caller.turn(ms(20), &heard), Turn::Silence);
        assert_eq!(caller.turn(ms(40), &heard), Turn::Silence);
        sound(&mut heard, ms(50));
        assert_eq!(caller.turn(ms(60), &heard), Turn::HangUp);
    }
}
