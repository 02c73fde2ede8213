//! The few things about ELF files that matter here.

use object::{
    Endianness,
    elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64},
    read::{
        Result, StringTable,
        elf::{Dyn as _, FileHeader, ProgramHeader as _, SectionHeader as _, SectionTable},
    },
};

type Header = FileHeader64<Endianness>;

/// Where the kernel is entered without real mode; the name and type are Xen's.
const PVH_OWNER: &[u8] = b"Xen";
const PVH_ENTRY: u32 = 18;

/// What a program or library is linked against.
#[derive(Debug, Default)]
pub(super) struct Linked {
    /// The program that loads it; none for a static one, and for libraries.
    pub(super) interpreter: Option<String>,
    pub(super) needed: Vec<String>,
    /// Directories it names itself.
    pub(super) search: Vec<String>,
}

pub(super) fn linked(bytes: &[u8]) -> Result<Linked> {
    let (header, endian) = parse(bytes)?;
    let mut linked = Linked::default();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(interpreter) = segment.interpreter(endian, bytes)? {
            linked.interpreter = Some(text(interpreter));
        }
        let Some(entries) = segment.dynamic(endian, bytes)? else { continue };
        let strings = dynamic_strings(header, endian, bytes, entries)?;
        for entry in entries {
            let word = || entry.string(endian, strings).map(text);
            match entry.tag(endian) {
                DT_NEEDED => linked.needed.push(word()?),
                DT_RPATH | DT_RUNPATH => linked.search.extend(word()?.split(':').map(str::to_owned)),
                _ => {}
            }
        }
    }
    Ok(linked)
}

/// The strings that the dynamic section points into, by the addresses they will have in memory.
fn dynamic_strings<'a>(
    header: &Header,
    endian: Endianness,
    bytes: &'a [u8],
    entries: &[<Header as FileHeader>::Dyn],
) -> Result<StringTable<'a>> {
    let value = |tag| entries.iter().find(|e| e.tag(endian) == tag).map_or(0, |e| e.val(endian));
    let (address, size) = (value(object::elf::DT_STRTAB), value(object::elf::DT_STRSZ));
    for segment in header.program_headers(endian, bytes)? {
        if let Ok(Some(strings)) = segment.data_range(endian, bytes, address, size) {
            return Ok(StringTable::new(strings, 0, strings.len() as u64));
        }
    }
    Ok(StringTable::default())
}

/// Whether it is a kernel that can be entered directly.
pub(super) fn has_pvh_entry(bytes: &[u8]) -> Result<bool> {
    let (header, endian) = parse(bytes)?;
    for segment in header.program_headers(endian, bytes)? {
        let Some(mut notes) = segment.notes(endian, bytes)? else { continue };
        while let Some(note) = notes.next()? {
            if note.name() == PVH_OWNER && note.n_type(endian).0 == PVH_ENTRY {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What a kernel module says of itself: `depends=virtio,virtio_ring`, as key and value.
pub(super) fn modinfo(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let (header, endian) = parse(bytes)?;
    let sections: SectionTable<'_, Header> = header.sections(endian, bytes)?;
    let Some((_, section)) = sections.section_by_name(endian, b".modinfo") else { return Ok(Vec::new()) };
    let words = section.data(endian, bytes)?.split(|b| *b == 0).map(text);
    Ok(words.filter_map(|w| w.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect())
}

fn parse(bytes: &[u8]) -> Result<(&Header, Endianness)> {
    let header = Header::parse(bytes)?;
    Ok((header, header.endian()?))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
