//! Programs: tools of this machine, and programs of the target in namespaces of their own.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use camino::Utf8Path;

use super::{Linux, device};
use crate::plan::cmd::Stdin;
use crate::plan::{Arg, Cmd, Program};
use crate::spec::Secrets;
use crate::system::chroot::InTarget;
use crate::system::{Bindings, Context, EffectError};

/// How many of a program's last lines an error shows.
const TAIL_LINES: usize = 20;

impl Linux<'_> {
    pub(super) fn exec(&mut self, cmd: &Cmd, bindings: &Bindings) -> Result<(), EffectError> {
        let mut held = Vec::new();
        let mut argv = Vec::new();
        for arg in &cmd.args {
            argv.push(match arg {
                Arg::Text(text) => text.clone(),
                Arg::Node(node) => {
                    let (path, attached) = device(super::bound(bindings, node)?)?;
                    held.extend(attached);
                    path.into_string()
                }
            });
        }
        let stdin = stdin(cmd, &self.secrets)?;
        match &cmd.program {
            Program::Target { root, name } => self.in_target(root, name, argv, cmd, &stdin),
            Program::Tool(tool) => {
                let path = self.toolbox.find(*tool).ok_or_else(|| {
                    let source = tool.source();
                    EffectError::new(format!("the program {} is missing", source.name))
                        .with_hint(format!("Debian has it in the package {}", source.package))
                })?;
                self.on_host(&path, &argv, cmd, &stdin)
            }
            Program::Host(name) => {
                let path = self
                    .toolbox
                    .find_program(name)
                    .ok_or_else(|| EffectError::new(format!("the program {name} is missing")))?;
                self.on_host(&path, &argv, cmd, &stdin)
            }
        }
    }

    fn in_target(
        &mut self,
        root: &Utf8Path,
        name: &str,
        args: Vec<String>,
        cmd: &Cmd,
        stdin: &[u8],
    ) -> Result<(), EffectError> {
        let argv: Vec<String> = std::iter::once(name.to_owned()).chain(args).collect();
        let mut target = InTarget::new(root);
        target.env = cmd.env.clone();
        target.stdin = Some(stdin);
        // A machine without any name server has nothing to show.
        target.resolv_conf = Utf8Path::new("/etc/resolv.conf").exists();
        target.block_daemons = true;
        target.run(&argv, &mut self.on_line).map_err(|error| {
            let tail = error.tail.join("\n        ");
            let hint = if tail.is_empty() { String::new() } else { format!("its last lines:\n        {tail}") };
            let failed = EffectError::caused(format!("{cmd} failed in the target"), error);
            if hint.is_empty() { failed } else { failed.with_hint(hint) }
        })
    }

    fn on_host(&mut self, path: &Utf8Path, args: &[String], cmd: &Cmd, stdin: &[u8]) -> Result<(), EffectError> {
        let what = || format!("cannot run {}", cmd.name());
        let (reader, writer) = std::io::pipe().context(what())?;
        // Busybox chooses by the name it is called.
        let mut command = Command::new(path);
        std::os::unix::process::CommandExt::arg0(&mut command, cmd.name());
        let mut child = command
            .args(args)
            .envs(cmd.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().context(what())?)
            .stderr(writer)
            .spawn()
            .context(what())?;
        // The builder's copies of the writing ends must be gone for the end of the output to be seen.
        drop(command);
        if let Some(mut input) = child.stdin.take() {
            // A program that does not read its input closes it, which is its right.
            let _ = input.write_all(stdin);
        }
        let mut tail = VecDeque::with_capacity(TAIL_LINES);
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            (self.on_line)(&line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        let status = child.wait().context(what())?;
        if status.success() {
            return Ok(());
        }
        let lines = Vec::from(tail).join("\n        ");
        let error = EffectError::new(format!("{} ended with {status}; ran: {cmd}", cmd.name()));
        Err(if lines.is_empty() { error } else { error.with_hint(format!("its last lines:\n        {lines}")) })
    }
}

fn stdin(cmd: &Cmd, secrets: &Secrets) -> Result<Vec<u8>, EffectError> {
    match &cmd.stdin {
        None => Ok(Vec::new()),
        Some(Stdin::Text(text)) => Ok(text.clone().into_bytes()),
        Some(Stdin::Secret { prefix, secret }) => {
            let value =
                secrets.get(secret).ok_or_else(|| EffectError::new(format!("the secret `{}` is unknown", secret.0)))?;
            Ok(format!("{prefix}{}\n", value.expose()).into_bytes())
        }
    }
}
