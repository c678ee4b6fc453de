//! Costs for people.

use callbox_protocol::api::BotPrice;

use super::{By, Line, Report, Sum};
use crate::ps::nothing;
use crate::terminal::{DIM, Look, printable};

/// Two tables: what was, and what waits.
pub fn draw(report: &Report, look: Look) -> String {
    let mut text = sums(report, look);
    let waiting: Vec<&BotPrice> = report.bots.iter().filter(|bot| bot.reserve > 0).collect();
    if !waiting.is_empty() {
        text.push('\n');
        text.push_str(&reserves(&waiting, look));
    }
    text.push_str(&look.paint(DIM, foot(report)));
    text.push('\n');
    text
}

fn sums(report: &Report, look: Look) -> String {
    let of = match report.by {
        By::Bot => "BOT",
        By::Day => "DAY",
        By::Session => "SESSION",
    };
    let all = report.lines.iter().map(|line| line.of.chars().count()).max().unwrap_or(0);
    let width = all.max("TOTAL".len());
    let line = |of: &str, sum: &Sum| {
        let of = printable(of);
        let (hours, usd) = match sum.sessions == sum.without_price {
            true => (nothing(), nothing()),
            false => (format!("{:.2}", sum.machine_hours), dollars(sum.machine_usd)),
        };
        format!("{of:<width$}  {:>8}  {hours:>13}  {usd:>10}\n", sum.sessions)
    };
    let head = format!("{of:<width$}  {:>8}  {:>13}  {:>10}", "SESSIONS", "MACHINE HOURS", "USD");
    let mut text = format!("{}\n", look.paint(DIM, head));
    text.extend(report.lines.iter().map(|Line { of, sum }| line(of, sum)));
    text.push_str(&line("TOTAL", &report.total));
    text
}

fn reserves(bots: &[&BotPrice], look: Look) -> String {
    let width = bots.iter().map(|bot| bot.bot.chars().count()).max().unwrap_or(0).max(7);
    let head = format!("{:<width$}  {:>8}  {:>10}", "RESERVE", "MACHINES", "USD A DAY");
    let mut text = format!("{}\n", look.paint(DIM, head));
    for bot in bots {
        let usd = bot.reserve_usd_per_day.map_or_else(nothing, dollars);
        let name = printable(&bot.bot);
        text.push_str(&format!("{name:<width$}  {:>8}  {usd:>10}\n", bot.reserve));
    }
    text
}

fn foot(report: &Report) -> String {
    let of_bots = report.bots.iter().filter_map(|bot| bot.prices_as_of.as_ref());
    match report.total.prices_as_of.iter().chain(of_bots).min() {
        Some(day) => format!(
            "an estimate by list prices of {}, without traffic, taxes and discounts",
            printable(day)
        ),
        None => {
            "no machine here has a price; what machines of this host cost is yours to know".into()
        }
    }
}

/// Fractions of a cent matter: a call costs some.
fn dollars(usd: f64) -> String {
    format!("{usd:.4}")
}
