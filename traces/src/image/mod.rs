//! Model images: what the loader places in memory for the NPU to read, with or without the weights' values.
//!
//! Models: every tensor's place and stored bytes, quantised values where there are weights.
//! Does not model: tokenisers, files of weights.
//! Source: `isa::image` for the layout, the scheme definitions of `workload` for the formats.

mod codes;
mod layout;
mod rope;
mod weights;

pub use codes::Coded;
pub use layout::{ImageLayout, TensorBytes, stored_spec, values_apart};
pub use rope::{inverse_frequencies, local_frequencies};
pub use weights::{RandomTensors, Tensor, TensorSource, build_image, fill_image, random_tensors, tensors_of};
