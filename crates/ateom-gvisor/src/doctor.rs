//! `doctor`: can this machine run the class?

use ate_sandbox::Check;

pub(crate) fn checks() -> Vec<Check> {
    Vec::new()
}
