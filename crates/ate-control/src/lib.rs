//! The control plane: API services, scheduler, workflows and policies.
#![forbid(unsafe_code)]
