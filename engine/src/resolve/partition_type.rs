//! What a partition is for: names, dib's short codes, MBR bytes and GUIDs.
//!
//! Names and GUIDs are those of the Discoverable Partitions Specification (UAPI group); codes are sgdisk's.

use uuid::{Uuid, uuid};

use crate::block::table::{BIOS_BOOT, ESP, LINUX_DATA, LINUX_SWAP};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionType {
    pub guid: Uuid,
    /// The type byte in an MBR.
    pub byte: u8,
}

pub const LINUX: PartitionType = PartitionType { guid: LINUX_DATA, byte: 0x83 };
pub const SWAP: PartitionType = PartitionType { guid: LINUX_SWAP, byte: 0x82 };
pub const EFI_SYSTEM: PartitionType = PartitionType { guid: ESP, byte: 0xef };

/// Name, sgdisk's code, GUID, MBR byte.
#[rustfmt::skip]
const TYPES: &[(&str, &str, Uuid, u8)] = &[
    ("linux",           "8300", LINUX_DATA, 0x83),
    ("esp",             "EF00", ESP, 0xef),
    ("bios-boot",       "EF02", BIOS_BOOT, 0x83),
    ("swap",            "8200", LINUX_SWAP, 0x82),
    ("home",            "8302", uuid!("933ac7e1-2eb4-4f13-b844-0e14e2aef915"), 0x83),
    ("srv",             "8306", uuid!("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"), 0x83),
    ("var",             "8310", uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d"), 0x83),
    ("tmp",             "8311", uuid!("7ec6f557-3bc5-4aca-b293-16ef5df639d1"), 0x83),
    ("xbootldr",        "EA00", uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172"), 0xea),
    ("linux-raid",      "FD00", uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e"), 0xfd),
    ("lvm",             "8E00", uuid!("e6d6d379-f507-44c2-a23c-238f2a3df928"), 0x8e),
    ("luks",            "8309", uuid!("ca7d7ccb-63ed-4c53-861c-1742536059cc"), 0xe8),
    ("prep",            "4100", uuid!("9e1a2d38-c612-4316-aa26-8b49521e5a8b"), 0x41),
    ("microsoft-basic", "0700", uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"), 0x07),
];

/// The root partition of an architecture in Debian's words.
#[rustfmt::skip]
const ROOTS: &[(&str, Uuid)] = &[
    ("amd64",   uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")),
    ("i386",    uuid!("44479540-f297-41b2-9af7-d131d5f0458a")),
    ("arm64",   uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae")),
    ("armhf",   uuid!("69dad710-2ce4-4e3c-b16c-21a1d49abed3")),
    ("riscv64", uuid!("72ec70a6-cf74-40e6-bd49-4bda08e8f224")),
    ("ppc64el", uuid!("c31c45e6-3f39-412e-80fb-4809c4980599")),
    ("s390x",   uuid!("5eead9a9-fe09-4a1e-a1d7-520d00531306")),
    ("loong64", uuid!("77055800-792c-4f94-b39a-98c91b762bb6")),
];

/// A name, a code, a byte (`0x0c`) or a GUID; `Err` holds the hint.
pub fn parse(text: &str, architecture: &str) -> Result<PartitionType, String> {
    let lower = text.to_lowercase().replace('_', "-");
    if lower == "root" {
        let guid = ROOTS.iter().find(|(name, _)| *name == architecture).map_or(LINUX_DATA, |(_, guid)| *guid);
        return Ok(PartitionType { guid, byte: 0x83 });
    }
    if let Ok(guid) = Uuid::parse_str(text) {
        let byte = TYPES.iter().find(|known| known.2 == guid).map_or(0x83, |known| known.3);
        return Ok(PartitionType { guid, byte });
    }
    if let Some(known) = TYPES.iter().find(|known| known.0 == lower || known.1.eq_ignore_ascii_case(text)) {
        return Ok(PartitionType { guid: known.2, byte: known.3 });
    }
    let hexadecimal = lower.strip_prefix("0x").unwrap_or(&lower);
    if let (1..=2, Ok(byte)) = (hexadecimal.len(), u8::from_str_radix(hexadecimal, 16))
        && byte != 0
    {
        let guid = TYPES.iter().find(|known| known.3 == byte).map_or(LINUX_DATA, |known| known.2);
        return Ok(PartitionType { guid, byte });
    }
    let names: Vec<&str> = TYPES.iter().map(|known| known.0).collect();
    Err(format!("write root, {}, a code such as EF00, \"0x83\", or a GUID", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_codes_bytes_and_guids_are_one() {
        for text in ["esp", "ESP", "EF00", "ef00", "0xef", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"] {
            assert_eq!(parse(text, "amd64"), Ok(EFI_SYSTEM), "{text}");
        }
        assert_eq!(parse("8300", "amd64"), Ok(LINUX));
        assert_eq!(parse("83", "amd64"), Ok(LINUX));
        assert_eq!(parse("bios_boot", "amd64").unwrap().guid, BIOS_BOOT);
        assert_eq!(parse("0x0c", "arm64").unwrap().byte, 0x0c);
        assert_ne!(parse("root", "amd64"), parse("root", "arm64"));
        assert!(parse("roto", "amd64").unwrap_err().contains("esp"));
        assert!(parse("0x00", "amd64").is_err());
    }
}
