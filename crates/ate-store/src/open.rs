//! Why a store could not be opened.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store in {} is in use by another process: stop it, or choose another directory", path.display())]
    InUse { path: PathBuf },
    #[error("cannot open the store in {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// Nothing is changed on disk, so that a copy can be taken and looked at.
    #[error("the store in {} is damaged or of another version: {message}", path.display())]
    Damaged { path: PathBuf, message: String },
    #[error("the address of the database cannot be used: {0}")]
    Address(String),
    #[error("cannot open the database: {0}")]
    Database(String),
    /// A newer program was here; what it wrote may mean something else. Nothing is changed.
    #[error("the database has schema {found}, but this program knows schemas up to {known}: use the newer program")]
    Schema { found: i32, known: i32 },
}
