//! The question before the first write.
//!
//! In: the plan, and who has said yes already. Out: leave to go on, or why there is none. Invariant: without the word
//! nothing is written; there is no time after which silence counts as an answer.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use castiron_engine::config::Config;
use castiron_engine::config::system::Confirm;
use castiron_engine::plan::Plan;
use castiron_engine::spec::Spec;
use castiron_engine::trust::Origin;

use super::Stop;
use crate::cmdline::Boot;
use crate::context::{Context, Stopped};
use crate::finish::Wish;
use crate::phases::Phase;

/// What a person types to go on.
const WORD: &str = "yes";
/// No answer is longer; what follows belongs to it.
const ANSWER_BYTES_MAX: usize = 256;

/// Asks on every console where somebody wants to be asked.
pub fn ask(
    boot: &Boot,
    context: &mut Context,
    config: &Config,
    origin: Origin,
    spec: &Spec,
    plan: &Plan,
) -> Result<(), Stop> {
    let Some(reason) = reason(config.install.confirm, origin).filter(|_| !boot.confirm_auto) else { return Ok(()) };
    let mut keyboards: Vec<Keyboard> = context.console.keyboards().into_iter().map(Keyboard::from).collect();
    if keyboards.is_empty() {
        return Err(unconfirmed(&format!("{reason}, and this machine has no console to ask on")));
    }
    let disks: Vec<String> = spec.graph.disks().map(|(id, disk)| format!("{id} ({})", disk.size)).collect();
    context.note(Phase::Plan, &format!("{reason}: waiting for an answer on a console"));
    context.console.line(&format!("about to write to {}", disks.join(", ")));
    match plan.losses.is_empty() {
        true => context.console.line("  nothing that castiron knows would be lost"),
        false => plan.losses.iter().for_each(|loss| context.console.line(&format!("  LOST: {loss}"))),
    }
    context.console.line(&format!("type `{WORD}` and Enter to go on; anything else ends this before the first write"));
    match answer(&mut keyboards, &|| context.stop_requested()) {
        None => Err(Stop::Stopped(Stopped)),
        Some(typed) if typed == WORD => {
            context.note(Phase::Plan, "confirmed on a console");
            Ok(())
        }
        Some(typed) => Err(unconfirmed(&format!("`{}` was the answer, not `{WORD}`", typed.escape_debug()))),
    }
}

/// Why somebody has to be asked, where that is so.
fn reason(written: Confirm, origin: Origin) -> Option<&'static str> {
    match (written, origin) {
        (Confirm::Console | Confirm::Remote, _) => Some("the config asks for a confirmation (install.confirm)"),
        (Confirm::Auto, Origin::Medium) => Some("the config came from a removable medium"),
        (Confirm::Auto, Origin::Foreign | Origin::Offered | Origin::CommandLine | Origin::Initramfs) => None,
    }
}

fn unconfirmed(why: &str) -> Stop {
    let hint = "castiron.confirm=auto on the kernel command line stands for the answer";
    Stop::Failed { reason: format!("not confirmed: {why}\n  hint: {hint}"), wish: Wish::default() }
}

/// A console and what has been typed on it so far.
struct Keyboard {
    file: File,
    typed: Vec<u8>,
}

impl From<File> for Keyboard {
    fn from(file: File) -> Self {
        Self { file, typed: Vec::new() }
    }
}

impl Keyboard {
    /// A whole line that is not empty; an accidental Enter is no answer.
    fn line(&mut self) -> Option<String> {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = self.file.read(&mut bytes) {
            self.typed.extend(&bytes[..count]);
        }
        while let Some(end) = self.typed.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let line: Vec<u8> = self.typed.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if !line.is_empty() {
                return Some(line);
            }
        }
        let overlong = self.typed.len() > ANSWER_BYTES_MAX;
        overlong.then(|| String::from_utf8_lossy(&std::mem::take(&mut self.typed)[..ANSWER_BYTES_MAX]).into_owned())
    }
}

/// The first line that is typed anywhere; none when the machine is asked to stop.
fn answer(keyboards: &mut [Keyboard], stopped: &dyn Fn() -> bool) -> Option<String> {
    while !stopped() {
        if let Some(line) = keyboards.iter_mut().find_map(Keyboard::line) {
            return Some(line);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write as _;

    use super::*;

    fn line() -> (File, Keyboard) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        (writer.into(), Keyboard::from(File::from(reader)))
    }

    #[test]
    fn the_first_whole_line_of_any_console_is_the_answer() {
        for (typed, expected) in [
            ("yes\n", Some("yes")),
            ("\r\n\n  yes \r\n", Some("yes")),
            ("no\nyes\n", Some("no")),
            ("YES\n", Some("YES")),
            ("yes", None),
            ("", None),
        ] {
            let (_silent, other) = line();
            let (mut writer, keyboard) = line();
            writer.write_all(typed.as_bytes()).unwrap();
            let looks = Cell::new(0);
            let stopped = || looks.replace(looks.get() + 1) > 0;
            assert_eq!(answer(&mut [other, keyboard], &stopped).as_deref(), expected, "{typed:?}");
        }
    }

    #[test]
    fn noise_without_an_end_is_an_answer_too() {
        let (mut writer, mut keyboard) = line();
        writer.write_all(&[b'x'; 2 * ANSWER_BYTES_MAX]).unwrap();
        assert_eq!(keyboard.line(), Some("x".repeat(ANSWER_BYTES_MAX)));
    }

    #[test]
    fn who_is_asked() {
        for (written, origin, asked) in [
            (Confirm::Auto, Origin::Foreign, false),
            (Confirm::Auto, Origin::Initramfs, false),
            (Confirm::Auto, Origin::Medium, true),
            (Confirm::Console, Origin::Foreign, true),
            (Confirm::Console, Origin::Medium, true),
        ] {
            assert_eq!(reason(written, origin).is_some(), asked, "{written:?} {origin:?}");
        }
    }
}
