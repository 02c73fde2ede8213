//! Refusing to delete what others need, and saying who they are.

use ate_api::{Error, Reason};

/// Users named in a message.
const NAMED: usize = 10;
/// Users counted; beyond it the count says "or more".
pub(crate) const COUNTED: usize = 1000;

/// The error for a deletion, if there are users. `users` holds at most [`COUNTED`] names.
pub(crate) fn refusal(object: &str, what: &str, users: Vec<String>) -> Option<Error> {
    if users.is_empty() {
        return None;
    }
    let count = if users.len() >= COUNTED { format!("{COUNTED} or more") } else { users.len().to_string() };
    let plural = if users.len() == 1 { "" } else { "s" };
    let named = users[..users.len().min(NAMED)].join(", ");
    let more = if users.len() > NAMED { ", …" } else { "" };
    Some(
        Error::new(Reason::InUse, format!("{count} {what}{plural} need it: {named}{more}"))
            .on(object)
            .hint(format!("delete the {what}{plural} first")),
    )
}
