//! What was drawn, compared: every value is there, and no two are the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What must differ between machines, as `bots/identity` names it, with what it shows.
pub const COMPARED: [(&str, &str); 15] = [
    ("getrandom", "the kernel's generator"),
    ("kernel_uuid", "/proc/sys/kernel/random/uuid"),
    ("uuid4", "Python's uuid.uuid4()"),
    ("secrets", "Python's secrets.token_hex()"),
    ("python_random", "Python's random.random(), seeded in the template"),
    ("numpy_global", "NumPy's global generator, seeded in the template"),
    ("numpy_own", "a NumPy generator of the bot's own (on_wake)"),
    ("tempfile", "names of Python's tempfile"),
    ("openssl_bytes", "RAND_bytes of Python's OpenSSL"),
    ("openssl_key", "an EC key of cryptography's OpenSSL"),
    ("tls_client_hello", "the random of a TLS ClientHello"),
    ("machine_id", "/etc/machine-id"),
    ("hostname", "the host name"),
    ("boot_id", "/proc/sys/kernel/random/boot_id"),
    ("generation_id", "what the bot was woken with"),
];

/// What only the bot's own process can reseed, and must repeat itself where it is not. OpenSSL is
/// not among it: it reseeds itself from the kernel when its template is some minutes old.
pub const REPEATS_UNLESS_RESEEDED: [&str; 4] =
    ["python_random", "numpy_global", "numpy_own", "tempfile"];

/// One kind of value over all clones.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub name: &'static str,
    pub shows: &'static str,
    /// Values that were drawn, several from some machines.
    pub values: usize,
    /// Of these, values that another draw had too; of the template as well.
    pub repeated: usize,
    /// Machines that had none.
    pub missing: usize,
}

impl Verdict {
    pub fn ok(&self) -> bool {
        self.repeated == 0 && self.missing == 0 && self.values > 0
    }

    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "shows": self.shows,
            "values": self.values,
            "repeated": self.repeated,
            "missing": self.missing,
            "ok": self.ok(),
        })
    }
}

/// Compares what clones drew with each other, and with what their template had drawn.
pub fn compare(clones: &[&Value], template: &Value) -> Vec<Verdict> {
    let verdict = |(name, shows): (&'static str, &'static str)| {
        let drawn: Vec<Vec<String>> = clones.iter().map(|clone| values(&clone[name])).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let of_template = values(&template[name]);
        for value in drawn.iter().flatten().chain(&of_template) {
            *counts.entry(value).or_default() += 1;
        }
        let all = drawn.iter().flatten();
        Verdict {
            name,
            shows,
            values: all.clone().count(),
            repeated: all.filter(|value| counts[value.as_str()] > 1).count(),
            missing: drawn.iter().filter(|values| values.is_empty()).count(),
        }
    };
    COMPARED.into_iter().map(verdict).collect()
}

/// All clones say the same of their template's draws: it was one.
pub fn one_template(templates: &[&Value]) -> bool {
    let first = templates.first().filter(|first| first["getrandom"].is_string());
    first.is_some_and(|first| templates.iter().all(|template| template == first))
}

/// Empty texts and nothing at all are no values.
fn values(of: &Value) -> Vec<String> {
    let several = match of {
        Value::Array(several) => several.as_slice(),
        one => std::slice::from_ref(one),
    };
    let given = several.iter().filter(|value| !value.is_null() && **value != "");
    given.map(Value::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clone_with(change: Option<(&str, Value)>, number: usize) -> Value {
        let value = |(name, _): (&str, &str)| (name.to_owned(), json!(format!("{name}{number}")));
        let mut clone: Value =
            COMPARED.into_iter().map(value).collect::<serde_json::Map<_, _>>().into();
        clone["python_random"] = json!([number as f64 + 0.25, number as f64 + 0.5]);
        if let Some((name, value)) = change {
            clone[name] = value;
        }
        clone
    }

    fn failing(changes: [Option<(&str, Value)>; 3]) -> Vec<(&'static str, usize, usize)> {
        let mut number = 0;
        let clones = changes.map(|change| {
            number += 1;
            clone_with(change, number)
        });
        let template = clone_with(Some(("generation_id", Value::Null)), 0);
        let verdicts = compare(&clones.each_ref(), &template);
        let failed = verdicts.iter().filter(|verdict| !verdict.ok());
        failed.map(|verdict| (verdict.name, verdict.repeated, verdict.missing)).collect()
    }

    #[test]
    fn what_is_there_twice_or_missing_is_found() {
        assert_eq!(failing([None, None, None]), []);
        let same = |name| Some((name, json!("same")));
        assert_eq!(failing([same("uuid4"), None, same("uuid4")]), [("uuid4", 2, 0)]);
        // One of several draws is enough, also within one machine.
        let partly = Some(("python_random", json!([1.25, 7.0])));
        assert_eq!(failing([None, partly, None]), [("python_random", 2, 0)]);
        let within = Some(("numpy_own", json!([1.0, 1.0])));
        assert_eq!(failing([within, None, None]), [("numpy_own", 2, 0)]);
        assert_eq!(
            failing([None, Some(("boot_id", json!("boot_id0"))), None]),
            [("boot_id", 1, 0)]
        );
        let missing = [Some(("machine_id", json!(""))), Some(("hostname", Value::Null)), None];
        assert_eq!(failing(missing), [("machine_id", 0, 1), ("hostname", 0, 1)]);
    }

    #[test]
    fn one_template_says_the_same_through_all_its_clones() {
        let (a, b) = (json!({"getrandom": "a"}), json!({"getrandom": "b"}));
        assert!(one_template(&[&a, &a]));
        assert!(!one_template(&[&a, &b]));
        assert!(!one_template(&[&Value::Null, &Value::Null]));
    }
}
