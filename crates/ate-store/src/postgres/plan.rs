//! What becomes of a group of transactions, decided in their order before anything is sent.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::{Expect, Result, StoreError, group::Job};

/// Versions of keys in the database; `None` is not there. Only the leader writes, so what it knows stays true.
pub(super) type Known = HashMap<String, Option<u64>>;

pub(super) struct Plan<'a> {
    pub(super) results: Vec<Result<u64>>,
    /// The last write of each key, in the order of keys.
    pub(super) writes: BTreeMap<&'a str, (i64, Option<&'a Bytes>)>,
    /// The last version that is given away.
    pub(super) last: i64,
    /// What must hold of the database, beside what is known, for this plan to be right.
    pub(super) supposed: BTreeMap<&'a str, Expect>,
    known: &'a Known,
}

impl<'a> Plan<'a> {
    /// What happens to a group after the commit of a version if, where nothing is known, everybody finds what they expect,
    /// as nearly always.
    pub(super) fn of(group: &'a [Job], version: i64, known: &'a Known) -> Plan<'a> {
        let results = Vec::with_capacity(group.len());
        let mut plan = Plan { results, writes: BTreeMap::new(), last: version, supposed: BTreeMap::new(), known };
        for job in group {
            let conflict = job.tx.checks.iter().find(|(key, expect)| !plan.holds(key, *expect));
            plan.results.push(match conflict {
                Some((key, _)) => Err(StoreError::Conflict { key: key.clone() }),
                None if job.tx.writes.is_empty() => Ok(0),
                None => {
                    plan.last += 1;
                    let last = plan.last;
                    plan.writes.extend(job.tx.writes.iter().map(|(key, value)| (&**key, (last, value.as_ref()))));
                    Ok(last.unsigned_abs())
                }
            });
        }
        plan
    }

    /// Whether the database has the key before this group: then it can be changed, which costs half of what it costs to find
    /// out whether it must be inserted. `false` if that is not known.
    pub(super) fn is_there(&self, key: &str) -> bool {
        match self.known.get(key) {
            Some(known) => known.is_some(),
            None => matches!(self.supposed.get(key), Some(Expect::Present | Expect::Version(_))),
        }
    }

    /// What is known once this has happened.
    pub(super) fn written(&self) -> Known {
        let version = |(version, value): &(i64, Option<&Bytes>)| value.map(|_| version.unsigned_abs());
        self.writes.iter().map(|(key, write)| ((*key).to_owned(), version(write))).collect()
    }

    fn holds(&mut self, key: &'a str, expect: Expect) -> bool {
        if let Some((version, value)) = self.writes.get(key) {
            return expect.holds(value.map(|_| version.unsigned_abs()));
        }
        if let Some(known) = self.known.get(key) {
            return expect.holds(*known);
        }
        // What was supposed for an earlier one is what this one finds.
        match (self.supposed.get(key), expect) {
            (Some(Expect::Version(version)), _) => expect.holds(Some(*version)),
            (Some(Expect::Absent), _) => expect.holds(None),
            (Some(Expect::Present), Expect::Absent) => false,
            (Some(Expect::Present) | None, _) => {
                self.supposed.insert(key, expect);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::Transaction;

    fn group(transactions: Vec<Transaction>) -> Vec<Job> {
        transactions.into_iter().map(|tx| Job { tx, reply: oneshot::channel().0 }).collect()
    }

    #[test]
    fn later_transactions_of_a_group_see_the_writes_of_earlier_ones() {
        let claim = || Transaction::new().check("seat", Expect::Absent).put("seat", "x");
        let group =
            group(vec![claim(), claim(), Transaction::new().check("seat", Expect::Version(8)).delete("seat"), claim()]);
        let nothing = Known::new();
        let plan = Plan::of(&group, 7, &nothing);
        assert!(
            matches!(plan.results[..], [Ok(8), Err(StoreError::Conflict { .. }), Ok(9), Ok(10)]),
            "{:?}",
            plan.results
        );
        assert_eq!(plan.supposed.into_iter().collect::<Vec<_>>(), [("seat", Expect::Absent)]);
        assert_eq!((plan.last, plan.writes["seat"].0), (10, 10));
    }

    #[test]
    fn of_two_expectations_one_is_supposed_and_the_other_decided_by_it() {
        use Expect::{Absent, Present, Version};
        let check = |expect| Transaction::new().check("k", expect).put("other", "x");
        let cases = [
            (Present, Version(3), Version(3), true),
            (Version(3), Present, Version(3), true),
            (Version(3), Version(4), Version(3), false),
            (Version(3), Absent, Version(3), false),
            (Absent, Present, Absent, false),
            (Present, Absent, Present, false),
        ];
        for (first, second, supposed, holds) in cases {
            let group = group(vec![check(first), check(second)]);
            let nothing = Known::new();
            let plan = Plan::of(&group, 7, &nothing);
            assert_eq!(plan.supposed["k"], supposed, "{first:?} {second:?}");
            assert_eq!(
                plan.results.iter().map(Result::is_ok).collect::<Vec<_>>(),
                [true, holds],
                "{first:?} {second:?}"
            );
        }
    }

    #[test]
    fn what_is_known_is_not_supposed() {
        let known = Known::from([("there".to_owned(), Some(5)), ("gone".to_owned(), None)]);
        let check = |key: &str, expect| Transaction::new().check(key, expect).put(key, "x");
        let group = group(vec![
            check("there", Expect::Version(4)),
            check("there", Expect::Version(5)),
            check("gone", Expect::Present),
            check("gone", Expect::Absent),
        ]);
        let plan = Plan::of(&group, 7, &known);
        assert_eq!(plan.results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, true]);
        assert!(plan.supposed.is_empty() && plan.is_there("there") && !plan.is_there("gone"));
        assert_eq!(plan.written(), Known::from([("there".to_owned(), Some(8)), ("gone".to_owned(), Some(9))]));
    }
}
