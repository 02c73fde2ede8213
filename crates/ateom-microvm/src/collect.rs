//! From packages of a distribution to the assets of the class.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason};

pub(crate) fn collect(from: &Path, _out: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    Err(Error::new(Reason::Unimplemented, format!("nothing can be made from {} yet", from.display())))
}
