//! What the functional tests share: a reference transformer and an NPU that runs the firmware's lists.

pub mod agree;
pub mod encoder;
pub mod machine;
pub mod reference;
