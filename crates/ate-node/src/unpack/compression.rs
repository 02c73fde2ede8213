//! Undoes the compression of a stream, recognised by its first bytes: media types are only claims.

use std::io::{self, BufRead, BufReader, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Window a zstd frame may ask for: 2^27 = 128 MiB, what the `zstd` tool accepts by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Reads from disk in pieces large enough that system calls do not show.
const BUFFER: usize = 256 * 1024;

/// The plain bytes of a gzip, zstd or uncompressed stream.
pub(crate) fn decompressed<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let start = reader.fill_buf()?;
    if start.starts_with(&GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if start.starts_with(&ZSTD) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(reader))
}
