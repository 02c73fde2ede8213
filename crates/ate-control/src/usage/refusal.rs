//! Refusing to take away what is used, with the list of who uses it.

use ate_api::{Error, Reason};

use super::{
    Usage,
    page::{User, UserKind},
};
use crate::{core::Core, records::ConfigKey};

/// Users named in a message.
const NAMED: usize = 10;

impl Core {
    /// The error, if pools name these revisions or anything runs or was made under them.
    pub(crate) async fn in_use(
        &self,
        object: &str,
        pools: Vec<String>,
        revisions: &[ConfigKey],
    ) -> Result<Option<Error>, Error> {
        let users = self.users(revisions, None, NAMED).await?;
        if pools.is_empty() && users.is_empty() {
            return Ok(None);
        }
        let usage = self.usage(revisions).await?.into_values().sum();
        Ok(Some(refusal(object, &pools, &users, usage)))
    }
}

fn refusal(object: &str, pools: &[String], users: &[User], usage: Usage) -> Error {
    let counts = [
        (pools.len() as u64, "pool"),
        (usage.running, "running actor"),
        (usage.goldens, "golden snapshot"),
        (usage.suspended, "suspended actor"),
    ];
    let mut counted: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| many(*n, what)).collect();
    // Of those who are named already, the snapshots go without saying.
    let rest = counted.is_empty();
    if rest {
        counted.push(many(usage.snapshots, "snapshot"));
    }
    let names = users.iter().filter(|u| rest || u.kind != UserKind::Snapshot).map(User::label);
    let named: Vec<String> = pools.iter().cloned().chain(names).take(NAMED).collect();
    let all = counts.iter().map(|(n, _)| n).sum::<u64>().max(if rest { usage.snapshots } else { 0 });
    let more = if all > named.len() as u64 { ", …" } else { "" };
    let need = if all == 1 { "needs" } else { "need" };
    Error::new(Reason::InUse, format!("{} {need} it: {}{more}", counted.join(", "), named.join(", "))).on(object)
}

fn many(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(kind: UserKind, name: &str) -> User {
        User { kind, revision: ConfigKey { name: "c".into(), revision: 1 }, name: name.into() }
    }

    #[test]
    fn a_refusal_counts_all_and_names_some() {
        let users = [user(UserKind::Running, "default/a"), user(UserKind::Snapshot, &"ab".repeat(32))];
        let usage = Usage { running: 1, suspended: 20, goldens: 0, snapshots: 21 };
        let e = refusal("sandboxconfig/c", &["workerpool/default/p".to_owned()], &users, usage);
        let expected = "1 pool, 1 running actor, 20 suspended actors need it: workerpool/default/p, actor/default/a, …";
        assert_eq!((e.reason, e.message.as_str()), (Reason::InUse, expected));
    }

    #[test]
    fn snapshots_are_named_where_there_is_nobody_else() {
        let users = [user(UserKind::Snapshot, &"ab".repeat(32))];
        let e = refusal("sandboxconfig/c", &[], &users, Usage { snapshots: 1, ..Usage::default() });
        assert_eq!(e.message, "1 snapshot needs it: snapshot/abababababab");
    }
}
