//! Directories laid out as packages are, made here, and what is collected from them or refused.

use std::os::unix::fs::symlink;

use ate_api::Reason;

use super::*;

const VERSION: &str = "6.1.0-10-cloud-amd64";

/// An ELF file with what is looked at: one segment of this type, and a section with what a module says of itself.
fn elf(segment: u32, contents: &[u8], modinfo: &[u8]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let contents_at = 64 + 56 + 3 * 64_u64;
    let modinfo_at = contents_at + contents.len() as u64;
    let names_at = modinfo_at + modinfo.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let word = |file: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let long = |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    half(&mut file, &[1, 62]);
    word(&mut file, &[1]);
    long(&mut file, &[0, 64, 64 + 56]);
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 64, 3, 2]);
    word(&mut file, &[segment, 4]);
    long(&mut file, &[contents_at, 0, 0, contents.len() as u64, contents.len() as u64, 4]);
    file.extend([0; 64]);
    for (name, kind, at, size) in [(1, 1, modinfo_at, modinfo.len()), (10, 3, names_at, names.len())] {
        word(&mut file, &[name, kind]);
        long(&mut file, &[0, 0, at, size as u64]);
        word(&mut file, &[0, 0]);
        long(&mut file, &[1, 0]);
    }
    file.extend(contents);
    file.extend(modinfo);
    file.extend(names);
    file
}

fn kernel() -> Vec<u8> {
    let note: Vec<u8> =
        [4_u32, 8, 18].iter().flat_map(|v| v.to_le_bytes()).chain(*b"Xen\0\0\0\0\x01\0\0\0\0").collect();
    elf(4, &note, b"")
}

fn module(modinfo: &str) -> Vec<u8> {
    elf(0, b"", modinfo.as_bytes())
}

/// What a distribution would ship, around this test as QEMU: it is linked like any program.
struct Packages {
    dir: tempfile::TempDir,
}

impl Packages {
    fn new() -> Packages {
        let packages = Packages { dir: tempfile::tempdir().unwrap() };
        let me = std::env::current_exe().unwrap();
        packages.put("usr/bin/qemu-system-x86_64", &std::fs::read(me).unwrap());
        for name in ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"] {
            let there = libraries::DIRS.iter().map(|dir| Path::new("/").join(dir).join(name)).find(|p| p.exists());
            let bytes = std::fs::read(there.unwrap_or_else(|| panic!("no {name} on this machine"))).unwrap();
            packages.put(&format!("usr/lib/x86_64-linux-gnu/{name}"), &bytes);
        }
        for name in ["qboot.rom", "pvh.bin"] {
            packages.put(&format!("usr/share/qemu/{name}"), name.as_bytes());
        }
        packages.put(&format!("boot/vmlinuz-{VERSION}"), &kernel());
        packages.modules(&[
            ("drivers/virtio/virtio", ""),
            ("drivers/virtio/virtio_mmio", "depends=virtio\0"),
            ("drivers/block/virtio_blk", "depends=virtio\0"),
            ("drivers/net/virtio_net", "depends=failover,in_kernel,virtio\0"),
            ("net/core/failover", "depends=\0"),
            ("drivers/char/virtio_console", "depends=virtio\0"),
            ("drivers/char/hw_random/virtio-rng", "depends=virtio\0name=virtio_rng\0"),
            ("fs/erofs/erofs", "depends=libcrc32c\0"),
            ("lib/libcrc32c", "softdep=pre: crc32c\0"),
            ("crypto/crc32c_generic", ""),
            ("fs/overlayfs/overlay", ""),
        ]);
        packages.put(&format!("lib/modules/{VERSION}/modules.builtin"), b"kernel/lib/in-kernel.ko\n");
        packages.put("guest", &elf(0, b"", b""));
        packages
    }

    fn modules(&self, modules: &[(&str, &str)]) {
        for (path, modinfo) in modules {
            self.put(&format!("lib/modules/{VERSION}/kernel/{path}.ko"), &module(modinfo));
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        std::fs::write(self.path(path), bytes).unwrap();
    }

    fn collect(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let out = tempfile::tempdir().unwrap();
        let assets = assets(self.dir.path(), &self.path("guest"), out.path())?;
        Ok(assets.into_iter().map(|(name, path)| (name, std::fs::read(path).unwrap())).collect())
    }
}

fn names_in_initrd(initrd: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = initrd;
    while let Some(header) = rest.get(..110) {
        let field =
            |i: usize| usize::from_str_radix(std::str::from_utf8(&header[6 + 8 * i..14 + 8 * i]).unwrap(), 16).unwrap();
        let (size, name) = (field(6), field(11));
        names.push(String::from_utf8(rest[110..110 + name - 1].to_vec()).unwrap());
        rest = &rest[(110 + name).next_multiple_of(4) + size.next_multiple_of(4)..];
    }
    assert!(rest.is_empty());
    names
}

#[test]
fn the_same_packages_make_the_same_bytes_wherever_they_lie() {
    let first = Packages::new().collect().unwrap();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["initrd", "kernel", "vmm"]);
    assert!(first == Packages::new().collect().unwrap());
}

#[test]
fn the_archive_holds_program_loader_libraries_and_firmware() {
    let packages = Packages::new();
    packages.put("usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so", &elf(0, b"", b""));
    packages.put("usr/lib/x86_64-linux-gnu/qemu/ui-curses.so", &elf(0, b"", b""));
    let assets = packages.collect().unwrap();
    let mut tar = tar::Archive::new(&*assets["vmm"]);
    let entries = tar.entries().unwrap().map(|e| {
        let e = e.unwrap();
        let header = e.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        e.path().unwrap().display().to_string()
    });
    // Some builds of this test need it.
    let entries = entries.filter(|path| path != "lib/libm.so.6");
    assert_eq!(
        entries.collect::<Vec<_>>(),
        [
            "bin/",
            "bin/qemu-system-x86_64",
            "lib/",
            "lib/ld-linux-x86-64.so.2",
            "lib/libc.so.6",
            "lib/libgcc_s.so.1",
            "lib/x86_64-linux-gnu/",
            "lib/x86_64-linux-gnu/qemu/",
            "lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so",
            "share/",
            "share/qemu/",
            "share/qemu/pvh.bin",
            "share/qemu/qboot.rom",
        ]
    );
}

#[test]
fn each_module_comes_behind_what_it_depends_on() {
    let assets = Packages::new().collect().unwrap();
    assert_eq!(
        names_in_initrd(&assets["initrd"]),
        [
            "dev",
            "dev/console",
            "init",
            "modules",
            "modules/00-virtio.ko",
            "modules/01-virtio_mmio.ko",
            "modules/02-virtio_blk.ko",
            "modules/03-failover.ko",
            "modules/04-virtio_net.ko",
            "modules/05-virtio_console.ko",
            "modules/06-virtio_rng.ko",
            "modules/07-crc32c_generic.ko",
            "modules/08-libcrc32c.ko",
            "modules/09-erofs.ko",
            "modules/10-overlay.ko",
            "proc",
            "sys",
            "TRAILER!!!",
        ]
    );
}

#[test]
fn modules_that_depend_on_each_other_end_all_the_same() {
    let packages = Packages::new();
    packages.modules(&[("drivers/virtio/virtio", "depends=virtio_mmio\0")]);
    assert!(packages.collect().is_ok());
}

#[test]
fn what_is_missing_is_named_with_what_to_do_about_it() {
    let module = |name: &str| format!("lib/modules/{VERSION}/kernel/{name}.ko");
    for (path, named) in [
        ("usr/bin/qemu-system-x86_64".to_owned(), "qemu-system-x86_64"),
        ("usr/lib/x86_64-linux-gnu/libc.so.6".to_owned(), "the library libc.so.6"),
        ("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2".to_owned(), "the library ld-linux-x86-64.so.2"),
        ("usr/share/qemu/qboot.rom".to_owned(), "qboot.rom"),
        ("usr/share/qemu/pvh.bin".to_owned(), "pvh.bin"),
        (format!("boot/vmlinuz-{VERSION}"), "the guest's kernel"),
        (module("fs/erofs/erofs"), "the kernel module erofs"),
        (module("net/core/failover"), "the kernel module failover"),
        ("guest".to_owned(), "the guest agent"),
    ] {
        let packages = Packages::new();
        std::fs::remove_file(packages.path(&path)).unwrap();
        let error = packages.collect().unwrap_err();
        assert!(error.message.starts_with(&format!("{named} is missing")), "{path}: {}", error.message);
        assert!(error.reason == Reason::NotFound && !error.hint.is_empty());
    }
}

#[test]
fn a_guest_agent_that_is_linked_dynamically_is_refused() {
    let packages = Packages::new();
    // This test itself would do, but for its size.
    std::fs::copy("/bin/true", packages.path("guest")).unwrap();
    let error = packages.collect().unwrap_err();
    assert!(error.message.contains("linked dynamically") && error.message.contains("script/guest"), "{error}");
}

#[test]
fn links_in_the_packages_never_lead_out_of_them() {
    let packages = Packages::new();
    let library = packages.path("usr/lib/x86_64-linux-gnu/libc.so.6");
    std::fs::rename(&library, packages.path("libc-of-the-package")).unwrap();
    symlink("/libc-of-the-package", &library).unwrap();
    assert!(packages.collect().is_ok());
    std::fs::remove_file(&library).unwrap();
    symlink("../../../../../../../../etc/passwd", &library).unwrap();
    assert!(packages.collect().unwrap_err().message.starts_with("the library libc.so.6 is missing"));
}

#[test]
fn the_newest_kernel_that_has_modules_is_taken() {
    let packages = Packages::new();
    packages.put("boot/vmlinuz-6.1.0-9-cloud-amd64", b"older");
    packages.put("lib/modules/6.1.0-9-cloud-amd64/kernel/fs/erofs/erofs.ko", b"older");
    packages.put("boot/vmlinuz-6.2.0-1-amd64", b"without modules");
    assert_eq!(packages.collect().unwrap()["kernel"], kernel());
}
