//! What the cluster exchanges with the chip around it: events, transfers, observations.

use sim_kernel::{EventCode, Time};

use crate::activity::Activity;
use crate::core::{ENGINES, Issued};
use crate::memory::Memory;
use crate::stalls::Cause;

/// What happens to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NpuEvent {
    /// The sequencer goes on.
    Sequence,
    /// An engine looks at its FIFO.
    Kick(u8),
    /// An engine's command ends.
    Done(u8),
    /// Another core's post arrives: queue, semaphore, amount.
    Post(u8, u8, u8),
    /// A queue's watchdog looks.
    Watchdog(u8),
}

impl EventCode for NpuEvent {
    fn code(&self) -> u64 {
        match *self {
            Self::Sequence => 1,
            Self::Kick(e) => 0x100 | u64::from(e),
            Self::Done(e) => 0x200 | u64::from(e),
            Self::Watchdog(q) => 0x400 | u64::from(q),
            Self::Post(q, id, n) => 0x1_0000 | u64::from(q) << 24 | u64::from(id) << 8 | u64::from(n),
        }
    }
}

/// Who a memory transfer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A DMA channel.
    Channel(u8),
    /// The sequencer's command fetch.
    Fetch,
    /// What a control command of this queue reads.
    Control(u8),
    /// What the sequencer writes and nobody waits for.
    Posted,
    /// A context on its way to or from its save area.
    Context,
}

/// A memory transfer an NPU core asks for.
#[derive(Clone, Copy, Debug)]
pub struct FlowRequest<'a> {
    /// Core.
    pub core: usize,
    /// Unit within the core.
    pub requester: Requester,
    /// Contiguous (address, bytes) runs.
    pub runs: &'a [(u64, u64)],
    /// Write to memory.
    pub write: bool,
    /// DMA QoS code.
    pub qos: u64,
    /// System-cache hint code.
    pub slc: u64,
    /// Operation of the model it belongs to, as the command's tag codes it.
    pub tag: u64,
    /// Most bytes a second the channel can move.
    pub cap: u64,
}

/// What the cluster needs from the chip around it.
pub trait Outside: Memory {
    /// Schedules an event of a core.
    fn schedule(&mut self, at: Time, core: usize, event: NpuEvent);
    /// Starts a transfer now; its end comes back through [`super::Cluster::flow_done`].
    fn start_flow(&mut self, at: Time, flow: &FlowRequest);
    /// Sets a core's interrupt line.
    fn interrupt(&mut self, core: usize, level: bool);
    /// A command executed on a core's engine.
    fn executed(&mut self, _core: usize, _engine: usize, _what: &Executed<'_>) {}
    /// A core's sequencer was active from `start` to `end`, for `cycles` cycles and this many commands.
    fn sequenced(&mut self, _core: usize, _start: Time, _end: Time, _cycles: u64, _commands: u64) {}
}

/// A command that ended, and where its engine's cycles went since the one before.
#[derive(Clone, Copy, Debug)]
pub struct Executed<'a> {
    /// The command.
    pub issued: &'a Issued,
    /// First instant of the active part.
    pub start: Time,
    /// First instant after it.
    pub end: Time,
    /// Cycles of the active part.
    pub active: u64,
    /// Other cycles of the command's own time, and their cause: before the active part on MX and VP, else after it.
    pub rest: (Cause, u64),
    /// Cycles the engine waited before it and in it, by cause.
    pub waits: [(Cause, u64); WAITS],
    /// What it did.
    pub activity: &'a Activity,
}

/// Kinds of waiting an engine tells apart around a command.
pub const WAITS: usize = 8;

/// Constants of the control path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTiming {
    /// Cycles from a doorbell write to the sequencer's first fetch.
    pub doorbell_cycles: u64,
    /// Cycles a DMA channel needs to set a transfer up.
    pub dma_setup_cycles: u64,
    /// Cycles a copy or a post needs to reach another core.
    pub hop_cycles: u64,
    /// Latency of memory as a DMA channel sees it; with its outstanding bytes it bounds the channel's rate.
    pub memory_latency: Time,
}

/// Name of the sequencer among the engines.
pub const SEQUENCER: &str = "sq";
/// Names of the other engines, by number.
pub const ENGINE_NAMES: [&str; ENGINES] = ["dma0", "dma1", "dma2", "dma3", "mx", "vp"];
