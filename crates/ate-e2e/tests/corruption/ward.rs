//! Damages real snapshots in every way a disk or a bucket can, and looks at what a reader makes of each.
//!
//! Nearly all of it is decided by the snapshot reader, before anything is started, so it is asked directly, on copies of
//! what a real node stored: [`Ward::stored`] damages what is fetched, [`Ward::kept`] the node's own copy.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use ate_snapshot::{Error, LocalSnapshot, LocalSnapshots, Prefix, Repository, Stored};
use sha2::{Digest as _, Sha256};

/// A reader that has not answered by then hangs.
const ANSWER: Duration = Duration::from_secs(60);
/// Larger files are the memory of machines: hashed in a second, not in milliseconds.
const LARGE: u64 = 32 << 20;
/// Places in a file where it is damaged, and in the files of a snapshot that has a large one.
const PIECES: u64 = 8;
const PIECES_OF_LARGE: u64 = 3;
/// The node's own manifest is checked as the stored one is, and after each damage the snapshot is fetched anew.
const OF_KEPT_MANIFEST: usize = 12;
/// Set to `all`: every byte of every manifest, and three times as many places in files. Takes minutes.
const HOW_MUCH: &str = "ATE_CORRUPTION";

/// What became of the cases.
#[derive(Debug, Default)]
pub struct Tally {
    pub cases: usize,
    /// By reason.
    pub refused: BTreeMap<String, usize>,
    /// Read, and every byte was as it had been saved.
    pub harmless: usize,
    /// Read, although bytes differ.
    pub silent: Vec<String>,
    pub slowest: Duration,
}

impl Tally {
    fn add(&mut self, what: &str, outcome: Outcome, took: Duration) {
        self.cases += 1;
        self.slowest = self.slowest.max(took);
        match outcome {
            Outcome::Refused(reason) => *self.refused.entry(reason).or_default() += 1,
            Outcome::Whole => self.harmless += 1,
            Outcome::Differs => self.silent.push(what.to_owned()),
        }
    }

    pub fn and(mut self, other: Tally) -> Tally {
        self.cases += other.cases;
        self.harmless += other.harmless;
        self.slowest = self.slowest.max(other.slowest);
        self.silent.extend(other.silent);
        other.refused.into_iter().for_each(|(reason, n)| *self.refused.entry(reason).or_default() += n);
        self
    }
}

enum Outcome {
    Refused(String),
    Whole,
    Differs,
}

/// A way to damage a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(u64),
    Cut(u64),
    /// Zeros behind its end.
    Grow(u64),
    /// A block of zeros in the place of what was written, as after a power cut.
    Hole(u64),
    Missing,
    Empty,
    Directory,
    /// To a file with the right bytes.
    Symlink,
}

/// A file that is damaged and mended again, while a copy of it stays as it was.
struct Patient {
    path: PathBuf,
    copy: PathBuf,
    size: u64,
}

impl Patient {
    fn new(path: PathBuf, copies: &Path) -> Self {
        let copy = copies.join(hex::encode(Sha256::digest(path.as_os_str().as_encoded_bytes())));
        copy_file(&path, &copy);
        let size = fs::metadata(&path).expect("a stored file").len();
        Patient { path, copy, size }
    }

    /// Every way there is, at the borders of so many pieces.
    fn damages(&self, pieces: u64) -> Vec<Damage> {
        let size = self.size;
        let last = size.saturating_sub(1);
        let places = || (0..=pieces).map(|n| size * n / pieces).map(|at| at.min(last));
        let mut all = vec![
            Damage::Missing,
            Damage::Empty,
            Damage::Directory,
            Damage::Symlink,
            Damage::Grow(1),
            Damage::Grow(4096),
        ];
        if size > 0 {
            all.extend(places().map(Damage::Flip));
            all.extend(places().map(Damage::Cut));
            all.push(Damage::Hole(size / 2 / 4096 * 4096));
        }
        all
    }

    fn damage(&self, damage: Damage) {
        let open = || File::options().read(true).write(true).open(&self.path).expect("a stored file");
        let remove = || fs::remove_file(&self.path).expect("remove a stored file");
        match damage {
            Damage::Flip(at) => {
                let (file, mut byte) = (open(), [0]);
                file.read_exact_at(&mut byte, at).expect("read a byte");
                file.write_all_at(&[byte[0] ^ 1], at).expect("flip a bit");
            }
            Damage::Cut(size) => open().set_len(size).expect("cut"),
            Damage::Grow(by) => open().set_len(self.size + by).expect("grow"),
            Damage::Hole(at) => {
                let length = (self.size - at).min(4096) as usize;
                open().write_all_at(&vec![0; length], at).expect("write zeros");
            }
            Damage::Empty => open().set_len(0).expect("empty"),
            Damage::Missing => remove(),
            Damage::Directory => {
                remove();
                fs::create_dir(&self.path).expect("a directory in its place");
            }
            Damage::Symlink => {
                remove();
                symlink(&self.copy, &self.path).expect("a symlink in its place");
            }
        }
    }

    fn mend(&self) {
        let gone = fs::remove_file(&self.path).or_else(|_| fs::remove_dir(&self.path));
        gone.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) }).expect("remove the damage");
        copy_file(&self.copy, &self.path);
    }
}

/// The snapshots below the objects of a node that is down, to be damaged in a copy of its own.
pub struct Ward {
    dir: tempfile::TempDir,
    repository: Repository,
    local: LocalSnapshots,
    pub snapshots: Vec<Case>,
}

/// A snapshot that is whole.
pub struct Case {
    prefix: Prefix,
    digest: ate_api::id::Digest,
    dir: PathBuf,
    pieces: u64,
    /// Of the manifest, and of each file.
    contents: BTreeMap<String, String>,
}

impl Ward {
    /// Copies what a node stored. The copy shares nothing with it.
    pub async fn admit(objects: &Path) -> Ward {
        let dir = tempfile::tempdir().expect("a directory");
        let copy = dir.path().join("objects");
        let copied =
            Command::new("cp").args(["-r", "--sparse=always", "--preserve=mode"]).arg(objects).arg(&copy).status();
        assert!(copied.expect("cp").success());
        fs::create_dir(dir.path().join("copies")).expect("a directory");
        let repository = Repository::new(&copy).expect("a repository");
        let local = LocalSnapshots::open(dir.path().join("local")).await.expect("a directory for snapshots");
        let mut ward = Ward { dir, repository, local, snapshots: Vec::new() };
        for Stored { prefix, complete, .. } in ward.repository.list("default").await.expect("a list") {
            assert!(complete, "{prefix} is not complete");
            let dir = url_path(&prefix);
            let digest = ate_api::id::Digest::of(&fs::read(dir.join("manifest.json")).expect("a manifest"));
            let whole = ward.repository.fetch(&prefix, &digest, &ward.local).await.expect("a whole snapshot is read");
            let contents = contents(&whole);
            let pieces = if whole.manifest.total_size() > LARGE { PIECES_OF_LARGE } else { PIECES };
            let pieces = if everything() { 3 * pieces } else { pieces };
            ward.local.remove(&digest).await.expect("forget it");
            ward.snapshots.push(Case { prefix, digest, dir, pieces, contents });
        }
        ward
    }

    fn copies(&self) -> PathBuf {
        self.dir.path().join("copies")
    }

    /// Damages what is stored, and fetches it onto a node that has no copy.
    pub async fn stored(&self, case: &Case) -> Tally {
        let mut tally = Tally::default();
        let files = fs::read_dir(&case.dir).expect("a stored snapshot").map(|e| e.expect("an entry").path());
        for path in files {
            let patient = Patient::new(path.clone(), &self.copies());
            let damages =
                if path.ends_with("manifest.json") { of_manifest(&path) } else { patient.damages(case.pieces) };
            for damage in damages {
                patient.damage(damage);
                let begun = Instant::now();
                let fetched =
                    tokio::time::timeout(ANSWER, self.repository.fetch(&case.prefix, &case.digest, &self.local)).await;
                let what = format!("{damage:?} of {}", path.display());
                let outcome = judge(&what, fetched, case);
                tally.add(&what, outcome, begun.elapsed());
                self.local.remove(&case.digest).await.expect("forget it");
                patient.mend();
            }
        }
        let fetched = self.repository.fetch(&case.prefix, &case.digest, &self.local).await;
        assert_eq!(contents(&fetched.expect("what was mended is read")), case.contents);
        self.local.remove(&case.digest).await.expect("forget it");
        tally
    }

    /// Damages the copy on the node. What is stored stays whole, and is what comes next.
    pub async fn kept(&self, case: &Case) -> Tally {
        let mut tally = Tally::default();
        let mut local = self.bring(case).await;
        let files: Vec<PathBuf> = case
            .contents
            .keys()
            .map(|name| match name.as_str() {
                "" => local.files_dir().with_file_name("manifest.json"),
                name => local.files_dir().join(name),
            })
            .chain([local.files_dir().with_file_name("stamps.json")])
            .collect();
        for path in files {
            // Other names of the same file are those of the stored one.
            unlink_from_others(&path);
            let patient = Patient::new(path.clone(), &self.copies());
            let all = if path.ends_with("manifest.json") {
                let all = of_manifest(&path);
                let step = if everything() { 16 } else { (all.len() / OF_KEPT_MANIFEST).max(1) };
                all.into_iter().step_by(step).collect()
            } else {
                patient.damages(case.pieces)
            };
            for damage in all {
                patient.damage(damage);
                let begun = Instant::now();
                let found = tokio::time::timeout(ANSWER, self.local.get(&case.digest)).await;
                let what = format!("{damage:?} of the node's {}", path.display());
                let outcome = judge(&what, found, case);
                tally.add(&what, outcome, begun.elapsed());
                // The damaged one was put aside: whoever needs the snapshot gets the stored one.
                local = self.bring(case).await;
                patient.mend();
                assert_eq!(contents(&local), case.contents, "{what}");
            }
        }
        self.local.remove(&case.digest).await.expect("forget it");
        tally
    }

    async fn bring(&self, case: &Case) -> LocalSnapshot {
        self.repository.fetch(&case.prefix, &case.digest, &self.local).await.expect("what is stored is whole")
    }
}

fn everything() -> bool {
    std::env::var(HOW_MUCH).is_ok_and(|value| value == "all")
}

/// The first byte of each key and value changed, and the text cut before it: so every field is among them.
fn of_manifest(path: &Path) -> Vec<Damage> {
    let text = fs::read(path).expect("a manifest");
    let begins = |at: &usize| everything() || (*at > 0 && b":,[{".contains(&text[at - 1]));
    let places: Vec<u64> = (0..text.len()).filter(begins).map(|at| at as u64).collect();
    let others =
        [Damage::Missing, Damage::Empty, Damage::Directory, Damage::Symlink, Damage::Grow(1), Damage::Grow(2 << 20)];
    let changed = places.iter().copied().map(Damage::Flip).chain(places.iter().copied().map(Damage::Cut));
    others.into_iter().chain(changed).collect()
}

fn judge(what: &str, read: Result<Result<LocalSnapshot, Error>, tokio::time::error::Elapsed>, case: &Case) -> Outcome {
    match read.unwrap_or_else(|_| panic!("{what}: no answer within {ANSWER:?}")) {
        Ok(snapshot) if contents(&snapshot) == case.contents => Outcome::Whole,
        Ok(_) => Outcome::Differs,
        Err(e) => {
            let e = ate_api::Error::from(e);
            assert_ne!(e.reason, ate_api::Reason::Internal, "{what}: {e}");
            Outcome::Refused(e.reason.as_str().to_owned())
        }
    }
}

/// Name → digest, the manifest under the empty name.
fn contents(snapshot: &LocalSnapshot) -> BTreeMap<String, String> {
    let of = |reader: &mut dyn io::Read| {
        let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            match reader.read(&mut block).expect("read a file") {
                0 => return hex::encode(hash.finalize()),
                n => hash.update(&block[..n]),
            }
        }
    };
    let file = |name: &str| of(&mut File::open(snapshot.files_dir().join(name)).expect("a file of the snapshot"));
    let files = snapshot.manifest.files.iter().map(|f| (f.name.clone(), file(&f.name)));
    files.chain([(String::new(), of(&mut snapshot.manifest_bytes()))]).collect()
}

fn url_path(prefix: &Prefix) -> PathBuf {
    PathBuf::from(prefix.to_string().strip_prefix("file://").expect("a folder"))
}

fn copy_file(from: &Path, to: &Path) {
    if fs::metadata(from).expect("a file").len() <= LARGE {
        fs::copy(from, to).expect("copy a file");
        return;
    }
    // Most of a machine's memory are holes.
    let copied = Command::new("cp").args(["--sparse=always", "--preserve=mode"]).arg(from).arg(to).status();
    assert!(copied.expect("cp").success());
}

fn unlink_from_others(path: &Path) {
    let alone = path.with_extension("alone");
    copy_file(path, &alone);
    fs::rename(&alone, path).expect("a file of its own");
}
