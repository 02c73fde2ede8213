//! The herder as its node agent sees it, with real QEMUs, a real guest kernel and the real agent.

mod assets;
mod damaged;
mod failure;
mod hostile;
mod leftovers;
mod lifecycle;
mod memory;
mod prepare;
