//! Devices of the running machine: drivers for those present and for those that come while the installer runs.
//!
//! In: kernel messages, [`Loader`]. Out: a machine whose devices have their drivers, and answers to "is everything
//! there yet". Invariant: the listener is there before the first look, so that no device falls between the two.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cmdline::Boot;
use crate::console::Console;
use crate::log;
use crate::modules::{self, Loader, ModuleError};
use crate::power;
use crate::uevent::{Listener, Received, Uevent};

/// The machine is settled when nothing came for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Modules that a board needs whatever its devices say, one a line.
const MODULES_TO_LOAD: &str = "etc/castiron/modules-load";

/// A handle; clones speak of the same machine. Without one ([`Devices::none`]) every question is answered at once.
#[derive(Clone, Default)]
pub struct Devices {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    loader: Loader,
    activity: Mutex<Activity>,
    changed: Condvar,
}

struct Activity {
    last: Instant,
    /// How many are loading drivers right now.
    busy: u32,
    events: u64,
}

impl Devices {
    /// For a start as an ordinary program, which has no business with the machine's drivers.
    pub fn none() -> Self {
        Self::default()
    }

    /// Begins to listen and loads what the board's list and the command line name.
    pub fn start(root: &Path, boot: &Boot, console: &Console) -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let loader = Loader::open(root, &release, boot);
        if loader.is_empty() {
            console.line(&format!("no modules for Linux {release}: only built-in drivers are used"));
        }
        let activity = Activity { last: Instant::now(), busy: 0, events: 0 };
        let shared = Arc::new(Shared { loader, activity: Mutex::new(activity), changed: Condvar::new() });
        match Listener::open() {
            Ok(listener) => {
                let shared = Arc::clone(&shared);
                let listen = move || shared.listen(listener);
                if let Err(cause) = std::thread::Builder::new().name("uevent".to_owned()).spawn(listen) {
                    console.warn(&format!("devices that come later are not noticed: {cause}"));
                }
            }
            Err(cause) => console.warn(&format!("devices that come later are not noticed: {cause}")),
        }
        power::watch_present(&root.join("dev"));
        let listed = std::fs::read_to_string(root.join(MODULES_TO_LOAD)).unwrap_or_default();
        for name in modules::parse_list(&listed) {
            match shared.loader.load(&name) {
                // The list is for all machines of a board, such as one with the variables of UEFI and one without.
                Err(error) if error.is_no_device() => tracing::debug!("module {name}: no device"),
                loaded => told(console, loaded),
            }
        }
        for name in &boot.modules {
            told(console, shared.loader.load(name));
        }
        Self { shared: Some(shared) }
    }

    /// Loads drivers for all devices that are present, until a look finds nothing new.
    pub fn cold_plug(&self) {
        if let Some(shared) = &self.shared {
            shared.working(|loader| while loader.cold_plug() {});
        }
    }

    /// Loads a module by name or alias.
    #[allow(dead_code, reason = "for the phases that follow the modules")]
    pub fn load(&self, name: &str) -> Result<(), ModuleError> {
        self.shared.as_ref().map_or(Ok(()), |shared| shared.loader.load(name))
    }

    /// Names of the modules loaded so far.
    pub fn loaded(&self) -> Vec<String> {
        self.shared.as_ref().map(|shared| shared.loader.loaded()).unwrap_or_default()
    }

    /// Names of the modules that present devices asked for and that this appliance does not carry.
    pub fn absent(&self) -> Vec<String> {
        self.shared.as_ref().map(|shared| shared.loader.absent()).unwrap_or_default()
    }

    /// Waits until no device came or went for a moment, `patience` at most. True when the machine is quiet.
    pub fn settle(&self, patience: Duration) -> bool {
        let Some(shared) = &self.shared else { return true };
        let end = Instant::now() + patience;
        let mut activity = shared.lock();
        loop {
            let now = Instant::now();
            let quiet_at = activity.last + QUIET;
            if activity.busy == 0 && now >= quiet_at {
                return true;
            }
            if now >= end {
                return false;
            }
            let until = if activity.busy > 0 { end } else { quiet_at.min(end) };
            let waited = shared.changed.wait_timeout(activity, until - now);
            activity = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks `there` again whenever a device came, and twice a second, until it is true or `patience` is over.
    #[allow(dead_code, reason = "for the phases that follow the modules")]
    pub fn wait_for(&self, patience: Duration, mut there: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + patience;
        loop {
            let seen = self.shared.as_ref().map(|shared| shared.lock().events);
            if there() {
                return true;
            }
            let now = Instant::now();
            if now >= end {
                return false;
            }
            let pause = (end - now).min(Duration::from_millis(500));
            match &self.shared {
                None => std::thread::sleep(pause),
                Some(shared) => {
                    let activity = shared.lock();
                    let same = |activity: &mut Activity| Some(activity.events) == seen;
                    let _ = shared.changed.wait_timeout_while(activity, pause, same);
                }
            }
        }
    }
}

impl Shared {
    fn listen(&self, mut listener: Listener) {
        loop {
            match listener.receive() {
                Ok(Received::Event(event)) => self.noticed(&event),
                Ok(Received::Foreign) => {}
                Ok(Received::Overrun) => {
                    tracing::info!("the kernel dropped device messages; looking at all devices again");
                    self.working(|loader| while loader.cold_plug() {});
                }
                Err(cause) => {
                    tracing::warn!("devices that come from now on are not noticed: {cause}");
                    return;
                }
            }
        }
    }

    fn noticed(&self, event: &Uevent) {
        let mut activity = self.lock();
        activity.last = Instant::now();
        activity.events += 1;
        drop(activity);
        self.changed.notify_all();
        if event.action != "add" {
            return;
        }
        if let Some(alias) = event.property("MODALIAS") {
            self.working(|loader| loader.load_for([alias.to_owned()]));
        }
        if let Some(device) = event.property("DEVNAME").filter(|name| name.starts_with("input/event")) {
            power::watch(&Path::new("/dev").join(device));
        }
    }

    fn working<T>(&self, work: impl FnOnce(&Loader) -> T) -> T {
        self.lock().busy += 1;
        let result = work(&self.loader);
        let mut activity = self.lock();
        activity.busy -= 1;
        activity.last = Instant::now();
        drop(activity);
        self.changed.notify_all();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(console: &Console, loaded: Result<(), ModuleError>) {
    if let Err(error) = loaded {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        console.warn(&format!("{error}{cause}"));
    }
}

/// Says which firmware files drivers asked for and did not get.
pub fn report_missing_firmware(console: &Console) {
    for (device, file) in modules::missing_firmware(&log::kernel_messages()) {
        console.warn(&format!("{device} asks for firmware {file}, which this appliance does not carry"));
    }
}
