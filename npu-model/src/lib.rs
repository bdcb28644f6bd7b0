//! The NPU: sequencer, DMA, scratchpad, matrix and vector engines.

pub mod activity;
pub mod array;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod core;
pub mod dma;
pub mod fault;
pub mod functional;
pub mod ids;
pub mod local;
pub mod memory;
pub mod ops;
pub mod pmu;
pub mod semaphores;
pub mod stalls;
pub mod study;

pub use activity::{Activity, MacClass, OpKey, OpRow, OpTable};
pub use cluster::{Cluster, ClusterTiming, Executed, FlowRequest, NpuEvent, Outside, Requester};
pub use config::{LocalPorts, NpuConfig};
pub use core::{Core, ENGINES, Issued, MX, Preemptions, Queue, Sequenced, Stopped, VP};
pub use fault::Fault;
pub use functional::{Cores, Stuck};
pub use ids::IdSource;
pub use local::{Local, Space};
pub use memory::{BusFault, Content, Memory};
pub use stalls::{Cause, Meter};
