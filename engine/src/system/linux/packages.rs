//! Packages of the target: unpacked by ours, configured by the target's own package manager.

use std::cell::RefCell;

use camino::Utf8Path;

use super::{Linux, OnProgress};
use crate::debian::PackageSet;
use crate::event::{Progress, Unit};
use crate::system::bootstrap::{BootstrapOptions, first_files};
use crate::system::chroot::InTarget;
use crate::system::configure::{ConfigureOptions, configure};
use crate::system::unpack::{UnpackOptions, unpack};
use crate::system::{Context, EffectError};

impl Linux<'_> {
    pub(super) fn unpack(
        &mut self,
        root: &Utf8Path,
        packages: &PackageSet,
        progress: &mut OnProgress<'_>,
    ) -> Result<(), EffectError> {
        let options = UnpackOptions::default();
        let unpacked = unpack(packages, self.fetcher, root, &options, &mut |done| progress(done, None));
        let (unpacked, stats) = unpacked.map_err(|error| {
            let hint = error.hint();
            let failed = EffectError::caused("cannot unpack the packages", error);
            if let Some(hint) = hint { failed.with_hint(hint) } else { failed }
        })?;
        (self.on_line)(&format!(
            "unpacked {} packages, {} files, {} in {:.1} s",
            stats.packages,
            stats.files,
            stats.downloaded,
            stats.elapsed.as_secs_f64()
        ));
        // The plan itself writes apt's sources.
        first_files(packages, root, &BootstrapOptions::default()).context("cannot write the target's first files")?;
        self.unpacked = unpacked;
        Ok(())
    }

    pub(super) fn configure(
        &mut self,
        root: &Utf8Path,
        packages: &PackageSet,
        debconf: &[String],
        progress: &mut OnProgress<'_>,
    ) -> Result<(), EffectError> {
        if !debconf.is_empty() {
            let answers = debconf.join("\n") + "\n";
            let target = InTarget { stdin: Some(answers.as_bytes()), ..InTarget::new(root) };
            target
                .run(&["debconf-set-selections"], &mut self.on_line)
                .context("cannot store the answers to the packages' questions")?;
        }
        // Kernel packages would each make an initramfs; the plan makes it once, when everything is there.
        let options = ConfigureOptions { env: vec![("INITRD".to_owned(), "No".to_owned())] };
        let total = packages.packages.len() as u64;
        let set_up = RefCell::new(0);
        let on_line = &mut self.on_line;
        configure(root, &self.unpacked, &options, &mut |line| {
            on_line(line);
            if let Some(name) = line.strip_prefix("Setting up ") {
                *set_up.borrow_mut() += 1;
                let done = Progress { done: *set_up.borrow(), total: Some(total), unit: Unit::Packages };
                progress(done, Some(&format!("configure {}", name.trim_end_matches(" ..."))));
            }
        })
        .map_err(|error| {
            let tail = std::error::Error::source(&error)
                .and_then(|source| source.downcast_ref::<crate::system::chroot::CommandError>())
                .map(|command| command.tail.join("\n        "))
                .unwrap_or_default();
            let failed = EffectError::caused("cannot configure the packages", error);
            if tail.is_empty() { failed } else { failed.with_hint(format!("the last lines:\n        {tail}")) }
        })?;
        Ok(())
    }
}
