//! Troubles that can be switched on while the stand-in runs.
//!
//! A [`Rule`] has an effect, says which calls it strikes (action, app, region, name), how
//! likely and how often. Of the rules that change what becomes of a call, the first one that
//! strikes counts; those that change what becomes of a machine add up.

mod effect;
mod read;

use callbox_fly::Action;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

pub use effect::{Effect, Preset, When};

/// One trouble.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Rule {
    /// What happens.
    #[serde(flatten)]
    pub effect: Effect,
    /// Only on calls of this action ([`Action::name`]); what the effect is about, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only in this app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Only in this region: the machine's, or the first one that a create asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Only on machines of this name; with `*` at its end, on names that begin so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How likely it strikes: 1 when absent.
    pub probability: f64,
    /// How often it strikes at most; always when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Rule {
    /// Strikes always and everywhere.
    pub fn always(effect: Effect) -> Rule {
        Rule {
            effect,
            action: None,
            app: None,
            region: None,
            name: None,
            probability: 1.0,
            count: None,
        }
    }

    /// Strikes so many times.
    #[must_use]
    pub fn times(self, count: u64) -> Rule {
        Rule { count: Some(count), ..self }
    }

    /// Strikes on calls of this action.
    #[must_use]
    pub fn on(self, action: Action) -> Rule {
        Rule { action: Some(action.name().to_owned()), ..self }
    }

    /// Strikes with this probability.
    #[must_use]
    pub fn with_probability(self, probability: f64) -> Rule {
        Rule { probability, ..self }
    }

    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
        if let Some(action) = &self.action
            && Action::named(action).is_none()
        {
            return Err(format!("{action:?} is no action; there are {}", actions()));
        }
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!("{} is no probability from 0 to 1", self.probability));
        }
        self.effect.check()
    }

    fn is_about(&self, call: &About<'_>) -> bool {
        let action = match &self.action {
            Some(action) => action == call.action.name(),
            None => self.effect.is_about(call.action),
        };
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let name = match self.name.as_deref() {
            None => true,
            Some(name) => match name.strip_suffix('*') {
                Some(start) => call.name.starts_with(start),
                None => name == call.name,
            },
        };
        action && name && same(&self.app, call.app) && same(&self.region, call.region)
    }
}

fn actions() -> String {
    Action::ALL.map(Action::name).join(", ")
}

/// What a call is about, as far as rules look at it. Unknown parts are empty.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub(super) action: Action,
    pub(super) app: &'a str,
    pub(super) region: &'a str,
    pub(super) name: &'a str,
}

/// All troubles.
#[derive(Debug, Default)]
pub struct Troubles {
    rules: Vec<Active>,
    last: u64,
}

#[derive(Debug)]
struct Active {
    id: u64,
    rule: Rule,
    struck: u64,
}

/// A trouble and how often it struck.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Listed {
    /// By which it is taken away.
    pub id: u64,
    /// How often it struck.
    pub struck: u64,
    /// The trouble.
    pub rule: Rule,
}

impl Troubles {
    pub(super) fn add(&mut self, rule: Rule) -> u64 {
        self.last += 1;
        self.rules.push(Active { id: self.last, rule, struck: 0 });
        self.last
    }

    pub(super) fn remove(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|active| active.id != id);
        self.rules.len() < before
    }

    pub(super) fn list(&self) -> Vec<Listed> {
        let listed = |Active { id, rule, struck }: &Active| Listed {
            id: *id,
            struck: *struck,
            rule: rule.clone(),
        };
        self.rules.iter().map(listed).collect()
    }

    /// What strikes this call: of the effects on calls the first, of all others each one.
    pub(super) fn strike(&mut self, call: &About<'_>, rng: &mut Rng) -> Struck {
        let mut struck = Struck::default();
        for active in &mut self.rules {
            let used_up = active.rule.count.is_some_and(|count| active.struck >= count);
            if used_up || !active.rule.is_about(call) {
                continue;
            }
            if active.rule.effect.is_on_call() && struck.on_call.is_some() {
                continue;
            }
            if active.rule.probability < 1.0 && rng.f64() >= active.rule.probability {
                continue;
            }
            active.struck += 1;
            struck.add(&active.rule.effect);
        }
        struck
    }
}

/// What strikes one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Struck {
    /// What becomes of the call itself.
    pub(super) on_call: Option<Effect>,
    /// What becomes of the machine that it makes or starts.
    pub(super) fate: Fate,
    /// Machines that are younger than this are left out of the list.
    pub(super) omit_ms: Option<u64>,
    /// Machines that were destroyed within this time are in the list.
    pub(super) ghosts_ms: Option<u64>,
}

/// What becomes of a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fate {
    pub(super) build_extra_ms: u64,
    pub(super) stuck: bool,
    pub(super) launch_fails: bool,
    pub(super) cold: bool,
    pub(super) host_lost_after_ms: Option<u64>,
    pub(super) exits_after: Option<(u64, i32)>,
}

impl Struck {
    fn add(&mut self, effect: &Effect) {
        let fate = &mut self.fate;
        match effect {
            Effect::SlowCreate { ms } => fate.build_extra_ms += ms,
            Effect::StuckCreated => fate.stuck = true,
            Effect::LaunchFails => fate.launch_fails = true,
            Effect::ColdStart => fate.cold = true,
            Effect::HostLost { after_ms } => fate.host_lost_after_ms = Some(*after_ms),
            Effect::Exits { after_ms, code } => fate.exits_after = Some((*after_ms, *code)),
            Effect::ListOmitsNew { for_ms } => self.omit_ms = Some(*for_ms),
            Effect::ListShowsDestroyed { for_ms } => self.ghosts_ms = Some(*for_ms),
            on_call => self.on_call = Some(on_call.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: About<'_> =
        About { action: Action::Create, app: "bots", region: "iad", name: "cb-1" };

    fn strikes(rule: Rule, call: &About<'_>) -> bool {
        let mut troubles = Troubles::default();
        troubles.add(rule);
        troubles.strike(call, &mut Rng::with_seed(0)) != Struck::default()
    }

    #[test]
    fn a_rule_strikes_only_what_it_is_about() {
        let rule = || Rule::always(Effect::ServerError { status: 500, when: When::Before });
        assert!(strikes(rule(), &CALL));
        assert!(strikes(Rule { name: Some("cb-*".into()), ..rule() }, &CALL));
        assert!(!strikes(Rule { name: Some("cb".into()), ..rule() }, &CALL));
        assert!(!strikes(Rule { app: Some("other".into()), ..rule() }, &CALL));
        assert!(!strikes(Rule { region: Some("ams".into()), ..rule() }, &CALL));
        assert!(!strikes(rule().on(Action::List), &CALL));
        assert!(!strikes(rule().with_probability(0.0), &CALL));
        assert!(!strikes(
            Rule::always(Effect::StuckCreated),
            &About { action: Action::Get, ..CALL }
        ));
    }

    #[test]
    fn a_count_is_used_up_and_the_first_effect_on_a_call_counts() {
        let mut troubles = Troubles::default();
        let error = |status| Effect::ServerError { status, when: When::Before };
        let first = troubles.add(Rule::always(error(500)).times(1));
        troubles.add(Rule::always(error(503)));
        troubles.add(Rule::always(Effect::SlowCreate { ms: 5 }));
        let mut rng = Rng::with_seed(0);
        let struck = troubles.strike(&CALL, &mut rng);
        assert_eq!((struck.on_call, struck.fate.build_extra_ms), (Some(error(500)), 5));
        assert_eq!(troubles.strike(&CALL, &mut rng).on_call, Some(error(503)));
        let struck: Vec<u64> = troubles.list().iter().map(|listed| listed.struck).collect();
        assert_eq!(struck, [1, 1, 2]);
        assert!(troubles.remove(first) && !troubles.remove(first));
    }

    #[test]
    fn rules_are_json() {
        let rule: Rule = serde_json::from_str(
            r#"{"kind":"timeout","when":"after","action":"create","probability":0.5,"count":3}"#,
        )
        .expect("a rule");
        assert_eq!(rule.effect, Effect::Timeout { when: When::After });
        assert_eq!(rule.check(), Ok(()));
        let text = r#"{"kind":"refuse","preset":"no_capacity"}"#;
        let rule: Rule = serde_json::from_str(text).expect("a rule");
        assert_eq!(rule.effect, Effect::Refuse { preset: Preset::NoCapacity });
        assert!(Rule { action: Some("dance".into()), ..rule }.check().is_err());
    }
}
