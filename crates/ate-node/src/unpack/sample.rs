//! An archive with an entry of every kind, for tests.

use tar::{Builder, EntryType, Header};

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(size);
    header
}

fn builder() -> Builder<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    tar.append_data(&mut header(EntryType::Directory, 0), "dir/", &b""[..]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 5), "dir/file", &b"hello"[..]).unwrap();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    tar.append_data(&mut header(EntryType::Regular, 4), long, &b"long"[..]).unwrap();
    tar.append_link(&mut header(EntryType::Symlink, 0), "dir/link", "../dir/file").unwrap();
    tar.append_link(&mut header(EntryType::Link, 0), "again", "dir/file").unwrap();
    tar.append_pax_extensions([("SCHILY.xattr.user.colour", &b"green"[..])]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 1), "with-attribute", &b"x"[..]).unwrap();
    tar
}

/// Files, directories and links.
pub(crate) fn tree() -> Vec<u8> {
    builder().into_inner().unwrap()
}

/// And a pipe, a device and two whiteouts.
pub(crate) fn layer() -> Vec<u8> {
    let mut tar = builder();
    tar.append_data(&mut header(EntryType::Fifo, 0), "pipe", &b""[..]).unwrap();
    let mut null = header(EntryType::Char, 0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    tar.append_data(&mut null, "null", &b""[..]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 0), "below/.wh.gone", &b""[..]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 0), "below/.wh..wh..opq", &b""[..]).unwrap();
    tar.into_inner().unwrap()
}
