//! The herder as its node agent sees it, with real QEMUs, a real guest kernel and the real agent.

mod assets;
mod lifecycle;
