//! The one stream that terminal, serial console, JSON lines and webhook consume.
//!
//! Field names are curtin's (`curtin/reporter/events.py`), so its collectors understand them;
//! `progress` and the fields after `result` are additions that old collectors ignore.
//! Only an [`EventSink`] prints.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventType {
    Start,
    Progress,
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventResult {
    Success,
    Warn,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Bytes,
    Packages,
    Steps,
    Seconds,
}

/// How far a piece of work is. `total` is unknown where it is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub done: u64,
    pub total: Option<u64>,
    pub unit: Unit,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Always `castiron`.
    pub origin: String,
    /// Seconds since 1970 by this machine's clock.
    pub timestamp: f64,
    pub event_type: EventType,
    /// A path of names: `install/storage/format-root`.
    pub name: String,
    pub description: String,
    pub level: Level,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<EventResult>,
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<Progress>,
    /// Counts from one, without gaps, for each run.
    #[serde(default)]
    pub seq: u64,
}

impl Event {
    pub fn start(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self::new(EventType::Start, name.into(), description.into())
    }

    pub fn finish(name: impl Into<String>, description: impl Into<String>, result: EventResult) -> Self {
        let level = match result {
            EventResult::Success => Level::Info,
            EventResult::Warn => Level::Warn,
            EventResult::Fail => Level::Error,
        };
        Self { result: Some(result), level, ..Self::new(EventType::Finish, name.into(), description.into()) }
    }

    pub fn progress(name: impl Into<String>, description: impl Into<String>, progress: Progress) -> Self {
        Self { progress: Some(progress), ..Self::new(EventType::Progress, name.into(), description.into()) }
    }

    fn new(event_type: EventType, name: String, description: String) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            origin: "castiron".to_owned(),
            timestamp: now.as_secs_f64(),
            event_type,
            name,
            description,
            level: Level::Info,
            result: None,
            progress: None,
            seq: 0,
        }
    }
}

/// Whoever is watching.
pub trait EventSink {
    fn emit(&mut self, event: &Event);
}

impl<S: EventSink + ?Sized> EventSink for Box<S> {
    fn emit(&mut self, event: &Event) {
        (**self).emit(event);
    }
}

/// Keeps everything, for tests and for the log that is uploaded at the end.
impl EventSink for Vec<Event> {
    fn emit(&mut self, event: &Event) {
        self.push(event.clone());
    }
}

/// Hands every event to several sinks and numbers them.
#[derive(Default)]
pub struct Fanout<'a> {
    sinks: Vec<Box<dyn EventSink + 'a>>,
    seq: u64,
}

impl<'a> Fanout<'a> {
    pub fn add(&mut self, sink: impl EventSink + 'a) {
        self.sinks.push(Box::new(sink));
    }
}

impl EventSink for Fanout<'_> {
    fn emit(&mut self, event: &Event) {
        self.seq += 1;
        let event = Event { seq: self.seq, ..event.clone() };
        for sink in &mut self.sinks {
            sink.emit(&event);
        }
    }
}
