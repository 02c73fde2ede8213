//! Decompresses what kernels and their modules are packed with.

use std::io::{self, Read};

/// An lz4 block of the legacy format holds at most this; so it is in the kernel and in `lz4 -l`.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Of the dictionary, in KiB: that of `xz -9` is 64 MiB, and distributions use less.
const MAX_XZ_MEMORY_KIB: u32 = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("damaged: {0}")]
    Damaged(#[from] io::Error),
    #[error("unpacked it is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
}

/// By what it begins with; what is of no known form is taken as it is. Bytes behind the end are ignored.
pub(super) fn unpack(bytes: &[u8], cap: usize) -> Result<Vec<u8>, Failure> {
    match bytes {
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4_legacy(bytes, cap),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => read(zstd::Decoder::with_buffer(bytes)?.single_frame(), cap),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            read(lzma_rust2::XzReader::new_mem_limit(bytes, false, MAX_XZ_MEMORY_KIB), cap)
        }
        [0x1f, 0x8b, ..] => read(flate2::read::GzDecoder::new(bytes), cap),
        _ if bytes.len() > cap => Err(Failure::TooLarge(cap)),
        _ => Ok(bytes.to_vec()),
    }
}

fn read(from: impl Read, cap: usize) -> Result<Vec<u8>, Failure> {
    let mut unpacked = Vec::new();
    from.take(cap as u64 + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() > cap { Err(Failure::TooLarge(cap)) } else { Ok(unpacked) }
}

/// Blocks, each behind its length; the end is where none fits any more.
fn lz4_legacy(bytes: &[u8], cap: usize) -> Result<Vec<u8>, Failure> {
    let mut unpacked = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    let mut rest = &bytes[LZ4_LEGACY.len()..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        if *length == LZ4_LEGACY {
            rest = after; // two streams, one behind the other
            continue;
        }
        let Some((packed, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        let size = lz4_flex::block::decompress_into(packed, &mut block).map_err(io::Error::other)?;
        if unpacked.len() + size > cap {
            return Err(Failure::TooLarge(cap));
        }
        unpacked.extend_from_slice(&block[..size]);
        rest = after;
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: usize = 1 << 20;
    /// `xz --x86 --lzma2 --check=crc32` of "hello, xz": the filter is what kernels are packed with.
    #[rustfmt::skip]
    const XZ: [u8; 64] = [
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x01, 0x04, 0x00,
        0x21, 0x01, 0x16, 0x00, 0x0d, 0x86, 0x35, 0x1f, 0x01, 0x00, 0x08, 0x68, 0x65, 0x6c, 0x6c, 0x6f,
        0x2c, 0x20, 0x78, 0x7a, 0x00, 0x00, 0x00, 0x00, 0x5b, 0xad, 0x64, 0x34, 0x00, 0x01, 0x1d, 0x09,
        0x93, 0x61, 0x36, 0xa6, 0x90, 0x42, 0x99, 0x0d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
    ];

    fn text() -> Vec<u8> {
        b"the same words again and again, ".repeat(100)
    }

    fn packed() -> Vec<Vec<u8>> {
        let text = text();
        let mut lz4 = LZ4_LEGACY.to_vec();
        for block in text.chunks(1000) {
            // Literals only: a token of 15 and more, the rest of the length in steps of 255, the bytes.
            let mut packed = vec![0xf0];
            let mut more = block.len() - 15;
            while more >= 255 {
                packed.push(255);
                more -= 255;
            }
            packed.push(more as u8);
            packed.extend_from_slice(block);
            lz4.extend_from_slice(&(packed.len() as u32).to_le_bytes());
            lz4.extend_from_slice(&packed);
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &text).unwrap();
        vec![lz4, zstd::encode_all(&*text, 1).unwrap(), gzip.finish().unwrap()]
    }

    #[test]
    fn each_form_is_known_by_its_beginning_and_may_be_followed_by_something() {
        for mut packed in packed() {
            assert_eq!(unpack(&packed, CAP).unwrap(), text());
            packed.extend_from_slice(&(text().len() as u32).to_le_bytes());
            assert_eq!(unpack(&packed, CAP).unwrap(), text());
        }
        assert_eq!(unpack(&[&XZ[..], b"size"].concat(), CAP).unwrap(), b"hello, xz");
        assert_eq!(unpack(b"plain", CAP).unwrap(), b"plain");
    }

    #[test]
    fn what_becomes_too_large_is_refused() {
        for packed in packed().into_iter().chain([text()]) {
            let cap = text().len() - 1;
            assert!(matches!(unpack(&packed, cap), Err(Failure::TooLarge(_))), "{:x?}", &packed[..4]);
            assert_eq!(unpack(&packed, cap + 1).unwrap(), text());
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic() {
        for packed in packed().into_iter().chain([XZ.to_vec()]) {
            for at in 4..packed.len().min(300) {
                let mut damaged = packed.clone();
                damaged[at] ^= 0xff;
                let _ = unpack(&damaged, CAP);
                let _ = unpack(&packed[..at], CAP);
            }
        }
    }
}
