//! Too little memory, said clearly: Linux cuts an initramfs that does not fit and goes on with what it has.

use std::fs;

use castiron_engine::units::Bytes;

use crate::console::Console;
use crate::log;

/// A whole installation works in a machine of 512 MiB, of which the kernel keeps a part.
const NEEDED: Bytes = Bytes::mib(400);

pub fn report(console: &Console) {
    let total = parse_total(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    if let Some(total) = total {
        console.line(&format!("{total} of memory"));
        if total < NEEDED {
            console
                .warn(&format!("this is short: an installation needs a machine with 512 MiB ({NEEDED} free to Linux)"));
        }
    }
    if is_truncated(&log::kernel_messages()) {
        console.warn(
            "the appliance did not fit into the memory: parts of it are missing; use a machine with 512 MiB or more",
        );
    }
}

/// `MemTotal:         484024 kB`
fn parse_total(meminfo: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok().map(Bytes::kib)
}

/// The kernel's one line about it (`init/initramfs.c`).
fn is_truncated(kernel_log: &str) -> bool {
    kernel_log.contains("Initramfs unpacking failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        assert_eq!(parse_total("MemTotal:         484024 kB\nMemFree: 1 kB\n"), Some(Bytes::kib(484_024)));
        assert_eq!(parse_total("MemFree: 1 kB\n"), None);
        assert!(is_truncated("<0>[    0.9] Initramfs unpacking failed: write error\n"));
    }
}
