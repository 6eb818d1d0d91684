//! `castiron build`: a bootable disk image from the config that installs machines.
//!
//! The work runs in mount and PID namespaces of its own: whenever castiron ends, also by SIGKILL, the kernel ends every
//! program and mount of the build with it. What may stay is one directory beside the image, which `clean` removes.

use std::collections::BTreeMap;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::event::{Event, EventResult, EventSink};
use castiron_engine::plan::disk;
use castiron_engine::run::{Journal, OnFailure, after_failure, run as carry_out};
use castiron_engine::spec::Spec;
use castiron_engine::system::{Linux, Toolbox};
use castiron_engine::units::Bytes;

use super::Report;
use crate::decide::{self, DecideArgs, For};
use crate::terminal::{JsonLines, Terminal};
use crate::workspace::{self, Workspace};
use crate::{isolate, qcow2};

/// Make a bootable disk image.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    decide: DecideArgs,
    /// The image; its ending chooses the format: .raw, .img or .qcow2
    #[arg(short, long, value_name = "FILE")]
    output: Utf8PathBuf,
    /// The size of the disk, such as 4GiB; goes before the one in the config
    #[arg(long, value_name = "SIZE")]
    size: Option<Bytes>,
    /// Print events as JSON lines instead of progress
    #[arg(long)]
    json: bool,
    /// Show what the packages' scripts and tools print
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Raw,
    Qcow2,
}

fn format(output: &Utf8Path) -> Result<Format, Report> {
    match output.extension() {
        Some("raw" | "img") => Ok(Format::Raw),
        Some("qcow2") => Ok(Format::Qcow2),
        _ => Err(Report::usage(format!("error: {output} does not tell a format"))
            .with_hint("end the name with .raw, .img or .qcow2")),
    }
}

pub fn run(args: Args) -> Result<(), Report> {
    let format = format(&args.output)?;
    let folder = args.output.parent().filter(|folder| !folder.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    if !folder.is_dir() {
        return Err(Report::usage(format!("error: {folder} is not a directory")));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Report::usage("error: a build mounts file systems, which only root may do").with_hint("use sudo"));
    }
    let workspace = Workspace::new(folder)?;
    let ended = isolate::run(|| build(&args, format, &workspace).map_or_else(|report| report.show_status(), |()| 0));
    workspace::remove(&workspace.path)?;
    match ended? {
        0 => Ok(()),
        status => Err(Report::silent(status)),
    }
}

/// Inside the namespaces.
fn build(args: &Args, format: Format, workspace: &Workspace) -> Result<(), Report> {
    let mut sink: Box<dyn EventSink> = if args.json { Box::new(JsonLines) } else { Box::new(Terminal::default()) };
    let decision = decide::decide(&args.decide, For::Image { size: args.size }, &mut *sink)?;
    let toolbox = Toolbox::from_search_path(&std::env::var("PATH").unwrap_or_default());
    let verbose = args.verbose;
    let show = move |line: &str| if verbose { eprintln!("  | {line}") } else { tracing::info!("{line}") };
    let mut system = Linux::new(toolbox, &decision.fetcher, decision.secrets, show);
    let made = make(args, format, workspace, &decision.spec, &mut system, &mut *sink);
    made.map_err(|report| {
        let status = report.show_status();
        after_failure(&disk::on_failure(&decision.spec), &mut system, &mut *sink);
        Report::silent(status)
    })
}

fn make(
    args: &Args,
    format: Format,
    workspace: &Workspace,
    spec: &Spec,
    system: &mut Linux<'_>,
    sink: &mut dyn EventSink,
) -> Result<(), Report> {
    let disks: Vec<_> = spec.graph.disks().map(|(id, _)| id.clone()).collect();
    let [only] = &disks[..] else {
        return Err(Report::usage(format!("error: the config describes {} disks; an image is one", disks.len())));
    };
    let raw = workspace.path.join("disk.raw");
    let plan = decide::plan(spec, &workspace.path.join("target"), BTreeMap::from([(only.clone(), raw.clone())]))?;
    if let Some(tool) = system.toolbox.missing(&plan).first() {
        let source = tool.source();
        return Err(Report::usage(format!("error: the program {} is missing", source.name))
            .with_hint(format!("Debian has it in the package {}", source.package)));
    }
    let mut journal = Journal::in_file(&workspace.path.join("journal"))?;
    let outcome = carry_out(&plan, &mut journal, system, sink, &mut (), OnFailure::Keep);
    outcome.map_err(|error| {
        let hint = error.cause.hint().map(str::to_owned);
        let report = Report::from(error);
        if let Some(hint) = hint { report.with_hint(hint) } else { report }
    })?;
    finish(&raw, format, &args.output, workspace, sink)
}

/// The image gets its name only when it is complete.
fn finish(
    raw: &Utf8Path,
    format: Format,
    output: &Utf8Path,
    workspace: &Workspace,
    events: &mut dyn EventSink,
) -> Result<(), Report> {
    let complete = match format {
        Format::Raw => raw.to_owned(),
        Format::Qcow2 => {
            events.emit(&Event::start("build/convert", "convert to qcow2"));
            let converted = workspace.path.join("disk.qcow2");
            qcow2::convert(raw, &converted)?;
            events.emit(&Event::finish("build/convert", "convert to qcow2", EventResult::Success));
            converted
        }
    };
    fs::File::open(&complete)?.sync_all()?;
    fs::rename(&complete, output)?;
    events.emit(&Event::finish("build", format!("{output} is complete"), EventResult::Success));
    Ok(())
}
