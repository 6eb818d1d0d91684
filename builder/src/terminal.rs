//! What a person sees while castiron works: progress bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use castiron_engine::event::{Event, EventResult, EventSink, EventType, Unit};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Sends the log to standard error; `RUST_LOG` chooses what, warnings otherwise.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// The sink for people: a bar for each piece of work that reports progress.
pub struct Terminal {
    bars: MultiProgress,
    open: HashMap<String, (ProgressBar, Instant)>,
    interactive: bool,
    started: Instant,
    last_plain: Option<Instant>,
}

impl Default for Terminal {
    fn default() -> Self {
        Self {
            bars: MultiProgress::new(),
            open: HashMap::new(),
            interactive: std::io::stderr().is_terminal(),
            started: Instant::now(),
            last_plain: None,
        }
    }
}

/// Elsewhere than on a terminal a progress line comes at most this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

impl Terminal {
    fn line(&self, text: &str) {
        let stamped = format!("{:>7.1}s {text}", self.started.elapsed().as_secs_f64());
        if self.interactive {
            self.bars.println(stamped).ok();
        } else {
            eprintln!("{stamped}");
        }
    }

    fn start(&mut self, event: &Event) {
        if self.interactive {
            let bar = self.bars.add(ProgressBar::new_spinner());
            bar.set_style(ProgressStyle::with_template("  {spinner} {msg} {elapsed}").expect("a valid template"));
            bar.set_message(event.description.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            self.open.insert(event.name.clone(), (bar, Instant::now()));
        } else {
            self.open.insert(event.name.clone(), (ProgressBar::hidden(), Instant::now()));
            self.line(&event.description);
        }
    }

    fn progress(&mut self, event: &Event) {
        let Some(progress) = event.progress else { return };
        if !self.interactive {
            if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL) {
                self.last_plain = Some(Instant::now());
                let total = progress.total.map(|total| format!(" of {}", amount(total, progress.unit)));
                let text = format!(
                    "  {} {}{}",
                    event.description,
                    amount(progress.done, progress.unit),
                    total.unwrap_or_default()
                );
                self.line(&text);
            }
            return;
        }
        let Some((bar, _)) = self.open.get(&event.name) else { return };
        if let Some(total) = progress.total
            && bar.length() != Some(total)
        {
            let counts = match progress.unit {
                Unit::Bytes => "{bytes}/{total_bytes} {bytes_per_sec}",
                Unit::Packages | Unit::Steps | Unit::Seconds => "{pos}/{len}",
            };
            let template = format!("  {{spinner}} {{msg:40!}} [{{bar:30}}] {counts} ETA {{eta}}");
            bar.set_style(ProgressStyle::with_template(&template).expect("a valid template").progress_chars("=> "));
            bar.set_length(total);
        }
        bar.set_message(event.description.clone());
        bar.set_position(progress.done);
    }

    fn finish(&mut self, event: &Event) {
        let seconds = match self.open.remove(&event.name) {
            Some((bar, since)) => {
                bar.finish_and_clear();
                format!(" ({:.1} s)", since.elapsed().as_secs_f64())
            }
            None => String::new(),
        };
        match event.result {
            Some(EventResult::Fail) => self.line(&format!("FAILED {}{seconds}", event.description)),
            Some(EventResult::Warn) => self.line(&format!("warning: {}{seconds}", event.description)),
            Some(EventResult::Success) | None if self.interactive => {
                self.line(&format!("{}{seconds}", event.description));
            }
            Some(EventResult::Success) | None => {}
        }
    }
}

fn amount(number: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => castiron_engine::units::Bytes(number).to_string(),
        Unit::Packages => format!("{number} packages"),
        Unit::Steps => format!("{number} steps"),
        Unit::Seconds => format!("{number} s"),
    }
}

impl EventSink for Terminal {
    fn emit(&mut self, event: &Event) {
        match event.event_type {
            EventType::Start => self.start(event),
            EventType::Progress => self.progress(event),
            EventType::Finish => self.finish(event),
        }
    }
}

/// The sink for programs: one JSON object a line on standard output.
#[derive(Default)]
pub struct JsonLines;

impl EventSink for JsonLines {
    fn emit(&mut self, event: &Event) {
        println!("{}", serde_json::to_string(event).expect("events have only serialisable fields"));
    }
}
