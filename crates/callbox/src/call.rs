//! `callbox call`: a real call, and the picture of how fast it was.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use callbox_protocol::api::StartRequest;
use clap::ValueEnum;

use self::report::{Audio, Report};
use crate::caller::{self, Placed, Plan};
use crate::context::Context;
use crate::error::CliError;
use crate::progress::Progress;
use crate::similarity::ECHO;
use crate::{output, speech};

/// Call a bot: say something, listen, and show where the time went
///
/// A real client: starts a session, opens its media websocket, speaks Pipecat's protobuf frames
/// as a browser does, and hangs up once the answer is over. What it prints is the session's five
/// moments (accepted, started, ready, joined, audible) and what was heard.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 audio came back · 1 error · 2 usage · 3 no audio came back · 4 the session failed

Examples:
  callbox call
  callbox call --bot parrot --say 'Good morning' --out heard.wav
  callbox call --say question.wav --expect answer --json | jq .stages_ms")]
pub struct Args {
    /// Which bot; may be left out where one is configured
    #[arg(long, value_name = "NAME")]
    bot: Option<String>,

    /// What to say: a WAV file, or a text for espeak-ng [default: a built-in greeting]
    #[arg(long, value_name = "WAV|TEXT")]
    say: Option<String>,

    /// Write what is heard to this WAV file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Hang up this long after the bot was there, at the latest
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Give up where nobody is there by then
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// What has to be heard for exit code 0
    #[arg(long, value_enum, default_value_t = Expect::Answer)]
    expect: Expect,

    /// JSON that is handed to the bot as it is
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    body: Option<serde_json::Value>,

    /// Print one JSON object instead of the picture
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Expect {
    /// Any sound
    Greeting,
    /// Sound after we began to speak
    Answer,
    /// What we said
    Echo,
}

/// Calls, reports, and fails where the call did.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let speech = match &args.say {
        Some(say) => speech::from_argument(say)?,
        None => speech::hello(),
    };
    let plan = Plan {
        request: StartRequest {
            bot: args.bot.clone(),
            transport: Some("websocket".to_owned()),
            body: args.body.clone(),
            ..StartRequest::default()
        },
        speech,
        longest: Duration::from_secs(args.seconds),
        patience: Duration::from_secs(args.timeout),
    };
    let progress = Progress::new(context.quiet());
    let placed = caller::place(&context.client()?, &plan, &progress).await?;
    progress.done();

    if let Some(path) = &args.out {
        let wav_error = |source| CliError::Wav { path: path.clone(), source };
        placed.heard.write_wav(path).map_err(wav_error)?;
    }
    let audio = Audio::of(&placed, &plan.speech);
    let report = Report::new(&placed, &audio, args.out.as_deref());
    if args.json {
        output::json(&report)?;
    } else {
        output::text(&report.picture(&placed, context.look))?;
    }
    match placed.trouble {
        Some(trouble) => Err(trouble),
        None => judge(args.expect, &placed, &audio),
    }
}

fn parse_json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn judge(expect: Expect, placed: &Placed, audio: &Audio) -> Result<(), CliError> {
    let good = match expect {
        Expect::Greeting => audio.greeting || audio.answer,
        Expect::Answer => audio.answer,
        Expect::Echo => audio.answer && audio.echo_similarity >= ECHO,
    };
    if good {
        return Ok(());
    }
    let mut detail = match (audio.received_bytes, audio.greeting, audio.answer) {
        (0, ..) => "not a single frame was heard".to_owned(),
        (_, _, true) => format!("what came back is not what was said ({})", audio.echo_similarity),
        (_, true, false) => "the bot greeted, but did not answer".to_owned(),
        (bytes, false, false) => format!("{bytes} bytes of silence were heard"),
    };
    if placed.cut_off {
        detail.push_str("; the other side hung up");
    }
    Err(CliError::NoAudio { session_id: placed.session.id.clone(), detail })
}
