//! Many packages at once: some threads fetch, some unpack, the caller's thread watches.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::tree::Tree;
use super::{Deb, UnpackError, UnpackOptions, Unpacked, unpack_one};
use crate::debian::{PackageRef, PackageSet};
use crate::event::{Progress, Unit};
use crate::fetch::{Expected, Fetcher};
use crate::units::Bytes;

/// Bytes that may wait in memory; a single larger claim is let through when nothing else is held.
struct Budget {
    free: Mutex<u64>,
    total: u64,
    returned: Condvar,
}

impl Budget {
    fn take(&self, wanted: u64, stop: &AtomicBool) -> u64 {
        let claim = wanted.min(self.total);
        let mut free = self.free.lock().expect("no holder panics");
        while *free < claim && !stop.load(Ordering::Relaxed) {
            free = self.returned.wait_timeout(free, Duration::from_millis(100)).expect("no holder panics").0;
        }
        *free = free.saturating_sub(claim);
        claim
    }

    fn give_back(&self, claim: u64) {
        *self.free.lock().expect("no holder panics") += claim;
        self.returned.notify_all();
    }
}

struct Fetched {
    owner: usize,
    claim: u64,
    deb: Deb,
}

struct Fleet<'a> {
    set: &'a PackageSet,
    fetcher: &'a Fetcher,
    tree: &'a Tree,
    options: &'a UnpackOptions,
    /// Places in the set, largest package first, so that the last to finish are small.
    order: Vec<usize>,
    next: AtomicUsize,
    stop: AtomicBool,
    budget: Budget,
}

type Outcome = Result<(usize, Unpacked), UnpackError>;

/// Everything unpacked, in the set's order, and how long the workers waited for packages.
pub(super) fn unpack_all(
    set: &PackageSet,
    fetcher: &Fetcher,
    tree: &Tree,
    options: &UnpackOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Vec<Unpacked>, Duration), UnpackError> {
    let mut order: Vec<usize> = (0..set.packages.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(set.packages[*place].size));
    let total = options.memory_max.0.max(1);
    let fleet = Fleet {
        set,
        fetcher,
        tree,
        options,
        order,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        budget: Budget { free: Mutex::new(total), total, returned: Condvar::new() },
    };
    let workers = options.workers.max(1);
    let (fetched_sender, fetched) = channel();
    let (done_sender, done) = channel();
    let fetched = Mutex::new(fetched);
    let waited = Mutex::new(Duration::ZERO);
    let mut places: Vec<Option<Unpacked>> = set.packages.iter().map(|_| None).collect();
    let mut first_error = None;
    std::thread::scope(|scope| {
        for _ in 0..options.fetchers.max(1) {
            let (fetched_sender, done_sender) = (fetched_sender.clone(), done_sender.clone());
            let fleet = &fleet;
            scope.spawn(move || fleet.fetch_all(&fetched_sender, &done_sender));
        }
        for _ in 0..workers {
            let done_sender = done_sender.clone();
            let (fleet, fetched, waited) = (&fleet, &fetched, &waited);
            scope.spawn(move || fleet.unpack_all(fetched, &done_sender, waited));
        }
        drop((fetched_sender, done_sender));
        let mut finished = Bytes::ZERO;
        let size = set.download_size();
        for outcome in done {
            match outcome {
                Ok((owner, unpacked)) => {
                    places[owner] = Some(unpacked);
                    finished = finished + set.packages[owner].size;
                    progress(Progress { done: finished.0, total: Some(size.0), unit: Unit::Bytes });
                }
                Err(error) => {
                    fleet.stop.store(true, Ordering::Relaxed);
                    first_error.get_or_insert(error);
                }
            }
        }
    });
    match first_error {
        Some(error) => Err(error),
        None => {
            let waited = *waited.lock().expect("no holder panics") / workers as u32;
            Ok((
                places.into_iter().map(|place| place.expect("every package was unpacked or an error told")).collect(),
                waited,
            ))
        }
    }
}

impl Fleet<'_> {
    fn fetch_all(&self, fetched: &Sender<Fetched>, done: &Sender<Outcome>) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(owner) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)).copied() else { return };
            let package = &self.set.packages[owner];
            let in_memory = package.size <= self.options.memory_file_max;
            let claim = if in_memory { self.budget.take(package.size.0, &self.stop) } else { 0 };
            let sent = match self.fetch(package, in_memory) {
                Ok(deb) => fetched.send(Fetched { owner, claim, deb }).is_ok(),
                Err(error) => done.send(Err(error)).is_ok(),
            };
            if !sent {
                return;
            }
        }
    }

    fn fetch(&self, package: &PackageRef, in_memory: bool) -> Result<Deb, UnpackError> {
        let urls = self.set.urls(package);
        let expected: Expected = package.expected();
        let failed = |source| UnpackError::Fetch { package: format!("{} {}", package.name, package.version), source };
        match in_memory {
            true => self.fetcher.fetch_verified(&urls, expected, &mut |_| ()).map(Deb::Memory).map_err(failed),
            false => self
                .fetcher
                .fetch_verified_file(&urls, expected, || self.tree.spool(), &mut |_| ())
                .map(Deb::File)
                .map_err(failed),
        }
    }

    fn unpack_all(&self, fetched: &Mutex<Receiver<Fetched>>, done: &Sender<Outcome>, waited: &Mutex<Duration>) {
        let mut writer = self.tree.writer();
        loop {
            let asked = Instant::now();
            let received = fetched.lock().expect("no holder panics").recv();
            *waited.lock().expect("no holder panics") += asked.elapsed();
            let Ok(Fetched { owner, claim, deb }) = received else { return };
            if !self.stop.load(Ordering::Relaxed) {
                let outcome = unpack_one(&mut writer, &self.set.packages[owner], owner, deb);
                if done.send(outcome.map(|unpacked| (owner, unpacked))).is_err() {
                    return;
                }
            }
            self.budget.give_back(claim);
        }
    }
}
