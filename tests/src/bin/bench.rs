//! castiron's bootstrap beside mmdebstrap's and debootstrap's: same suite, same packages, same warm mirror on the
//! loopback, in turns. Prints a table and where the time goes; writes `target/bench.json`.

#![allow(clippy::disallowed_methods, reason = "the harness starts programs; it is no part of the engine")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use castiron_tests::host::{self, Failure, Result, Subject};
use castiron_tests::http::Server;
use castiron_tests::{proxy, rivals};
use serde::Serialize;

/// How many times each runs after a first time that only warms caches; the median counts.
const ROUNDS: usize = 3;
/// Below these, `make bench` fails; the aims are half as much again.
const RATIO_MIN: [(&str, f64); 2] = [("mmdebstrap", 2.0), ("debootstrap", 4.0)];

/// One line of the table, in seconds.
#[derive(Serialize)]
struct Line {
    name: String,
    castiron: f64,
    rival: f64,
    ratio: f64,
    castiron_cpu: f64,
    rival_cpu: f64,
}

#[derive(Clone, Copy)]
struct Taken {
    wall: f64,
    cpu: f64,
}

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<bool> {
    let suite = rivals::host_suite()?;
    let server = Server::start()?;
    proxy::serve(&server, &suite)?;
    let mirror = format!("{}/debian", server.url());
    let scratch = host::fresh("bench")?;
    host::run(&mut Command::new("sync"))?;
    let timings = scratch.join("timings.json");
    let command = |name: &str, root: &Path| -> Result<Command> {
        Ok(match name {
            "mmdebstrap" => rivals::mmdebstrap(&suite, &mirror, root),
            "debootstrap" => rivals::debootstrap(&suite, &mirror, root),
            _ => {
                let mut command = rivals::castiron(&suite, &mirror, root)?;
                command.arg("--timings").arg(&timings);
                command
            }
        })
    };
    let contestants = ["castiron", "mmdebstrap", "debootstrap"];
    let mut taken: Vec<Vec<Taken>> = vec![Vec::new(); contestants.len()];
    let mut packages = vec![0; contestants.len()];
    for round in 0..=ROUNDS {
        for (place, name) in contestants.iter().enumerate() {
            // ext4 searches long for inodes after many were freed, so nothing is removed before the last has run.
            let root = scratch.join(format!("{name}-{round}"));
            let time = timed(&mut command(name, &root)?)?;
            eprintln!("round {round}: {name} {:.2} s ({:.2} s of processor)", time.wall, time.cpu);
            if round > 0 {
                taken[place].push(time);
            }
            packages[place] = installed(&root)?;
        }
    }
    let stages = std::fs::read_to_string(&timings).on(timings.display())?;
    let stages: serde_json::Value = serde_json::from_str(&stages).on("the timings")?;
    std::fs::remove_dir_all(&scratch).on(scratch.display())?;
    if packages.iter().any(|count| *count != packages[0]) {
        return Err(Failure(format!("not the same number of packages: {packages:?}")));
    }
    let medians: Vec<Taken> = taken.iter().map(|times| median(times)).collect();
    let lines: Vec<Line> = contestants
        .iter()
        .zip(&medians)
        .skip(1)
        .map(|(rival, time)| Line {
            name: format!("minbase {suite} against {rival}"),
            castiron: medians[0].wall,
            rival: time.wall,
            ratio: time.wall / medians[0].wall,
            castiron_cpu: medians[0].cpu,
            rival_cpu: time.cpu,
        })
        .collect();
    show(&lines, packages[0]);
    show_stages(&stages, &suite)?;
    let path = host::top().join("target/bench.json");
    let json = serde_json::to_string_pretty(&lines).on("the results")?;
    std::fs::write(&path, json + "\n").on(path.display())?;
    Ok(lines.iter().zip(RATIO_MIN).all(|(line, (_, minimum))| line.ratio >= minimum))
}

fn timed(command: &mut Command) -> Result<Taken> {
    let (before, started) = (processor()?, Instant::now());
    host::run(command)?;
    Ok(Taken { wall: started.elapsed().as_secs_f64(), cpu: processor()? - before })
}

/// Seconds of processor that the programs run so far took (proc(5): cutime and cstime, in hundredths).
fn processor() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").on("/proc/self/stat")?;
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

fn median(times: &[Taken]) -> Taken {
    let mut sorted = times.to_vec();
    sorted.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    sorted[sorted.len() / 2]
}

fn installed(root: &Path) -> Result<usize> {
    let status = root.join("var/lib/dpkg/status");
    let text = std::fs::read_to_string(&status).on(status.display())?;
    Ok(text.lines().filter(|line| *line == "Status: install ok installed").count())
}

fn show(lines: &[Line], packages: usize) {
    println!("{packages} packages, median of {ROUNDS}, seconds (of processor in brackets)");
    println!("{:<40} {:>16} {:>16} {:>7}", "", "castiron", "rival", "ratio");
    for line in lines {
        let pair = |wall: f64, cpu: f64| format!("{wall:.2} ({cpu:.2})");
        let (ours, theirs) = (pair(line.castiron, line.castiron_cpu), pair(line.rival, line.rival_cpu));
        println!("{:<40} {ours:>16} {theirs:>16} {:>6.1}x", line.name, line.ratio);
    }
}

/// Where castiron's last run spent its time, beside what cannot be avoided: decompressing on all cores.
fn show_stages(timings: &serde_json::Value, suite: &str) -> Result<()> {
    let seconds = |name: &str| timings[name].as_f64().unwrap_or_default();
    println!("\nwhere the last run of castiron went");
    println!("  index    {:>6.2} s  fetch, verify, resolve", seconds("index"));
    println!("  fetch    {:>6.2} s  of the next line: nothing to unpack yet", seconds("fetch_wait"));
    println!(
        "  unpack   {:>6.2} s  {} files; floor: {:.2} s to decompress alone",
        seconds("unpack"),
        timings["files"],
        floor(suite)?.as_secs_f64()
    );
    println!("  scripts  {:>6.2} s  maintainer scripts and dpkg", seconds("scripts"));
    Ok(())
}

/// The time to decompress the data of every package in the mirror's cache that a minbase of the suite has, on all
/// cores, writing nothing.
fn floor(suite: &str) -> Result<Duration> {
    let mirror = host::mirror_of(suite)?.uri;
    let root = host::fresh("bench-floor")?.join("root");
    let uris =
        host::tool("debootstrap", ["--print-debs", "--variant=minbase", suite, &root.display().to_string(), &mirror])?;
    let wanted: Vec<&str> = uris.split_whitespace().collect();
    let mut debs: Vec<(u64, PathBuf)> = Vec::new();
    collect(&host::cache("mirror")?.join("debian/pool"), &mut |path, size| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.split('_').next().is_some_and(|package| wanted.contains(&package)) {
            debs.push((size, path));
        }
    })?;
    debs.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let debs: Vec<Vec<u8>> =
        debs.iter().map(|(_, path)| std::fs::read(path).on(path.display())).collect::<Result<_>>()?;
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(deb) = debs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    decompress(deb);
                }
            });
        }
    });
    Ok(started.elapsed())
}

fn collect(folder: &Path, each: &mut dyn FnMut(PathBuf, u64)) -> Result<()> {
    for entry in std::fs::read_dir(folder).on(folder.display())?.flatten() {
        let found = entry.metadata().on(entry.path().display())?;
        match found.is_dir() {
            true => collect(&entry.path(), each)?,
            false => each(entry.path(), found.len()),
        }
    }
    Ok(())
}

/// Runs the data member of a package through its decompressor.
fn decompress(deb: &[u8]) {
    let mut rest = deb.get(8..).unwrap_or_default();
    while rest.len() > 60 {
        let name = String::from_utf8_lossy(&rest[..16]).trim().to_owned();
        let size: usize = String::from_utf8_lossy(&rest[48..58]).trim().parse().unwrap_or(0);
        let member = &rest[60..(60 + size).min(rest.len())];
        let mut sink = std::io::sink();
        if name.starts_with("data.tar.xz") {
            let _ = std::io::copy(&mut liblzma::bufread::XzDecoder::new(member), &mut sink);
        } else if name.starts_with("data.tar.zst") {
            let _ = zstd::stream::copy_decode(member, &mut sink);
        } else if name.starts_with("data.tar.gz") {
            let _ = flate2::bufread::GzDecoder::new(member).take(u64::MAX).read_to_end(&mut Vec::new());
        }
        rest = &rest[(60 + size + size % 2).min(rest.len())..];
    }
}
