//! Keeps what is there in line with what is wanted: one small loop per subject, each driven by changes.

pub(crate) mod collect;
pub(crate) mod configs;
pub(crate) mod garbage;
pub(crate) mod leaving;
pub(crate) mod node_events;
pub(crate) mod platforms;
pub(crate) mod pools;
pub(crate) mod startup;
pub(crate) mod templates;
