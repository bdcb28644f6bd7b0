//! From a preset, a user's file and `--set` options to one checked, integer [`SocConfig`].

mod resolved;

pub use resolved::{
    BootConfig, CacheConfig, ClusterConfig, CoreConfig, DramConfig, EnergyClass, FabricConfig, InOrderConfig,
    L3Config, NpuConfig, NumberFormat, PowerConfig, SocConfig,
};
