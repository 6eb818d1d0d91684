//! The small texts that boot media carry. In: names and the kernel command line. Out: text.

use std::fmt::Write as _;

/// The iPXE script: kernel and initramfs lie beside it, whatever it was fetched from. The card that iPXE booted from
/// is named to the kernel as PXELINUX does, so that the init knows which link reached the server.
pub fn ipxe(kernel: &str, initramfs: &str, cmdline: &str) -> String {
    format!(
        "#!ipxe\n\
         echo castiron\n\
         kernel {kernel} initrd={initramfs} BOOTIF=01-${{netX/mac:hexhyp}} {cmdline} || goto failed\n\
         initrd --name {initramfs} {initramfs} || goto failed\n\
         boot || goto failed\n\
         :failed\n\
         echo castiron: the files beside this script could not be booted\n\
         sleep 10\n\
         exit 1\n"
    )
}

/// GRUB's menu on the boot medium. `kernel` and `initramfs` are paths on it.
pub fn grub_menu(title: &str, kernel: &str, initramfs: &str, cmdline: &str) -> String {
    format!(
        "# A machine without a serial port has no device for the first line, and keeps its screen.\n\
         if serial --unit=0 --speed=115200; then\n\
         \x20 terminal_input serial console\n\
         \x20 terminal_output serial console\n\
         fi\n\
         set timeout=3\n\
         set default=0\n\
         menuentry \"{title}\" {{\n\
         \x20 echo \"Loading the kernel ...\"\n\
         \x20 linux {kernel} {cmdline}\n\
         \x20 echo \"Loading the initramfs ...\"\n\
         \x20 initrd {initramfs}\n\
         }}\n\
         menuentry \"{title}, with a shell before anything is done\" {{\n\
         \x20 linux {kernel} {cmdline} castiron.break=config\n\
         \x20 initrd {initramfs}\n\
         }}\n"
    )
}

/// What GRUB does before it has a menu: find the medium by a file that only it has.
pub fn grub_early(marker: &str, menu: &str) -> String {
    format!("search --no-floppy --set=root --file {marker}\nset prefix=($root)/boot/grub\nconfigfile ($root){menu}\n")
}

/// The `.osrel` section of a unified kernel image (os-release(5)).
pub fn os_release(version: &str, date: &str, kernel: &str) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("ID", "castiron"),
        ("NAME", "castiron"),
        ("PRETTY_NAME", &format!("castiron {version} appliance (Linux {kernel})")),
        ("VERSION_ID", version),
        ("BUILD_ID", date),
    ] {
        writeln!(text, "{key}=\"{value}\"").unwrap();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_names_its_neighbours_only() {
        let script = ipxe("vmlinuz", "initramfs.img", "console=ttyS0");
        assert!(script.starts_with("#!ipxe\n"));
        assert!(script.contains("\nkernel vmlinuz initrd=initramfs.img BOOTIF=01-${netX/mac:hexhyp} console=ttyS0 ||"));
        assert!(!script.contains("://"), "the script must work from any server");
    }

    #[test]
    fn the_menu_is_indented_and_closed() {
        let menu = grub_menu("castiron", "/vmlinuz", "/initramfs.img", "quiet");
        assert!(menu.contains("\n  linux /vmlinuz quiet\n"));
        assert_eq!(menu.matches('{').count(), menu.matches('}').count());
    }

    #[test]
    fn os_release_is_quoted() {
        assert!(os_release("0.1.0", "2026-01-01", "6.1").contains("VERSION_ID=\"0.1.0\"\nBUILD_ID=\"2026-01-01\"\n"));
    }
}
