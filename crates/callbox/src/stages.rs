//! Long work, shown stage by stage with what each took: a moving line on a terminal, plain lines
//! elsewhere. On standard error, so that standard output stays the result.

use std::{
    io::IsTerminal as _,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;

/// See the module's documentation.
pub struct Stages {
    quiet: bool,
    spinner: Option<ProgressBar>,
    current: Mutex<Option<(String, Instant)>>,
}

impl Stages {
    /// As the terminal allows.
    pub fn new(quiet: bool) -> Stages {
        let terminal = !quiet && std::io::stderr().is_terminal();
        let spinner = terminal.then(|| {
            let spinner = ProgressBar::new_spinner();
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        Stages { quiet, spinner, current: Mutex::new(None) }
    }

    /// A stage begins; the one before it is over.
    pub fn begin(&self, name: &str) {
        self.end_current();
        match &self.spinner {
            Some(spinner) => spinner.set_message(name.to_owned()),
            None if self.quiet => {}
            None => eprintln!("{name} …"),
        }
        *self.current.lock().expect("no panic while held") =
            Some((name.to_owned(), Instant::now()));
    }

    /// The last stage is over.
    pub fn finish(&self) {
        self.end_current();
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }

    fn end_current(&self) {
        let ended = self.current.lock().expect("no panic while held").take();
        let Some((name, began)) = ended else { return };
        let line = format!("{:>7.1} s  {name}", began.elapsed().as_secs_f64());
        match &self.spinner {
            Some(spinner) => spinner.println(line),
            None if self.quiet => {}
            None => eprintln!("{line}"),
        }
    }
}
