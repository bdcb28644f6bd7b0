//! What runs: model shapes, from presets or Hugging Face files, and quantisation schemes.

mod error;
mod extras;
mod hugging_face;
mod model;
mod preset;
mod quant;

pub(crate) use hugging_face::read as read_config;

pub(crate) use error::unknown_name;
pub use error::{WorkloadError, WorkloadProblem};
pub use extras::{Encoder, Extras, LongRope, Pooling, Stem, Window};
pub use model::{Family, ModelSpec, Rope, RopeLayout, RopeScaling};
pub use preset::{ModelPreset, load_model, model_names, model_preset};
pub use quant::{Body, Mix, QuantScheme, SCALE_BITS, TensorFormat, WeightQuant};
