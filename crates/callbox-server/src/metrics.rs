//! What `/metrics` counts. One place, so that names stay alike.

use std::time::Duration;

use callbox_core::{Session, State, Time};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::PrometheusHandle;

/// How often samples of distributions are folded.
const FOLD: Duration = Duration::from_secs(5);

/// Folds the samples of distributions, which would be kept one by one until somebody asks for
/// them; perhaps nobody does. Until it is dropped.
pub async fn keep(recorder: PrometheusHandle) {
    loop {
        tokio::time::sleep(FOLD).await;
        recorder.run_upkeep();
    }
}

/// Says what the numbers mean. Once, after the recorder is installed.
pub fn describe() {
    describe_counter!("callbox_sessions_accepted_total", "Starts that were accepted, by bot.");
    describe_counter!("callbox_sessions_refused_total", "Starts that were refused, by code.");
    describe_counter!("callbox_sessions_ended_total", "Sessions that ended, by bot and code.");
    describe_gauge!("callbox_sessions_live", "Sessions that have not ended and are driven here.");
    describe_gauge!("callbox_sessions_queued", "Sessions of those that wait for room.");
    describe_gauge!("callbox_draining", "1 while the dispatcher takes no new sessions.");
    describe_gauge!("callbox_reserve_ready", "Machines in reserve, by bot.");
    describe_gauge!("callbox_reserve_target", "Machines that shall be in reserve, by bot.");
    describe_counter!("callbox_warnings_total", "Bots warned of their call's end, by outcome.");
    describe_counter!(
        "callbox_restarts_total",
        "Bots that died and whose sessions went on in a fresh machine, by bot and code."
    );
    describe_histogram!(
        "callbox_stage_seconds",
        "From accepted to each moment, by bot and moment."
    );
    describe_histogram!(
        "callbox_outside_call_seconds",
        "Calls to store, machines, rooms and relays by which sessions come and go, by name."
    );
    describe_counter!("callbox_store_errors_total", "Calls to the store that failed.");
    describe_gauge!(
        "callbox_store_unreadable_sessions",
        "Sessions whose rows could not be read since this dispatcher began."
    );
    describe_counter!("callbox_history_forgotten_total", "Ended sessions that were removed.");
    describe_counter!("callbox_endings_overdue_total", "Deadlines of tear-downs that passed.");
    describe_gauge!("callbox_replicas", "Dispatchers on this database that live.");
    describe_counter!("callbox_taken_over_total", "Sessions that a replica that is gone left.");
    describe_counter!(
        "callbox_swept_total",
        "Objects outside that no living session claimed, by kind, provider and outcome."
    );
    describe_gauge!(
        "callbox_sweep_left",
        "Objects outside that no living session claims and the last sweep left, by kind, provider and why."
    );
    describe_counter!(
        "callbox_sweep_lists_failed_total",
        "Lists of objects that a provider or transport did not give, by kind and provider."
    );
}

/// A start was accepted.
pub fn accepted(session: &Session) {
    counter!("callbox_sessions_accepted_total", "bot" => session.bot.clone()).increment(1);
}

/// A bot was warned that its call will end, or could not be.
pub fn warned(delivered: bool) {
    let outcome = if delivered { "delivered" } else { "given-up" };
    counter!("callbox_warnings_total", "outcome" => outcome).increment(1);
}

/// A start was refused.
pub fn refused(code: &'static str) {
    counter!("callbox_sessions_refused_total", "code" => code).increment(1);
}

/// How many sessions are driven here now, and how many of them wait.
#[allow(clippy::cast_precision_loss)] // far below 2^52
pub fn live(count: usize, queued: usize) {
    gauge!("callbox_sessions_live").set(count as f64);
    gauge!("callbox_sessions_queued").set(queued as f64);
}

/// Whether the dispatcher is drained.
pub fn draining(drained: bool) {
    gauge!("callbox_draining").set(if drained { 1.0 } else { 0.0 });
}

/// How many dispatchers share the database, this one included.
#[allow(clippy::cast_precision_loss)] // far below 2^52
pub fn replicas(alive: usize) {
    gauge!("callbox_replicas").set(alive as f64);
}

/// How far a bot's reserve is filled.
#[allow(clippy::cast_precision_loss)] // far below 2^52
pub fn reserve(bot: &str, ready: usize, target: usize) {
    gauge!("callbox_reserve_ready", "bot" => bot.to_owned()).set(ready as f64);
    gauge!("callbox_reserve_target", "bot" => bot.to_owned()).set(target as f64);
}

/// A bot died, and its session goes on in a fresh machine.
pub fn restarted(bot: &str, code: &'static str) {
    counter!("callbox_restarts_total", "bot" => bot.to_owned(), "code" => code).increment(1);
}

/// The store failed.
pub fn store_error() {
    counter!("callbox_store_errors_total").increment(1);
}

/// A call to the world outside was made.
pub fn outside(call: &'static str, took: Duration) {
    histogram!("callbox_outside_call_seconds", "call" => call).record(took.as_secs_f64());
}

/// So many sessions were met whose rows cannot be read.
#[allow(clippy::cast_precision_loss)] // far below 2^52
pub fn unreadable(count: usize) {
    gauge!("callbox_store_unreadable_sessions").set(count as f64);
}

/// So many ended sessions were removed.
pub fn forgotten(count: usize) {
    counter!("callbox_history_forgotten_total").increment(count as u64);
}

/// A tear-down takes longer than it may.
pub fn overdue() {
    counter!("callbox_endings_overdue_total").increment(1);
}

/// Sessions were taken over from replicas that are gone.
pub fn taken_over(sessions: usize) {
    counter!("callbox_taken_over_total").increment(sessions as u64);
}

/// Something outside was found that no living session claims.
pub fn swept(kind: &'static str, provider: &str, outcome: &'static str) {
    counter!("callbox_swept_total", "kind" => kind, "provider" => provider.to_owned(), "outcome" => outcome)
        .increment(1);
}

/// So many things outside that no living session claims were left, for this reason, by the last
/// sweep.
#[allow(clippy::cast_precision_loss)] // far below 2^52
pub fn swept_over(kind: &'static str, provider: &str, why: &'static str, count: usize) {
    gauge!("callbox_sweep_left", "kind" => kind, "provider" => provider.to_owned(), "why" => why)
        .set(count as f64);
}

/// Somebody did not say what he has.
pub fn sweep_list_failed(kind: &'static str, provider: &str) {
    counter!("callbox_sweep_lists_failed_total", "kind" => kind, "provider" => provider.to_owned())
        .increment(1);
}

/// Records the moments that a change brought.
pub fn moments(before: &Session, after: &Session) {
    let all = |s: &Session| {
        let m = &s.moments;
        [
            ("admitted", m.admitted),
            ("started", m.started),
            ("ready", m.ready),
            ("joined", m.joined),
            ("audible", m.audible),
            ("ended", m.ended),
        ]
    };
    for ((name, was), (_, is)) in all(before).into_iter().zip(all(after)) {
        if let (None, Some(at)) = (was, is) {
            stage(after, name, at);
        }
    }
    if let (State::Ended { why }, false) =
        (&after.state, matches!(before.state, State::Ended { .. }))
    {
        counter!("callbox_sessions_ended_total", "bot" => after.bot.clone(), "code" => why.code.as_str())
            .increment(1);
    }
}

fn stage(session: &Session, moment: &'static str, at: Time) {
    let took = at.since(session.moments.accepted).as_secs_f64();
    histogram!("callbox_stage_seconds", "bot" => session.bot.clone(), "moment" => moment)
        .record(took);
}
