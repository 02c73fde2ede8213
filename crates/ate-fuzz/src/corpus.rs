//! What is kept of a target: samples, and inputs that broke it.
//!
//! The input that is tried is in a file before it is: nothing in the process can be relied upon to save it when the stack
//! runs over or the kernel takes the memory back. The next run begins with what it finds there.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

pub(crate) const GOOD: &str = "good-";
const CRASH: &str = "crash-";

pub(crate) struct Corpus {
    dir: PathBuf,
    current: PathBuf,
    file: File,
    /// What an earlier run ended with, if it was not among the kept inputs before.
    left: Option<PathBuf>,
}

pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_good: bool,
}

impl Corpus {
    /// # Panics
    /// As everything here: if the disk does not do what it should.
    pub(crate) fn open(corpus: &Path, target: &str) -> Self {
        let dir = corpus.join(target);
        let current = unfinished(target);
        fs::create_dir_all(current.parent().expect("it is in a directory"))
            .expect("create the directory of unfinished inputs");
        let left = fs::read(&current).ok();
        let file = File::create(&current).expect("create the file of the current input");
        let mut corpus = Corpus { dir, current, file, left: None };
        if let Some(left) = left.filter(|left| !left.is_empty()) {
            fs::create_dir_all(&corpus.dir).expect("create the corpus");
            let path = corpus.dir.join(format!("{}{}", CRASH, name_of(&left)));
            eprintln!(
                "an earlier run ended while it tried the {} bytes that are now in {}",
                left.len(),
                path.display()
            );
            corpus.left = Some(path.clone()).filter(|path| !path.exists());
            fs::write(path, left).expect("keep what an earlier run ended with");
        }
        corpus
    }

    pub(crate) fn read(&self) -> Vec<Kept> {
        let mut kept: Vec<Kept> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .map(|entry| {
                let path = entry.expect("list the corpus").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let bytes = fs::read(&path).expect("read a kept input");
                Kept { is_good: name.starts_with(GOOD), name, bytes }
            })
            .collect();
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        kept
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(&self.dir).expect("create the corpus");
        fs::write(self.dir.join(name), bytes).expect("write a sample");
    }

    pub(crate) fn about_to_try(&self, input: &[u8]) {
        self.file.write_all_at(input, 0).and_then(|()| self.file.set_len(input.len() as u64)).expect("note the input");
    }

    pub(crate) fn keep_crasher(&self, input: &[u8]) -> PathBuf {
        let path = self.dir.join(format!("{CRASH}{}", name_of(input)));
        fs::write(&path, input).expect("keep what broke it");
        self.done();
        path
    }

    /// Nothing broke it, not even what an earlier run ended with: somebody only pressed Ctrl-C, or another target broke.
    pub(crate) fn passed(&self) {
        self.left.iter().for_each(|left| drop(fs::remove_file(left)));
        self.done();
    }

    /// Nothing is being tried any more.
    pub(crate) fn done(&self) {
        let _ = fs::remove_file(&self.current);
    }
}

fn name_of(input: &[u8]) -> String {
    hex::encode(&Sha256::digest(input)[..8])
}

/// Beside what cargo built, where nobody looks for sources.
fn unfinished(target: &str) -> PathBuf {
    let program = std::env::current_exe().expect("a test is a program");
    program.ancestors().nth(2).unwrap_or(Path::new(".")).join("fuzz").join(target)
}
