//! `castiron appliance`: what a machine boots to be installed.
//!
//! The recipe: choose the board, fetch and unpack the packages it needs, assemble, make the boot medium, write.
//! What takes long (downloads, unpacked packages, compression) is kept in a cache by digest; the result is the same
//! without it.

mod cache;
mod packages;
mod workshop;

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::appliance::assemble::{self, Appliance, Request};
use castiron_engine::appliance::contents::{Own, Program};
use castiron_engine::appliance::manifest::Totals;
use castiron_engine::appliance::medium;
use castiron_engine::catalogue::{Board, Catalogue};
use castiron_engine::event::{Event, EventResult, EventSink};
use castiron_engine::plan::Tool;

use super::Report;
use crate::terminal::Terminal;
use cache::Cache;

/// Build what a machine boots to be installed
///
/// Writes a kernel, an initramfs, a unified kernel image, an iPXE script, a boot medium for CD and USB, and a manifest
/// of all that is in them.
#[derive(clap::Args)]
pub struct Args {
    /// The board: a name below `board-support/`, or a `board.toml`.
    #[arg(long, default_value = "x86_64")]
    board: String,
    /// Where the files go.
    #[arg(short, long, value_name = "DIR")]
    output: Utf8PathBuf,
    /// A config that is used when the kernel command line names none.
    #[arg(long, value_name = "FILE")]
    config: Option<Utf8PathBuf>,
    /// A public key (minisign) that configs may be signed with; repeat for more.
    #[arg(long, value_name = "FILE")]
    trusted_key: Vec<Utf8PathBuf>,
    /// A certificate authority (PEM) that https servers may be signed by; repeat for more.
    #[arg(long, value_name = "FILE")]
    ca: Vec<Utf8PathBuf>,
    /// Words for the kernel command line.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    cmdline: Vec<String>,
    /// The init; `castiron-init` beside this program if not given.
    #[arg(long, value_name = "PATH")]
    init: Option<Utf8PathBuf>,
    /// Another kernel than the board's, such as the one for virtual machines.
    #[arg(long, value_name = "PACKAGE")]
    kernel_package: Option<String>,
    /// Leave out firmware packages, and with them what is not free software.
    #[arg(long)]
    no_firmware: bool,
    /// Leave out the boot medium.
    #[arg(long)]
    no_iso: bool,
    #[command(flatten)]
    archive: packages::ArchiveArgs,
    /// Keeps downloads and packed files by digest; `~/.cache/castiron` if not given.
    #[arg(long, value_name = "DIR", env = "CASTIRON_CACHE")]
    cache: Option<Utf8PathBuf>,
}

pub fn run(args: Args) -> Result<(), Report> {
    let mut terminal = Terminal::default();
    let board = board(&args)?;
    let init = read(&args.init.clone().map_or_else(beside_this_program, Ok)?)?;
    let own = OwnFiles::read(&args)?;
    let cache = Cache::open(args.cache.as_deref())?;

    let (overlay, releases) = packages::overlay(&wanted(&args, &board), &board, &args.archive, &cache, &mut terminal)?;
    let date = source_date_epoch()?.unwrap_or_else(|| overlay.newest());
    let programs: Vec<Program> = Tool::ALL.iter().map(|tool| program(*tool)).collect();
    let sources = args.archive.sources_list()?;
    let request = Request {
        board: &board,
        overlay: &overlay,
        programs: &programs,
        own: Own {
            init: &init,
            trusted_keys: &own.trusted_keys,
            authorities: &own.authorities,
            config: own.config.as_deref(),
            sources: Some(&sources),
            archive_keys: own.archive_keys.as_deref(),
            releases: &releases,
            date,
        },
        cmdline: &args.cmdline,
        version: env!("CARGO_PKG_VERSION"),
    };
    let mut appliance =
        step(&mut terminal, "appliance/assemble", "assemble kernel, initramfs and unified image", || {
            Ok(assemble::assemble(&request, &|bytes| cache.compress_file(bytes), &|bytes| cache.compress_layer(bytes))?)
        })?;
    if !args.no_iso {
        let image = step(&mut terminal, "appliance/medium", "make the boot medium", || {
            let file = |name: &str| appliance.file(name).unwrap_or_default();
            let kernel = file(assemble::KERNEL);
            let work = medium::workshop(&board, kernel, file(assemble::INITRAMFS), &appliance.cmdline, date);
            workshop::make_medium(&work, &board, &overlay, &cache)
        })?;
        appliance.add(assemble::ISO, image);
    }
    write(&args.output, &mut appliance)?;
    show(&appliance, &args.output);
    Ok(())
}

/// One piece of work that is shown while it runs.
fn step<T>(
    terminal: &mut Terminal,
    name: &str,
    description: &str,
    work: impl FnOnce() -> Result<T, Report>,
) -> Result<T, Report> {
    terminal.emit(&Event::start(name, description));
    let result = work();
    let ending = if result.is_ok() { EventResult::Success } else { EventResult::Fail };
    terminal.emit(&Event::finish(name, description, ending));
    result
}

fn board(args: &Args) -> Result<Board, Report> {
    let name = &args.board;
    let shipped = Catalogue::shipped()?.boards;
    let mut board = match shipped.iter().find(|board| board.name == *name) {
        Some(board) => board.clone(),
        None if name.ends_with(".toml") => Board::parse(name, &String::from_utf8_lossy(&read(Utf8Path::new(name))?))?,
        None => {
            let known: Vec<_> = shipped.iter().map(|board| board.name.as_str()).collect();
            return Err(Report::usage(format!("error: there is no board `{name}`"))
                .with_hint(format!("the boards are {}; a path to a board.toml works too", known.join(", "))));
        }
    };
    if let Some(package) = &args.kernel_package {
        board.kernel.package.clone_from(package);
    }
    if args.no_firmware {
        board.firmware_packages = Default::default();
    }
    Ok(board)
}

/// Packages whose files the appliance or its boot medium is made of.
fn wanted(args: &Args, board: &Board) -> Vec<String> {
    let mut names: Vec<&str> = vec![&board.kernel.package, "ca-certificates"];
    // Another archive need not have Debian's keys.
    names.extend(args.archive.keyring.is_none().then_some("debian-archive-keyring"));
    names.extend(Tool::ALL.iter().map(|tool| tool.source().package));
    names.extend(board.efi.iter().map(|efi| efi.stub.package.as_str()));
    if !args.no_iso {
        names.extend(medium::PACKAGES);
        names.extend(board.efi.iter().map(|efi| efi.grub.package.as_str()));
        names.extend(board.bios.iter().map(|bios| bios.grub.package.as_str()));
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(str::to_owned).collect()
}

fn program(tool: Tool) -> Program {
    let source = tool.source();
    Program { name: source.name.to_owned(), path: source.path.to_owned() }
}

/// What the owner bakes in.
struct OwnFiles {
    config: Option<Vec<u8>>,
    trusted_keys: Vec<(String, Vec<u8>)>,
    authorities: Vec<(String, Vec<u8>)>,
    archive_keys: Option<Vec<u8>>,
}

impl OwnFiles {
    fn read(args: &Args) -> Result<Self, Report> {
        let is_key =
            |text: &str| minisign::PublicKeyBox::from_string(text).and_then(|key| key.into_public_key()).is_ok();
        let is_authority = |text: &str| text.contains("-----BEGIN CERTIFICATE-----");
        Ok(Self {
            config: args.config.as_deref().map(read).transpose()?,
            archive_keys: args.archive.keyring.as_deref().map(read).transpose()?,
            trusted_keys: named(&args.trusted_key, "pub", is_key)
                .map_err(|report| report.with_hint("a public key of `castiron keygen` is meant"))?,
            authorities: named(&args.ca, "pem", is_authority)
                .map_err(|report| report.with_hint("a certificate in PEM is meant"))?,
        })
    }
}

/// Files by the names they get in the appliance, which all end alike.
fn named(
    paths: &[Utf8PathBuf],
    extension: &str,
    is_valid: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Vec<u8>)>, Report> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for path in paths {
        let name = format!("{}.{extension}", path.file_stem().unwrap_or(path.as_str()));
        if files.iter().any(|(known, _)| *known == name) {
            return Err(Report::usage(format!("error: two files would be called {name} in the appliance")));
        }
        let content = read(path)?;
        if !is_valid(&String::from_utf8_lossy(&content)) {
            return Err(Report::usage(format!("error: {path} is not what it should be")));
        }
        files.push((name, content));
    }
    Ok(files)
}

fn beside_this_program() -> Result<Utf8PathBuf, Report> {
    let program = std::env::current_exe()?;
    let path = program.with_file_name("castiron-init");
    Utf8PathBuf::from_path_buf(path).map_err(|path| Report::failure(format!("error: {} is not UTF-8", path.display())))
}

fn read(path: &Utf8Path) -> Result<Vec<u8>, Report> {
    std::fs::read(path).map_err(|cause| Report::usage(format!("error: cannot read {path}\n  cause: {cause}")))
}

/// The date for all files (reproducible-builds.org, SOURCE_DATE_EPOCH), if the environment gives one.
fn source_date_epoch() -> Result<Option<i64>, Report> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(None) };
    match text.parse() {
        Ok(seconds) => Ok(Some(seconds)),
        Err(_) => {
            Err(Report::usage(format!("error: SOURCE_DATE_EPOCH is `{text}`")).with_hint("write seconds since 1970"))
        }
    }
}

/// Every file under another name first, so that an interrupted build leaves no half file behind.
fn write(folder: &Utf8Path, appliance: &mut Appliance) -> Result<(), Report> {
    let manifest = appliance.manifest.to_json().into_bytes();
    let failed = |path: &Utf8Path| {
        let path = path.to_owned();
        move |cause| Report::failure(format!("error: cannot write {path}\n  cause: {cause}"))
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let manifest = (assemble::MANIFEST.to_owned(), manifest);
    for (name, content) in appliance.files.iter().chain([&manifest]) {
        let path = folder.join(name);
        let unfinished = folder.join(format!(".{name}.unfinished"));
        std::fs::write(&unfinished, content).map_err(failed(&path))?;
        std::fs::rename(&unfinished, &path).map_err(failed(&path))?;
    }
    Ok(())
}

fn show(appliance: &Appliance, folder: &Utf8Path) {
    let manifest = &appliance.manifest;
    println!("{folder}: {} for Linux {}", manifest.board, manifest.kernel);
    for output in &manifest.outputs {
        println!("  {:>10}  {}", output.size, output.name);
    }
    let Totals { packages, files, modules, unpacked, .. } = manifest.totals;
    println!(
        "  {files} files of {packages} packages, {modules} modules, {unpacked} of memory; listed in {}",
        assemble::MANIFEST
    );
    if !manifest.missing_firmware.is_empty() {
        println!("  {} firmware files that modules name are in none of the packages", manifest.missing_firmware.len());
    }
}
