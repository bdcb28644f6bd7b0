//! The transformer runtime: from a model image and the NPU's capabilities to command lists.
//!
//! No hardware access, no allocation: lists go to a [`emit::Sink`], so the same code runs on the modelled harts
//! and, in tests, on the host against a time-free NPU.
//!
//! Work is split over cores by output columns (attention: by KV head). With few rows every activation stays in
//! the scratchpads and slices are exchanged by multicast (*resident*); with many, the residual stream and the
//! feed-forward hidden layer spill to memory in column panels and are read back in pieces (*spilled*).
#![no_std]

pub mod attention;
pub mod cache;
pub mod caps;
pub mod dense;
pub mod draw;
pub mod emit;
pub mod encoder;
pub mod head;
pub mod kinds;
pub mod layer;
pub mod long;
pub mod model;
pub mod norm;
pub mod pages;
pub mod plan;
pub mod post;
pub mod program;
pub mod quant;
pub mod sem;
pub mod stem;

pub use caps::Caps;
pub use emit::{Emitter, Sink};
pub use model::Model;
pub use plan::Plan;
pub use program::{Program, Step};
