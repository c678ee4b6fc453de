//! The simulation repeats itself to the letter, whatever else the machine does.
#![allow(clippy::unwrap_used)]

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::Value;

/// What one seed found.
fn run(seed: u64) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callbox-sim"));
    command.args(["--json", "--seed", &seed.to_string()]).stdin(Stdio::null());
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_seed_repeats_itself_also_beside_other_work() {
    let seeds = [1, 2, 3, 4];
    let alone: Vec<Value> = seeds.map(run).into();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // More than there are processors: everything is interrupted everywhere.
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let beside: Vec<Value> = seeds.map(run).into();
        done.store(true, Ordering::Relaxed);
        for (first, second) in alone.iter().zip(&beside) {
            assert!(first["lines"].as_u64().unwrap() > 100, "it is not empty: {first}");
            assert_eq!(first, second);
        }
    });
    assert_ne!(alone[0]["hash"], alone[1]["hash"], "no two seeds are alike");
}

#[test]
fn what_is_not_there_cannot_be_planted_and_what_is_there_is_in_the_documentation() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callbox-sim"));
    let output = command.args(["--seed", "1", "--plant", "nonsense"]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let list = said.split_once("there are: ").unwrap().1.lines().next().unwrap();
    let mut faults: Vec<&str> = list.split(", ").collect();
    let text = include_str!("../../../docs/simulation.md");
    let row = |line: &'static str| Some(line.strip_prefix("| `")?.split_once('`')?.0);
    let mut documented: Vec<&str> = text.lines().filter_map(row).collect();
    faults.sort_unstable();
    documented.sort_unstable();
    assert_eq!(faults, documented, "the table in docs/simulation.md is out of date");
}
