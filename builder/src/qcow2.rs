//! qcow2 images (QEMU `docs/interop/qcow2.txt`, version 3), written natively: data clusters that are not zero, the
//! tables, nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use camino::Utf8Path;

const CLUSTER: u64 = 1 << 16;
const ENTRIES: u64 = CLUSTER / 8;
const REFCOUNTS_PER_BLOCK: u64 = CLUSTER / 2;
const COPIED: u64 = 1 << 63;

/// Converts a raw image; clusters of zeros take no room.
pub fn convert(raw: &Utf8Path, output: &Utf8Path) -> io::Result<()> {
    let source = File::open(raw)?;
    let size = source.metadata()?.len();
    let target = File::create_new(output)?;
    let clusters = size.div_ceil(CLUSTER);
    let l1_entries = clusters.div_ceil(ENTRIES);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER).max(1);
    let mut next = 1 + l1_clusters;
    let mut l1 = vec![0u64; l1_entries as usize];
    let mut buffer = vec![0; CLUSTER as usize];
    for (table, entry) in l1.iter_mut().enumerate() {
        let mut l2 = vec![0u64; ENTRIES as usize];
        let first = table as u64 * ENTRIES;
        for index in 0..ENTRIES.min(clusters - first) {
            let offset = (first + index) * CLUSTER;
            if is_hole(&source, offset)? {
                continue;
            }
            let length = read_full(&source, &mut buffer, offset)?;
            buffer[length..].fill(0);
            if buffer.iter().all(|byte| *byte == 0) {
                continue;
            }
            target.write_all_at(&buffer, next * CLUSTER)?;
            l2[index as usize] = (next * CLUSTER) | COPIED;
            next += 1;
        }
        if l2.iter().any(|entry| *entry != 0) {
            target.write_all_at(&big_endian(&l2), next * CLUSTER)?;
            *entry = (next * CLUSTER) | COPIED;
            next += 1;
        }
    }
    target.write_all_at(&big_endian(&l1), CLUSTER)?;
    let (table, table_clusters) = write_refcounts(&target, next)?;
    target.write_all_at(&header(size, l1_entries as u32, table, table_clusters), 0)?;
    Ok(())
}

/// Each cluster in use is used once.
fn write_refcounts(target: &File, used: u64) -> io::Result<(u64, u64)> {
    // The blocks and their table count themselves: grow until they fit.
    let (mut blocks, mut table_clusters) = (1, 1);
    loop {
        let total = used + blocks + table_clusters;
        let (need_blocks, need_table) = (total.div_ceil(REFCOUNTS_PER_BLOCK), (blocks * 8).div_ceil(CLUSTER));
        if need_blocks <= blocks && need_table <= table_clusters {
            break;
        }
        (blocks, table_clusters) = (need_blocks.max(blocks), need_table.max(table_clusters));
    }
    let total = used + blocks + table_clusters;
    let mut table = Vec::new();
    for block in 0..blocks {
        let mut counts = vec![0u8; CLUSTER as usize];
        for (index, count) in counts.chunks_exact_mut(2).enumerate() {
            if block * REFCOUNTS_PER_BLOCK + (index as u64) < total {
                count.copy_from_slice(&1u16.to_be_bytes());
            }
        }
        target.write_all_at(&counts, (used + block) * CLUSTER)?;
        table.push((used + block) * CLUSTER);
    }
    let at = (used + blocks) * CLUSTER;
    let mut bytes = big_endian(&table);
    bytes.resize((table_clusters * CLUSTER) as usize, 0);
    target.write_all_at(&bytes, at)?;
    Ok((at, table_clusters))
}

fn header(size: u64, l1_entries: u32, refcount_table: u64, refcount_clusters: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(112);
    header.extend(b"QFI\xfb");
    header.extend(3u32.to_be_bytes());
    header.extend([0; 12]); // no backing file
    header.extend(16u32.to_be_bytes()); // cluster bits
    header.extend(size.to_be_bytes());
    header.extend(0u32.to_be_bytes()); // not encrypted
    header.extend(l1_entries.to_be_bytes());
    header.extend(CLUSTER.to_be_bytes()); // where the L1 table is
    header.extend(refcount_table.to_be_bytes());
    header.extend((refcount_clusters as u32).to_be_bytes());
    header.extend([0; 12]); // no snapshots
    header.extend([0; 24]); // no feature bits
    header.extend(4u32.to_be_bytes()); // 16-bit reference counts
    header.extend(104u32.to_be_bytes());
    header.extend([0; 8]); // end of the header extensions
    header
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

/// Sparse files tell where they hold nothing.
fn is_hole(file: &File, offset: u64) -> io::Result<bool> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => Ok(data >= offset + CLUSTER),
        Err(rustix::io::Errno::NXIO) => Ok(true),
        Err(rustix::io::Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}
