//! Events of the PMU: bits 7:0 of a select are the event, bits 11:8 the unit where the event has one.

use super::ops::coded;

coded!(
    /// What a counter counts. Units: 0..3 DMA channels, 4 MX, 5 VP, 6 sequencer.
    PmuEvent {
    None = 0x00 "none" "Nothing: the counter stands at 0.",
    Cycles = 0x01 "cycles" "Cycles of the NPU clock.",
    Commands = 0x02 "commands" "Commands the unit ended; of the sequencer, all it dispatched.",
    Retired = 0x03 "retired" "Completion records written.",
    Active = 0x10 "active" "Cycles the unit did what it is for.",
    FillDrain = 0x11 "fill_drain" "Cycles of pipeline start, fill and drain.",
    Operand = 0x12 "operand" "Cycles that waited for data a DMA channel loads.",
    Dependency = 0x13 "dependency" "Cycles that waited for another engine.",
    Output = 0x14 "output" "Cycles that waited for a buffer being written out.",
    Imbalance = 0x15 "imbalance" "Cycles that waited for other cores.",
    Dram = 0x16 "dram" "Cycles of transfers that memory serves slower than the channel could take.",
    CommandFetch = 0x17 "command_fetch" "Cycles that waited for command words.",
    Idle = 0x18 "idle" "Cycles without work.",
    BankConflict = 0x19 "bank_conflict" "Cycles lost to other engines in scratchpad banks and accumulator ports.",
    PowerWake = 0x1A "power_wake" "Cycles that waited for a gated engine to wake.",
    PortAccepted = 0x20 "port_accepted" "Transfers the unit's memory port accepted.",
    PortCompleted = 0x21 "port_completed" "Transfers that ended.",
    PortBeats = 0x22 "port_beats" "Beats of the channel's width they moved.",
    PortStalls = 0x23 "port_stalls" "Cycles a transfer was under way beyond its beats.",
    Latency32 = 0x30 "latency_32" "Transfers that took up to 32 cycles.",
    Latency64 = 0x31 "latency_64" "Up to 64 cycles.",
    Latency128 = 0x32 "latency_128" "Up to 128 cycles.",
    Latency256 = 0x33 "latency_256" "Up to 256 cycles.",
    Latency512 = 0x34 "latency_512" "Up to 512 cycles.",
    Latency1024 = 0x35 "latency_1024" "Up to 1024 cycles.",
    LatencyMore = 0x36 "latency_more" "Longer.",
    Switches = 0x40 "switches" "Times the core went from one queue to another.",
    SavedBytes = 0x41 "saved_bytes" "Bytes saved for preempted queues.",
    RestoredBytes = 0x42 "restored_bytes" "Bytes restored.",
    SaveCycles = 0x43 "save_cycles" "Cycles saving and restoring took.",
});

/// Units a select can name.
pub const UNITS: u64 = 7;
/// The unit that is the sequencer.
pub const SEQUENCER: u64 = 6;

/// A select, taken apart; `None` if it names no event or no unit.
#[must_use]
pub const fn select(value: u64) -> Option<(PmuEvent, u64)> {
    let unit = value >> 8;
    match PmuEvent::from_code(value & 0xFF) {
        Some(event) if unit < UNITS => Some((event, unit)),
        _ => None,
    }
}
