//! A person watches a machine install itself: its events as lines, and in the end a table of the times.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use castiron_engine::event::{Event, EventResult, EventType, Level, Progress, Unit};

/// Without a terminal a line of progress comes at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// After this long without any, a line says what is still going on.
const SILENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    pub name: String,
    pub description: String,
    /// By the machine's own clock.
    pub seconds: f64,
    pub result: Option<EventResult>,
}

/// What has begun and not yet ended.
struct Open {
    name: String,
    description: String,
    timestamp: f64,
    seen: Instant,
}

/// Folds events into lines and phases.
pub struct Watch {
    started: Instant,
    terminal: bool,
    last_line: Instant,
    seen: usize,
    open: Vec<Open>,
    pub phases: Vec<Phase>,
    /// How the whole of it ended, once it has.
    pub end: Option<EventResult>,
}

impl Default for Watch {
    fn default() -> Self {
        let now = Instant::now();
        let terminal = std::io::stdout().is_terminal();
        Self { started: now, terminal, last_line: now, seen: 0, open: Vec::new(), phases: Vec::new(), end: None }
    }
}

impl Watch {
    /// Takes all events so far; those it knows already are passed over.
    pub fn update(&mut self, events: &[Event]) {
        for event in &events[self.seen.min(events.len())..] {
            self.take(event);
        }
        self.seen = events.len();
        if let Some(open) = self.open.last()
            && self.last_line.elapsed() >= SILENCE
        {
            let text =
                format!("{}  still: {}, {} s", indent(&open.name), open.description, open.seen.elapsed().as_secs());
            self.line(&text);
        }
    }

    fn take(&mut self, event: &Event) {
        match event.event_type {
            EventType::Start => {
                let (name, description) = (event.name.clone(), event.description.clone());
                self.open.push(Open { name, description, timestamp: event.timestamp, seen: Instant::now() });
                self.line(&format!("{}{}", indent(&event.name), event.description));
            }
            EventType::Progress => self.progress(&event.description, event.progress),
            EventType::Finish => {
                if depth(&event.name) == 1 {
                    self.end = Some(event.result.unwrap_or(EventResult::Success));
                }
                if let Some(at) = self.open.iter().rposition(|open| open.name == event.name) {
                    let Open { name, timestamp, .. } = self.open.remove(at);
                    let seconds = (event.timestamp - timestamp).max(0.0);
                    let description = event.description.clone();
                    self.phases.push(Phase { name, description, seconds, result: event.result });
                }
                if event.level >= Level::Warn {
                    self.line(&format!("{}{}", indent(&event.name), event.description));
                }
            }
        }
    }

    /// A line of its own, with the time since the start.
    pub fn line(&mut self, text: &str) {
        let seconds = self.started.elapsed().as_secs();
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        println!("{clear}{:>3}:{:02}  {text}", seconds / 60, seconds % 60);
        self.last_line = Instant::now();
    }

    fn progress(&mut self, what: &str, progress: Option<Progress>) {
        let Some(progress) = progress else { return };
        let text = format!("      {what} {}", amount(progress));
        if self.terminal {
            print!("\r\x1b[K       {text}");
            // A terminal that went away has nobody to tell.
            drop(std::io::stdout().flush());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.line(&text);
        }
    }

    /// Name and seconds of every phase, longest name first column.
    pub fn table(&self) -> String {
        let width = self.phases.iter().map(|phase| phase.name.len()).max().unwrap_or(0);
        let line = |phase: &Phase| format!("  {:<width$}  {:>7.1} s\n", phase.name, phase.seconds);
        self.phases.iter().filter(|phase| depth(&phase.name) <= 2).map(line).collect()
    }
}

fn depth(name: &str) -> usize {
    name.split('/').count()
}

fn indent(name: &str) -> String {
    "  ".repeat(depth(name).saturating_sub(1).min(3))
}

fn amount(progress: Progress) -> String {
    let (scale, unit) = match progress.unit {
        Unit::Bytes => (1 << 20, "MiB"),
        Unit::Packages => (1, "packages"),
        Unit::Steps => (1, "steps"),
        Unit::Seconds => (1, "s"),
    };
    match progress.total {
        Some(total) => format!("{}/{} {unit}", progress.done / scale, total / scale),
        None => format!("{} {unit}", progress.done / scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_take_as_long_as_the_machine_says() {
        let at = |event: Event, timestamp: f64| Event { timestamp, ..event };
        let mut watch = Watch::default();
        let first = [
            at(Event::start("install", "all of it"), 10.0),
            at(Event::start("install/storage", "disk"), 11.0),
            at(Event::finish("install/storage", "disk", EventResult::Success), 13.5),
        ];
        watch.update(&first);
        let mut all = first.to_vec();
        all.push(at(Event::finish("install", "all of it", EventResult::Success), 20.0));
        watch.update(&all);
        let times: Vec<(&str, f64)> = watch.phases.iter().map(|phase| (&phase.name[..], phase.seconds)).collect();
        assert_eq!(times, [("install/storage", 2.5), ("install", 10.0)]);
        assert_eq!(watch.end, Some(EventResult::Success));
        assert!(watch.table().contains("install/storage      2.5 s"), "{}", watch.table());
    }
}
