//! What runs: model shapes, from presets or Hugging Face files, and quantisation schemes.

mod model;
mod quant;

pub use model::{Family, ModelSpec, Rope, RopeLayout, RopeScaling};
pub use quant::{QuantScheme, TensorFormat, WeightQuant};
