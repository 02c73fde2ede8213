//! Checksums of tar headers: without, nearly every change of an archive would be refused for the same reason.

const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const SIZE: std::ops::Range<usize> = 124..136;

/// The archive with the checksum in each header as it should be.
pub fn with_checksums(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK) {
        if header.iter().any(|b| *b != 0) {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        // Where the next header is if the size is believed.
        let digits = header[SIZE].iter().skip_while(|b| **b == b' ').take_while(|b| (b'0'..=b'7').contains(b));
        let size = digits.fold(0usize, |n, b| n * 8 + usize::from(b - b'0'));
        at = at.saturating_add(BLOCK).saturating_add(size.next_multiple_of(BLOCK));
    }
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_behind_a_file_gets_its_checksum_and_the_file_stays_as_it_is() {
        let mut archive = vec![0; 4 * BLOCK];
        archive[0] = b'a';
        archive[SIZE].copy_from_slice(b"00000000003\0");
        archive[BLOCK..BLOCK + 3].copy_from_slice(b"abc");
        archive[2 * BLOCK] = b'b';
        let mended = with_checksums(&archive);
        // The checksum counts itself as eight spaces.
        let sum = u32::from(b'b') + 8 * 32;
        assert_eq!(mended[2 * BLOCK..][CHECKSUM], *format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(mended[BLOCK..2 * BLOCK], archive[BLOCK..2 * BLOCK]);
        assert_eq!(mended[3 * BLOCK..], archive[3 * BLOCK..]);
    }
}
