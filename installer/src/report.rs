//! Telling others how it goes: events to a webhook or a syslog server, the log at the end.
//!
//! Invariant: an install never waits for a report. Events go into a bounded queue that a thread of its
//! own empties; when it is full, progress is forgotten first. Only [`Webhook::flush`] waits, and not longer than told.

mod syslog;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use castiron_engine::config::Config;
use castiron_engine::config::system::{ReportLevel, Reporter, ReporterType};
use castiron_engine::event::{Event, EventSink, EventType, Level};
use castiron_engine::units::Secret;
use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Serialize;
use thiserror::Error;

use crate::sources::Variables;

pub use syslog::Syslog;

const QUEUE_MAX: usize = 512;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSES_SECONDS: [u64; 4] = [1, 2, 5, 10];

#[derive(Debug, Error)]
pub enum ReportError {
    #[error("cannot start the reporting thread")]
    Thread(#[source] io::Error),
    #[error("cannot reach the syslog server {server}")]
    Syslog { server: String, source: io::Error },
    #[error("{url}: the server answers {status}")]
    Refused { url: String, status: u16 },
    #[error("{url}: cannot upload the log")]
    Upload { url: String, source: reqwest::Error },
}

/// Where events are posted and how.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// A URL with its variables filled in.
    pub endpoint: String,
    /// Events below are not posted.
    pub level: Level,
    /// Sent as a bearer token (RFC 6750).
    pub token: Option<Secret>,
    /// Put into every event, so that one collector can serve many machines.
    pub machine: Option<String>,
}

/// Posts events as JSON, one a request, with curtin's field names. Clones share one queue.
#[derive(Clone)]
pub struct Webhook {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    options: WebhookOptions,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Event>,
    /// An event is on its way.
    sending: bool,
    closed: bool,
    counts: Counts,
}

/// What became of the events so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sent: u64,
    /// Forgotten because the queue was full, or refused by the server.
    pub lost: u64,
    /// Still waiting.
    pub waiting: u64,
}

#[derive(Serialize)]
struct Posted<'a> {
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<&'a str>,
}

impl Webhook {
    /// Starts the thread. `client` is the engine's, so that proxies and authorities are the same.
    pub fn new(client: Client, options: WebhookOptions) -> Result<Self, ReportError> {
        let shared = Arc::new(Shared { client, options, queue: Mutex::default(), changed: Condvar::new() });
        let worker = Arc::clone(&shared);
        thread::Builder::new().name("webhook".into()).spawn(move || worker.run()).map_err(ReportError::Thread)?;
        Ok(Self { shared })
    }

    /// Waits until everything has been posted, at most `limit`, and ends the thread.
    pub fn flush(&self, limit: Duration) -> Counts {
        let deadline = Instant::now() + limit;
        let mut queue = self.shared.lock();
        while !queue.is_idle() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.shared.wait(queue, left);
        }
        queue.closed = true;
        self.shared.changed.notify_all();
        Counts { waiting: queue.waiting.len() as u64 + u64::from(queue.sending), ..queue.counts }
    }
}

impl EventSink for Webhook {
    fn emit(&mut self, event: &Event) {
        if event.level < self.shared.options.level {
            return;
        }
        self.shared.lock().push(event.clone());
        self.shared.changed.notify_all();
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.sending
    }

    /// Newer progress of the same work replaces older. A full queue loses progress first, then its oldest event.
    fn push(&mut self, event: Event) {
        let is_progress = |event: &Event| event.event_type == EventType::Progress && event.progress.is_some();
        if is_progress(&event)
            && let Some(last) = self.waiting.back_mut()
            && is_progress(last)
            && last.name == event.name
        {
            *last = event;
            return;
        }
        if self.waiting.len() >= QUEUE_MAX {
            let victim = self.waiting.iter().position(|waiting| waiting.event_type == EventType::Progress);
            self.waiting.remove(victim.unwrap_or(0));
            self.counts.lost += 1;
        }
        self.waiting.push_back(event);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, time: Duration) -> MutexGuard<'a, Queue> {
        self.changed.wait_timeout(queue, time).map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue)
    }

    fn run(&self) {
        while let Some(event) = self.next() {
            let posted = self.post(&event);
            let mut queue = self.lock();
            queue.sending = false;
            match posted {
                true => queue.counts.sent += 1,
                false => queue.counts.lost += 1,
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Event> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(event) = queue.waiting.pop_front() {
                queue.sending = true;
                return Some(event);
            }
            queue = self.wait(queue, Duration::from_secs(3600));
        }
    }

    /// Tries until the server has taken or refused it, or nobody waits any more.
    fn post(&self, event: &Event) -> bool {
        let posted = Posted { event, machine: self.options.machine.as_deref() };
        let Ok(body) = serde_json::to_vec(&posted) else { return false };
        let mut pauses = PAUSES_SECONDS.iter().chain(std::iter::repeat(&PAUSES_SECONDS[3]));
        loop {
            let request = self.client.post(&self.options.endpoint).header(CONTENT_TYPE, "application/json");
            match self.authorised(request).timeout(REQUEST_TIMEOUT).body(body.clone()).send() {
                Ok(answer) if answer.status().is_success() => return true,
                Ok(answer) if !may_change(answer.status().as_u16()) => {
                    tracing::debug!(status = answer.status().as_u16(), "the webhook refused an event");
                    return false;
                }
                Ok(answer) => tracing::debug!(status = answer.status().as_u16(), "the webhook is in trouble"),
                Err(error) => tracing::debug!(%error, "cannot reach the webhook"),
            }
            let until = Instant::now() + Duration::from_secs(*pauses.next().unwrap_or(&10));
            let mut queue = self.lock();
            while Instant::now() < until {
                if queue.closed {
                    return false;
                }
                queue = self.wait(queue, until.saturating_duration_since(Instant::now()));
            }
        }
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.options.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.expose())),
            None => request,
        }
    }
}

/// Whether the same request may succeed later.
fn may_change(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Everything a config wants to be told, from its start to the upload of the log. The default tells nobody.
#[derive(Default)]
pub struct Reporting {
    webhooks: Vec<Webhook>,
    upload: Option<(Client, String)>,
}

/// Somebody to be told every event, to be added to the stream of them.
pub type Listener = Box<dyn EventSink + Send>;

impl Reporting {
    /// Fills the variables in, starts the webhooks and opens the way to syslog servers. What cannot be done is returned
    /// as text, because an install does not fail for want of a listener.
    pub fn start(
        config: &Config,
        variables: &Variables,
        client: &Client,
        machine: Option<&str>,
    ) -> (Self, Vec<Listener>, Vec<String>) {
        let mut reporting = Self::default();
        let mut listeners: Vec<Listener> = Vec::new();
        let mut troubles = Vec::new();
        for (name, reporter) in &config.reporting {
            let started = match (reporter.r#type, &reporter.endpoint, &reporter.server) {
                (ReporterType::Webhook, Some(endpoint), _) => {
                    let webhook = webhook(reporter, endpoint, variables, client, machine);
                    reporting.webhooks.extend(webhook.as_ref().ok().cloned());
                    webhook.map(|webhook| listeners.push(Box::new(webhook)))
                }
                (ReporterType::Syslog, _, Some(server)) => {
                    let syslog = Syslog::new(server, machine.unwrap_or("-"), level(reporter.level));
                    syslog.map(|syslog| listeners.push(Box::new(syslog))).map_err(|error| with_cause(&error))
                }
                // The consoles hear everything; the rest was refused with the config.
                (ReporterType::Print | ReporterType::Led | ReporterType::Webhook | ReporterType::Syslog, _, _) => {
                    Ok(())
                }
            };
            if let Err(trouble) = started {
                troubles.push(format!("reporting.{}: {trouble}", name.0));
            }
        }
        match config.logs.upload.as_deref().map(|url| variables.fill(url)) {
            Some(Ok(url)) => reporting.upload = Some((client.clone(), url)),
            Some(Err(error)) => troubles.push(format!("logs.upload: {error}")),
            None => {}
        }
        (reporting, listeners, troubles)
    }

    /// Waits for the last events and uploads the log. At most `limit` for each webhook and for the log.
    pub fn finish(&self, log: impl FnOnce() -> String, limit: Duration) -> Vec<String> {
        let mut troubles = Vec::new();
        for webhook in &self.webhooks {
            let Counts { sent, lost, waiting } = webhook.flush(limit);
            if lost + waiting > 0 {
                let endpoint = &webhook.shared.options.endpoint;
                troubles.push(format!("{endpoint}: {sent} events posted, {} not", lost + waiting));
            }
        }
        if let Some((client, url)) = &self.upload
            && let Err(error) = upload_log(client, url, log().as_bytes(), limit)
        {
            troubles.push(error.to_string());
        }
        troubles
    }
}

fn webhook(
    reporter: &Reporter,
    endpoint: &str,
    variables: &Variables,
    client: &Client,
    machine: Option<&str>,
) -> Result<Webhook, String> {
    let options = WebhookOptions {
        endpoint: variables.fill(endpoint).map_err(|error| error.to_string())?,
        level: level(reporter.level),
        token: reporter.token.as_ref().map(|token| token.0.clone()),
        machine: machine.map(str::to_owned),
    };
    Webhook::new(client.clone(), options).map_err(|error| with_cause(&error))
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn level(written: ReportLevel) -> Level {
    match written {
        ReportLevel::Debug => Level::Debug,
        ReportLevel::Info => Level::Info,
        ReportLevel::Warn => Level::Warn,
        ReportLevel::Error => Level::Error,
    }
}

/// Uploads a whole log with PUT, or with POST where PUT is not known, and gives up after `limit`.
pub fn upload_log(client: &Client, url: &str, log: &[u8], limit: Duration) -> Result<(), ReportError> {
    let deadline = Instant::now() + limit;
    let mut by_post = false;
    let mut pauses = PAUSES_SECONDS.iter().chain(std::iter::repeat(&PAUSES_SECONDS[3]));
    loop {
        let request = if by_post { client.post(url) } else { client.put(url) };
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let request = request.header(CONTENT_TYPE, "text/plain; charset=utf-8").timeout(left);
        let (error, again) = match request.body(log.to_vec()).send() {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) if matches!(answer.status().as_u16(), 405 | 501) && !by_post => {
                by_post = true;
                continue;
            }
            Ok(answer) => {
                let status = answer.status().as_u16();
                (ReportError::Refused { url: url.to_owned(), status }, may_change(status))
            }
            Err(source) => (ReportError::Upload { url: url.to_owned(), source: source.without_url() }, true),
        };
        let pause = Duration::from_secs(*pauses.next().unwrap_or(&10));
        if !again || Instant::now() + pause >= deadline {
            return Err(error);
        }
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests;
