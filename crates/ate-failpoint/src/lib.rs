//! Named steps of workflows, and faults at them.
//!
//! `step!("suspend.flip", work)` awaits one step of a workflow. A debug build has a failpoint before and one after it,
//! a release build has nothing but the work: this crate, and whatever depends on it, looks at `debug_assertions` and at
//! no feature, so one build of the programs serves all tests and no build for use can have failpoints in it.
//!
//! Faults are armed from outside, at any time, in a directory that the variable `ATE_FAILPOINTS` names:
//!
//! ```text
//! DIR/armed/suspend.flip.before    one word: abort | error | hold
//!           suspend.flip.after     the same
//!           suspend.flip.twice     anything: the step is run again after it succeeded
//! DIR/fired/…                      where the file goes when the point is reached
//! ```
//!
//! The move is one rename, so a fault happens once, in one process, also if that is started again or has several herders
//! that reach the same point. `hold` waits until the file in `fired` is removed: time to kill something else.
//!
//! The crate `fail` is not used: it is armed when a process starts or by itself, it cannot abort one, and what it has
//! done is forgotten with the process.
//!
//! What may happen to a step is said by a third word:
//!
//! | | error before | error after | twice |
//! |---|---|---|---|
//! | (none): a call whose answer may be lost | yes | yes | |
//! | `repeatable`: the same, and to repeat it changes nothing | yes | yes | yes |
//! | `held`: what it gives is in the caller's hands | yes | | |
//! | `plain`: it cannot fail | | | |
//!
//! The names are found in the sources (`ate-e2e`), and a test there sees to it that what changes anything is a step.
#![forbid(unsafe_code)]

#[cfg(debug_assertions)]
pub mod armed;

use std::time::Duration;

/// The variable that programs pass on to those they start; none in a release build.
pub const VARIABLE: Option<&str> = variable();

#[cfg(debug_assertions)]
const fn variable() -> Option<&'static str> {
    Some(armed::VARIABLE)
}

#[cfg(not(debug_assertions))]
const fn variable() -> Option<&'static str> {
    None
}

/// A period of background work. Shorter where failpoints are in use: nobody can wait for a fault that comes in minutes.
pub fn period(usual: Duration) -> Duration {
    #[cfg(debug_assertions)]
    if armed::in_use() {
        return usual.min(armed::PERIOD);
    }
    usual
}

/// The age from which something may be taken for forgotten, in the same way: still older than any step is long.
pub fn age(usual: Duration) -> Duration {
    #[cfg(debug_assertions)]
    if armed::in_use() {
        return usual.min(armed::AGE);
    }
    usual
}

/// Errors that can be injected.
pub trait Injected: Sized {
    /// As if the other side had not answered.
    fn injected(point: &str) -> Self;
}

impl Injected for std::io::Error {
    fn injected(point: &str) -> Self {
        std::io::Error::other(format!("a fault was injected at {point}"))
    }
}

/// What a `repeatable` step hands over: a copy where the step may be run again, the value itself in a release build, where it
/// never is.
#[cfg(debug_assertions)]
#[macro_export]
macro_rules! again {
    ($value:expr) => {
        $value.clone()
    };
}

/// What a `repeatable` step hands over: the value itself.
#[cfg(not(debug_assertions))]
#[macro_export]
macro_rules! again {
    ($value:expr) => {
        $value
    };
}

/// Awaits a step; see the crate.
#[cfg(debug_assertions)]
#[macro_export]
macro_rules! step {
    ($name:literal, $work:expr, plain) => {{
        $crate::armed::pass($name, "before").await;
        let done = $work.await;
        $crate::armed::pass($name, "after").await;
        done
    }};
    ($name:literal, $work:expr, held) => {
        match $crate::armed::before($name).await {
            Some(injected) => injected,
            None => {
                let done = $work.await;
                $crate::armed::pass($name, "after").await;
                done
            }
        }
    };
    ($name:literal, $work:expr, repeatable) => {
        match $crate::armed::before($name).await {
            Some(injected) => injected,
            None => {
                let mut done = $work.await;
                if done.is_ok() && $crate::armed::again($name) {
                    done = $work.await;
                }
                $crate::armed::after($name, done).await
            }
        }
    };
    ($name:literal, $work:expr) => {
        match $crate::armed::before($name).await {
            Some(injected) => injected,
            None => $crate::armed::after($name, $work.await).await,
        }
    };
}

/// Awaits a step.
#[cfg(not(debug_assertions))]
#[macro_export]
macro_rules! step {
    ($name:literal, $work:expr $(, $kind:ident)?) => {
        $work.await
    };
}

/// A step of blocking code; see the crate.
#[cfg(debug_assertions)]
#[macro_export]
macro_rules! step_now {
    ($name:literal, $work:expr, plain) => {{
        $crate::armed::pass_now($name, "before");
        let done = $work;
        $crate::armed::pass_now($name, "after");
        done
    }};
    ($name:literal, $work:expr) => {
        match $crate::armed::before_now($name) {
            Some(injected) => injected,
            None => $crate::armed::after_now($name, $work),
        }
    };
}

/// A step of blocking code.
#[cfg(not(debug_assertions))]
#[macro_export]
macro_rules! step_now {
    ($name:literal, $work:expr $(, $kind:ident)?) => {
        $work
    };
}
