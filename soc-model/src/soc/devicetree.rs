//! The device tree the boot ROM hands over: what there is, where, and what the software is to use.

use isa::boot;
use isa::memory_map as map;
use vm_fdt::{Error, FdtWriter};

use super::build::Layout;
use crate::config::SocConfig;

/// The blob for a configuration and layout.
pub(super) fn blob(cfg: &SocConfig, layout: &Layout, harts: usize) -> Result<Vec<u8>, Error> {
    let mut f = FdtWriter::new()?;
    let root = f.begin_node("")?;
    f.property_string("compatible", "presil,soc")?;
    f.property_string("model", &cfg.name)?;
    f.property_u32("#address-cells", 2)?;
    f.property_u32("#size-cells", 2)?;
    let chosen = f.begin_node(boot::CHOSEN)?;
    f.property_u64(boot::PROP_IMAGE, layout.image)?;
    f.property_array_u64(boot::PROP_ARENA, &[layout.arena.0, layout.arena.1])?;
    f.property_array_u64(boot::PROP_BULK, &[layout.bulk.0, layout.bulk.1])?;
    f.property_u32(boot::PROP_CHUNK, layout.chunk)?;
    f.property_u32(boot::PROP_POSITIONS, layout.positions)?;
    f.property_u32(boot::PROP_KV_BITS, layout.kv_bits)?;
    f.property_u32(boot::PROP_KV_PAGE, layout.kv_page)?;
    f.property_u32(boot::PROP_KV_POOL, layout.kv_pool)?;
    f.end_node(chosen)?;
    let cpus = f.begin_node("cpus")?;
    f.property_u32("#address-cells", 1)?;
    f.property_u32("#size-cells", 0)?;
    f.property_u32("timebase-frequency", u32::try_from(cfg.boot.timebase_hz).unwrap_or(u32::MAX))?;
    for hart in 0..u32::try_from(harts).unwrap_or(u32::MAX) {
        let cpu = f.begin_node(&format!("cpu@{hart:x}"))?;
        f.property_string("device_type", "cpu")?;
        f.property_string("riscv,isa", "rv64imafdc")?;
        f.property_string("status", "okay")?;
        f.property_u32("reg", hart)?;
        f.end_node(cpu)?;
    }
    f.end_node(cpus)?;
    let memory = f.begin_node(&format!("memory@{:x}", map::DRAM_BASE))?;
    f.property_string("device_type", "memory")?;
    f.property_array_u64("reg", &[map::DRAM_BASE, cfg.dram.capacity_bytes])?;
    f.end_node(memory)?;
    let soc = f.begin_node("soc")?;
    f.property_u32("#address-cells", 2)?;
    f.property_u32("#size-cells", 2)?;
    f.property_null("ranges")?;
    for (window, compatible) in [
        (map::CLINT, "riscv,clint0"),
        (map::PLIC, "riscv,plic0"),
        (map::UART, "presil,uart"),
        (map::MAILBOX, "presil,mailbox"),
    ] {
        let node = f.begin_node(&format!("{}@{:x}", window.name.to_lowercase(), window.base))?;
        f.property_string("compatible", compatible)?;
        f.property_array_u64("reg", &[window.base, window.bytes])?;
        f.end_node(node)?;
    }
    for core in 0..cfg.npu.cores {
        let base = map::NPU.base + u64::from(core) * map::NPU_STRIDE;
        let node = f.begin_node(&format!("npu@{base:x}"))?;
        f.property_string("compatible", boot::NPU_COMPATIBLE)?;
        f.property_array_u64("reg", &[base, map::NPU_STRIDE])?;
        f.property_u32("interrupts", map::IRQ_NPU0 + core)?;
        f.property_string("status", if cfg.npu.driver { "okay" } else { "disabled" })?;
        f.end_node(node)?;
    }
    f.end_node(soc)?;
    f.end_node(root)?;
    f.finish()
}
