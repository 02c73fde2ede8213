//! The system's resources as Kubernetes has them.
//!
//! [`crd`] makes the CRDs from the Rust types of `ate-api`, [`policy`] the admission policies from what the classes say of
//! themselves, [`controller`] applies the objects to the control plane, writes back what came of them, and brings about the
//! pods that worker pools ask for. What an object means is decided nowhere here: one machine and Kubernetes share that.
#![forbid(unsafe_code)]

pub mod controller;
pub mod crd;
pub mod policy;
pub mod review;
pub mod secrets;
pub mod workers;
mod yaml;
