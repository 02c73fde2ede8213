//! The guest's kernel: `vmlinux` out of a distribution's `vmlinuz`.
//!
//! QEMU enters an uncompressed kernel directly, which saves the guest its own decompression: under emulation that is
//! a third of a second.

use std::cmp::Ordering;

use super::{
    elf,
    problem::{Problem, unusable},
    root::Root,
    unpack::unpack,
};

/// Distributions' are 6 to 15 MiB.
const MAX_PACKED: u64 = 256 << 20;
const MAX_KERNEL: usize = 512 << 20;

/// The boot protocol's header (Documentation/arch/x86/boot.rst): where its fields are.
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first version with a payload.
const MIN_VERSION: u16 = 0x0208;
const SECTOR: usize = 512;

/// The newest kernel whose modules are there too: its version and its bytes.
pub(super) fn find(root: &Root) -> Result<(String, Vec<u8>), Problem> {
    let names = root.list("boot")?.into_iter().map(|(name, _)| name);
    let versions = names.filter_map(|n| n.strip_prefix("vmlinuz-").map(str::to_owned));
    let with_modules = versions.filter(|v| super::modules::dir(root, v).is_ok_and(|d| d.is_some()));
    let Some(version) = with_modules.max_by(|a, b| by_number(a, b)) else {
        return Err(Problem::Missing {
            what: "the guest's kernel".to_owned(),
            place: format!("there is no {} with its lib/modules", root.shown("boot/vmlinuz-VERSION")),
            fix: "unpack the package linux-image-VERSION-cloud-amd64 there".to_owned(),
        });
    };
    let path = format!("boot/vmlinuz-{version}");
    let packed = root.read(&path, MAX_PACKED)?.unwrap_or_default();
    let kernel = vmlinux(&packed).map_err(unusable(root.shown(&path)))?;
    Ok((version, kernel))
}

/// 6.1.0-9 comes before 6.1.0-10.
fn by_number(a: &str, b: &str) -> Ordering {
    let numbers =
        |v: &str| v.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0)).collect::<Vec<u64>>();
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

fn vmlinux(packed: &[u8]) -> Result<Vec<u8>, String> {
    let kernel = if packed.starts_with(b"\x7fELF") { packed.to_vec() } else { unpacked(payload(packed)?)? };
    match elf::has_pvh_entry(&kernel) {
        Ok(true) => Ok(kernel),
        Ok(false) => Err("the kernel has no PVH entry point (CONFIG_PVH)".to_owned()),
        Err(e) => Err(format!("the kernel in it is not usable: {e}")),
    }
}

fn unpacked(payload: &[u8]) -> Result<Vec<u8>, String> {
    unpack(payload, MAX_KERNEL).map_err(|e| e.to_string())
}

/// The compressed kernel within a bzImage.
fn payload(image: &[u8]) -> Result<&[u8], String> {
    let damaged = || "it is neither a bzImage nor an ELF file".to_owned();
    if image.get(MAGIC..).is_none_or(|m| !m.starts_with(b"HdrS")) || image.len() < PAYLOAD_LENGTH + 4 {
        return Err(damaged());
    }
    let word = |at: usize| u32::from_le_bytes([image[at], image[at + 1], image[at + 2], image[at + 3]]) as usize;
    let version = u16::from_le_bytes([image[VERSION], image[VERSION + 1]]);
    if version < MIN_VERSION {
        return Err(format!("its boot protocol {version:#06x} is older than {MIN_VERSION:#06x}"));
    }
    // Zero stands for four, from before the field was.
    let sectors = if image[SETUP_SECTS] == 0 { 4 } else { usize::from(image[SETUP_SECTS]) };
    let from = (sectors + 1) * SECTOR + word(PAYLOAD_OFFSET);
    image.get(from..from + word(PAYLOAD_LENGTH)).ok_or_else(|| "it is cut off".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage around a payload, of which nothing else is looked at.
    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR + 8];
        image[SETUP_SECTS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&8_u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_what_the_header_says_and_a_cut_image_is_refused() {
        let image = bz_image(b"payload");
        assert_eq!(payload(&image).unwrap(), b"payload");
        for length in 0..image.len() {
            assert!(payload(&image[..length]).is_err());
        }
    }

    #[test]
    fn a_kernel_without_the_direct_entry_is_refused() {
        let mut elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(vmlinux(&elf).unwrap_err().contains("PVH"));
        elf.truncate(100);
        assert!(vmlinux(&bz_image(&elf)).is_err());
        assert!(vmlinux(&bz_image(b"nothing")).unwrap_err().contains("not usable"));
    }

    #[test]
    fn fuzz_kernels_and_programs() {
        /// The beginning of this test program, whose tables point beyond it, and a whole small kernel.
        fn small_elf() -> Vec<u8> {
            let note: Vec<u8> =
                [&4u32.to_le_bytes()[..], &8u32.to_le_bytes(), &18u32.to_le_bytes(), b"Xen\0", &[0; 8]].concat();
            let mut elf = vec![0; 64];
            elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
            elf[16] = 2; // a program
            elf[18] = 62; // x86-64
            elf[20] = 1;
            elf[32] = 64; // program headers
            elf[52] = 64;
            elf[54] = 56;
            elf[56] = 1;
            let words: [u64; 6] = [120, 0, 0, note.len() as u64, note.len() as u64, 4];
            elf.extend_from_slice(&[4u32.to_le_bytes(), 4u32.to_le_bytes()].concat());
            words.iter().for_each(|word| elf.extend_from_slice(&word.to_le_bytes()));
            [elf, note].concat()
        }
        ate_fuzz::Target::named("microvm.kernel")
            .sample("elf", small_elf)
            .sample("zstd", || bz_image(&zstd::encode_all(&small_elf()[..], 1).unwrap()))
            .memory(96 << 20)
            .run(|bytes| {
                let _ = (
                    elf::linked(bytes),
                    elf::modinfo(bytes),
                    unpacked(bytes).map(|plain| elf::modinfo(&plain).is_ok()),
                );
                vmlinux(bytes).map(drop)
            });
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(by_number("6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64"), Ordering::Less);
        assert_eq!(by_number("6.12.1", "6.1.99"), Ordering::Greater);
    }
}
