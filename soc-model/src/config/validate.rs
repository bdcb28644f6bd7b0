//! Relations between values: all that are broken are reported, each with its path and what would hold.

use std::collections::BTreeMap;

use super::error::{ConfigError, Problem, suggestion};
use super::layer::Entries;
use super::preset::standard_names;
use super::raw::{
    RawCache, RawClass, RawCluster, RawEnergyClass, RawFormat, RawInOrder, RawL3, RawNpu, RawSlc, RawSoc,
    Switch,
};
use super::resolved::{
    BootConfig, CacheConfig, ClusterConfig, CoreConfig, DramConfig, EnergyClass, FabricConfig, InOrderConfig,
    L3Config, NpuConfig, NumberFormat, PowerConfig, QosClass, SlcConfig, SocConfig, TrafficConfig,
};
use crate::fabric::slc::SECTOR_BYTES;
use crate::power::energy_table_names;

/// Harts a chip has at most: what the interrupt controller and the boot image have room for.
const MAX_HARTS: u64 = 16;
/// DMA channels at most, in and out together: a command names one in 2 bits.
const MAX_DMA_CHANNELS: u64 = 4;
/// NPU cores at most: the multicast mask of a command is 8 bits.
const MAX_NPU_CORES: u64 = 8;
/// Scratchpad at most: a command addresses 2^20 granules of 32 bytes.
const MAX_SCRATCHPAD: u64 = 32 << 20;

struct Checks<'a> {
    entries: &'a Entries,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    fn fail(&mut self, path: &str, message: String, help: Option<String>) {
        let place = self.entries.get(path).map_or("resolved", |entry| entry.origin.layer.as_str());
        self.problems.push(Problem::new(place, path, message).help(help));
    }

    fn require(&mut self, holds: bool, path: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.fail(path, message(), None);
        }
    }

    fn range(&mut self, path: &str, value: u64, low: u64, high: u64) {
        self.require((low..=high).contains(&value), path, || {
            format!("expected a whole number from {low} to {high}, found {value}")
        });
    }

    fn frequency(&mut self, path: &str, hertz: u64) {
        self.require((1_000_000..=10_000_000_000).contains(&hertz), path, || {
            format!("expected from 1 MHz to 10 GHz, found {hertz} Hz")
        });
    }

    fn voltage(&mut self, path: &str, millivolt: u64) {
        self.require((300..=1500).contains(&millivolt), path, || {
            format!("expected from 300 mV to 1500 mV, found {millivolt} mV")
        });
    }

    fn power_of_two(&mut self, path: &str, value: u64, low: u64, high: u64) {
        self.require(value.is_power_of_two() && (low..=high).contains(&value), path, || {
            format!("expected a power of two from {low} to {high}, found {value}")
        });
    }

    fn cache(&mut self, path: &str, cache: &RawCache) {
        let (size, line) = (cache.size.0, cache.line.0);
        self.range(&format!("{path}.ways"), cache.ways.into(), 1, 64);
        self.power_of_two(&format!("{path}.line"), line, 16, 256);
        self.range(&format!("{path}.latency"), cache.latency.into(), 1, 1000);
        let way = u64::from(cache.ways).saturating_mul(line);
        let sets = size.checked_div(way).unwrap_or(0);
        self.require(
            sets.is_power_of_two() && sets.checked_mul(way) == Some(size) && size <= 1 << 30,
            &format!("{path}.size"),
            || {
                format!(
                    "expected ways x line x a power of two of sets up to 1 GiB, found {size} bytes in {} ways of \
                     {line}-byte lines",
                    cache.ways
                )
            },
        );
    }

    fn in_order(&mut self, path: &str, core: &RawInOrder) {
        for (key, value, low, high) in [
            ("issue-width", core.issue_width, 1, 10),
            ("memory-ports", core.memory_ports, 1, 4),
            ("mul", core.mul, 1, 40),
            ("div", core.div, 1, 100),
            ("fp", core.fp, 1, 40),
            ("fma", core.fma, 1, 40),
            ("fp-div", core.fp_div, 1, 100),
            ("atomic", core.atomic, 1, 100),
            ("serialise", core.serialise, 1, 200),
            ("mispredict-penalty", core.mispredict_penalty, 1, 40),
            ("return-stack-entries", core.return_stack_entries, 1, 64),
            ("prefetch-lines", core.prefetch_lines, 0, 16),
            ("miss-registers", core.miss_registers, 1, 64),
        ] {
            self.range(&format!("{path}.{key}"), value.into(), low, high);
        }
        self.power_of_two(&format!("{path}.predictor-entries"), core.predictor_entries.into(), 16, 1 << 20);
    }

    fn cluster(&mut self, path: &str, cluster: &RawCluster) {
        self.range(&format!("{path}.count"), cluster.count.into(), 1, MAX_HARTS);
        self.frequency(&format!("{path}.frequency"), cluster.frequency.0);
        self.voltage(&format!("{path}.voltage"), cluster.voltage.0);
        for (key, cache) in [("l1i", &cluster.l1i), ("l1d", &cluster.l1d), ("l2", &cluster.l2)] {
            self.cache(&format!("{path}.{key}"), cache);
        }
        match &cluster.in_order {
            Some(core) => self.in_order(&format!("{path}.in-order"), core),
            None => {
                let help = Some(format!("add a table [{path}.in-order]"));
                self.fail(path, "expected a pipeline".to_owned(), help);
            }
        }
    }

    fn npu(&mut self, npu: &RawNpu) {
        for (key, value, low, high) in [
            ("cores", npu.cores, 1, MAX_NPU_CORES),
            ("dma-in-channels", npu.dma_in_channels, 1, MAX_DMA_CHANNELS - 1),
            ("dma-out-channels", npu.dma_out_channels, 1, MAX_DMA_CHANNELS - 1),
            ("vector-lanes", npu.vector_lanes, 1, 1024),
            ("fifo-depth", npu.fifo_depth, 1, 64),
            ("decode", npu.decode, 1, 1000),
            ("doorbell", npu.doorbell, 1, 1_000_000),
            ("dma-setup", npu.dma_setup, 1, 10_000),
            ("accumulator-ports", npu.accumulator_ports, 1, 8),
        ] {
            self.range(&format!("npu.{key}"), value.into(), low, high);
        }
        let channels = u64::from(npu.dma_in_channels) + u64::from(npu.dma_out_channels);
        self.require(channels <= MAX_DMA_CHANNELS, "npu.dma-in-channels", || {
            let (read, write) = (npu.dma_in_channels, npu.dma_out_channels);
            format!(
                "expected at most {MAX_DMA_CHANNELS} channels, in and out together, found {read} and {write}"
            )
        });
        self.power_of_two("npu.rows", npu.rows.into(), 4, 512);
        self.power_of_two("npu.cols", npu.cols.into(), 4, 512);
        self.power_of_two("npu.dma-width", npu.dma_width.0, 8, 512);
        self.power_of_two("npu.scratchpad-banks", npu.scratchpad_banks.into(), 1, 64);
        self.power_of_two("npu.scratchpad-bank-width", npu.scratchpad_bank_width.0, 8, 256);
        self.power_of_two("npu.gemv-width", npu.gemv_width.0, 8, 4096);
        self.frequency("npu.frequency", npu.frequency.0);
        self.voltage("npu.voltage", npu.voltage.0);
        self.voltage("npu.minimum-voltage", npu.minimum_voltage.0);
        self.require(npu.minimum_voltage.0 <= npu.voltage.0, "npu.minimum-voltage", || {
            format!("expected at most npu.voltage ({} mV), found {} mV", npu.voltage.0, npu.minimum_voltage.0)
        });
        let scratchpad = npu.scratchpad.0;
        self.require(
            scratchpad.is_multiple_of(1024) && (64 << 10..=MAX_SCRATCHPAD).contains(&scratchpad),
            "npu.scratchpad",
            || format!("expected 64 KiB to 32 MiB, a multiple of 1 KiB, found {scratchpad} B"),
        );
        let tile = u64::from(npu.rows) * u64::from(npu.cols) * 4;
        self.require(
            npu.accumulator.0 >= tile && npu.accumulator.0.is_multiple_of(u64::from(npu.cols) * 4)
                && npu.accumulator.0 <= MAX_SCRATCHPAD,
            "npu.accumulator",
            || {
                format!(
                    "expected room for rows x cols of 4-byte sums ({tile} B) at least, 32 MiB at most, in whole rows, \
                     found {} B",
                    npu.accumulator.0
                )
            },
        );
        self.require((64..=1 << 20).contains(&npu.dma_outstanding.0), "npu.dma-outstanding", || {
            format!("expected 64 B to 1 MiB, found {} B", npu.dma_outstanding.0)
        });
        let mut formats: Vec<NumberFormat> = npu.formats.iter().map(|f| format_of(*f)).collect();
        formats.sort_unstable();
        let listed = formats.len();
        formats.dedup();
        self.require(listed > 0 && formats.len() == listed, "npu.formats", || {
            "expected at least one format, each once".to_owned()
        });
    }

    fn dram(&mut self, raw: &RawSoc) {
        let dram = &raw.dram;
        let standards: Vec<&str> = standard_names().collect();
        if !standards.contains(&dram.standard.as_str()) {
            let message = format!("unknown memory standard `{}`", dram.standard);
            self.fail("dram.standard", message, suggestion(&dram.standard, &standards));
        }
        self.power_of_two("dram.channels", dram.channels.into(), 1, 16);
        let frequency_scale = dram.frequency_scale.0;
        self.require((50..=1500).contains(&frequency_scale), "dram.frequency-scale", || {
            format!("expected from 0.05 to 1.5, found {frequency_scale} thousandths")
        });
        self.power_of_two("dram.interleave", dram.interleave.0, 64, 1 << 20);
        let grant = dram.grant.0;
        self.require(grant.is_multiple_of(64) && (64..=1 << 20).contains(&grant), "dram.grant", || {
            format!("expected a multiple of 64 B up to 1 MiB, found {grant} B")
        });
        let capacity = dram.capacity.0;
        let slice = u64::from(dram.channels.max(1)).saturating_mul(dram.interleave.0.max(1));
        self.require(
            (256 << 20..=64 << 30).contains(&capacity) && capacity.is_multiple_of(slice),
            "dram.capacity",
            || format!("expected 256 MiB to 64 GiB, a multiple of channels x interleave, found {capacity} B"),
        );
        self.require(!dram.address_map.is_empty(), "dram.address-map", || "expected a name".to_owned());
    }

    fn slc(&mut self, slc: &RawSlc) {
        self.range("slc.associativity", slc.associativity.into(), 1, 64);
        self.range("slc.latency", slc.latency.into(), 1, 1000);
        self.power_of_two("slc.width", slc.width.0, 8, 4096);
        let ways = u64::from(slc.associativity);
        self.range("slc.ways.cpu", slc.ways.cpu.into(), 0, ways);
        self.range("slc.ways.npu", slc.ways.npu.into(), 0, ways);
        let (size, way) = (slc.size.0, ways.saturating_mul(SECTOR_BYTES));
        let sets = size.checked_div(way).unwrap_or(0);
        self.require(
            sets.is_power_of_two() && sets.checked_mul(way) == Some(size) && size <= 1 << 30,
            "slc.size",
            || {
                format!(
                    "expected associativity x {SECTOR_BYTES} B x a power of two of sets up to 1 GiB, found {size} \
                     bytes in {ways} ways"
                )
            },
        );
    }

    fn fabric(&mut self, raw: &RawSoc) {
        let f = &raw.fabric;
        self.frequency("fabric.frequency", f.frequency.0);
        self.power_of_two("fabric.width", f.width.0, 8, 1024);
        self.power_of_two("fabric.npu-port", f.npu_port.0, 8, 1024);
        self.power_of_two("fabric.cpu-port", f.cpu_port.0, 8, 1024);
        self.range("fabric.hop-latency", f.hop_latency.into(), 1, 1000);
        self.range("fabric.hops", f.hops.into(), 1, 16);
        for (key, weight) in
            [("background", f.qos.background), ("prefetch", f.qos.prefetch), ("normal", f.qos.normal)]
        {
            self.range(&format!("fabric.qos.{key}"), weight.into(), 1, 64);
        }
        for (path, client) in [("fabric.npu.limit", &f.npu), ("fabric.cpu.limit", &f.cpu)] {
            let limit = client.as_ref().map_or(1_000_000_000, |c| c.limit.0);
            self.require((100_000_000..=1_000_000_000_000).contains(&limit), path, || {
                format!("expected from 0.1 GB/s to 1000 GB/s, found {limit} B/s")
            });
        }
        let noise = raw.traffic.as_ref().map_or(1, |t| t.cpu_noise.0);
        self.require((1..=950).contains(&noise), "traffic.cpu-noise", || {
            format!("expected from 0.001 to 0.95 of the peak, found {noise} thousandths")
        });
    }

    fn rest(&mut self, raw: &RawSoc) {
        let clusters: Vec<&str> = raw.cpu.keys().map(String::as_str).collect();
        if !raw.cpu.contains_key(&raw.boot.cluster) {
            let message = format!("no cluster `{}`", raw.boot.cluster);
            self.fail("boot.cluster", message, suggestion(&raw.boot.cluster, &clusters));
        }
        self.require((32_768..=1_000_000_000).contains(&raw.boot.timebase.0), "boot.timebase", || {
            format!("expected from 32768 Hz to 1 GHz, found {} Hz", raw.boot.timebase.0)
        });
        let harts: u64 = raw.cpu.values().map(|cluster| u64::from(cluster.count)).sum();
        self.require(harts <= MAX_HARTS, "cpu", || {
            format!("expected at most {MAX_HARTS} cores over all clusters, found {harts}")
        });
        if let Some(l3) = &raw.l3 {
            self.frequency("l3.frequency", l3.frequency.0);
            self.cache("l3", &l3_cache(l3));
        }
        if let Some(slc) = &raw.slc {
            self.slc(slc);
        }
        self.fabric(raw);
        let tables: Vec<&str> = energy_table_names().collect();
        if !tables.contains(&raw.power.energy_table.as_str()) {
            let message = format!("no energy table `{}`", raw.power.energy_table);
            self.fail("power.energy-table", message, suggestion(&raw.power.energy_table, &tables));
        }
        self.voltage("power.fabric-voltage", raw.power.fabric_voltage.0);
        self.require(raw.power.temperature.0 <= 125_000, "power.temperature", || {
            format!("expected at most 125 C, found {} thousandths", raw.power.temperature.0)
        });
    }
}

/// Checks every relation, then builds the integer configuration.
pub(crate) fn validate(raw: &RawSoc, entries: &Entries) -> Result<SocConfig, ConfigError> {
    let mut checks = Checks { entries, problems: Vec::new() };
    for (name, cluster) in &raw.cpu {
        checks.cluster(&format!("cpu.{name}"), cluster);
    }
    checks.npu(&raw.npu);
    checks.dram(raw);
    checks.rest(raw);
    if !checks.problems.is_empty() {
        return Err(ConfigError { problems: checks.problems });
    }
    Ok(build(raw))
}

/// A value whose range was checked, in 32 bits.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).expect("the range was checked before the configuration is built")
}

fn l3_cache(l3: &RawL3) -> RawCache {
    RawCache { size: l3.size, ways: l3.ways, line: l3.line, latency: l3.latency }
}

fn cache_of(raw: &RawCache) -> CacheConfig {
    CacheConfig {
        bytes: raw.size.0,
        ways: raw.ways,
        line_bytes: narrow(raw.line.0),
        latency_cycles: raw.latency,
    }
}

fn format_of(raw: RawFormat) -> NumberFormat {
    match raw {
        RawFormat::Int4 => NumberFormat::Int4,
        RawFormat::Uint4 => NumberFormat::Uint4,
        RawFormat::Int8 => NumberFormat::Int8,
        RawFormat::Int16 => NumberFormat::Int16,
        RawFormat::Fp16 => NumberFormat::Fp16,
        RawFormat::Bf16 => NumberFormat::Bf16,
        RawFormat::Fp8 => NumberFormat::Fp8,
        RawFormat::Mxfp4 => NumberFormat::Mxfp4,
    }
}

fn core_of(cluster: &RawCluster) -> CoreConfig {
    let core = cluster.in_order.as_ref().expect("presence was checked");
    CoreConfig::InOrder(InOrderConfig {
        issue_width: core.issue_width,
        memory_ports: core.memory_ports,
        mul_cycles: core.mul,
        div_cycles: core.div,
        fp_cycles: core.fp,
        fma_cycles: core.fma,
        fp_div_cycles: core.fp_div,
        atomic_cycles: core.atomic,
        mispredict_penalty_cycles: core.mispredict_penalty,
        serialise_cycles: core.serialise,
        predictor_entries: core.predictor_entries,
        return_stack_entries: core.return_stack_entries,
        prefetch_lines: core.prefetch_lines,
        miss_registers: core.miss_registers,
    })
}

fn cluster_of(cluster: &RawCluster) -> ClusterConfig {
    ClusterConfig {
        count: cluster.count,
        frequency_hz: cluster.frequency.0,
        voltage_mv: narrow(cluster.voltage.0),
        energy_class: match cluster.energy_class {
            RawEnergyClass::Little => EnergyClass::Little,
            RawEnergyClass::Mid => EnergyClass::Mid,
            RawEnergyClass::Big => EnergyClass::Big,
            RawEnergyClass::Prime => EnergyClass::Prime,
        },
        core: core_of(cluster),
        l1i: cache_of(&cluster.l1i),
        l1d: cache_of(&cluster.l1d),
        l2: cache_of(&cluster.l2),
    }
}

fn npu_of(npu: &RawNpu) -> NpuConfig {
    NpuConfig {
        driver: npu.driver == Switch::On,
        cores: npu.cores,
        rows: npu.rows,
        cols: npu.cols,
        frequency_hz: npu.frequency.0,
        voltage_mv: narrow(npu.voltage.0),
        vmin_mv: narrow(npu.minimum_voltage.0),
        scratchpad_bytes: npu.scratchpad.0,
        accumulator_bytes: npu.accumulator.0,
        scratchpad_banks: npu.scratchpad_banks,
        scratchpad_bank_bytes_per_cycle: narrow(npu.scratchpad_bank_width.0),
        accumulator_ports: npu.accumulator_ports,
        dma_in_channels: npu.dma_in_channels,
        dma_out_channels: npu.dma_out_channels,
        dma_bytes_per_cycle: narrow(npu.dma_width.0),
        dma_outstanding_bytes: npu.dma_outstanding.0,
        vector_lanes_fp32: npu.vector_lanes,
        gemv_bytes_per_cycle: narrow(npu.gemv_width.0),
        fifo_depth: npu.fifo_depth,
        decode_cycles: npu.decode,
        doorbell_cycles: npu.doorbell,
        dma_setup_cycles: npu.dma_setup,
        formats: npu.formats.iter().map(|f| format_of(*f)).collect(),
    }
}

fn build(raw: &RawSoc) -> SocConfig {
    let cpu: BTreeMap<_, _> =
        raw.cpu.iter().map(|(name, cluster)| (name.clone(), cluster_of(cluster))).collect();
    SocConfig {
        name: raw.name.clone(),
        boot: BootConfig { cluster: raw.boot.cluster.clone(), timebase_hz: raw.boot.timebase.0 },
        cpu,
        l3: raw
            .l3
            .as_ref()
            .map(|l3| L3Config { frequency_hz: l3.frequency.0, cache: cache_of(&l3_cache(l3)) }),
        slc: raw.slc.as_ref().map(|slc| SlcConfig {
            bytes: slc.size.0,
            ways: slc.associativity,
            latency_cycles: slc.latency,
            bytes_per_cycle: narrow(slc.width.0),
            cpu_ways: slc.ways.cpu,
            npu_ways: slc.ways.npu,
        }),
        npu: npu_of(&raw.npu),
        fabric: FabricConfig {
            frequency_hz: raw.fabric.frequency.0,
            bytes_per_cycle: narrow(raw.fabric.width.0),
            npu_port_bytes_per_cycle: narrow(raw.fabric.npu_port.0),
            cpu_port_bytes_per_cycle: narrow(raw.fabric.cpu_port.0),
            hop_latency_cycles: raw.fabric.hop_latency,
            hops: raw.fabric.hops,
            qos_weights: [raw.fabric.qos.background, raw.fabric.qos.prefetch, raw.fabric.qos.normal],
            npu_limit_bytes_per_s: raw.fabric.npu.as_ref().map(|c| c.limit.0),
            cpu_limit_bytes_per_s: raw.fabric.cpu.as_ref().map(|c| c.limit.0),
        },
        traffic: raw.traffic.as_ref().map(|t| TrafficConfig {
            cpu_noise_permille: narrow(t.cpu_noise.0),
            cpu_noise_class: match t.cpu_noise_class {
                Some(RawClass::Background) => QosClass::Background,
                Some(RawClass::Prefetch) => QosClass::Prefetch,
                Some(RawClass::Normal) => QosClass::Normal,
                Some(RawClass::Urgent) | None => QosClass::Urgent,
            },
        }),
        dram: DramConfig {
            standard: raw.dram.standard.clone(),
            channels: raw.dram.channels,
            capacity_bytes: raw.dram.capacity.0,
            frequency_scale_permille: narrow(raw.dram.frequency_scale.0),
            interleave_bytes: raw.dram.interleave.0,
            grant_bytes: raw.dram.grant.0,
            address_map: raw.dram.address_map.clone(),
        },
        power: PowerConfig {
            energy_table: raw.power.energy_table.clone(),
            leakage: raw.power.leakage == Switch::On,
            fabric_mv: narrow(raw.power.fabric_voltage.0),
            temperature_mc: narrow(raw.power.temperature.0),
        },
    }
}
