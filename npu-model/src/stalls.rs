//! Where an engine's cycles went: every cycle has exactly one cause, and the causes sum to the cycles that passed.

/// Why an engine-cycle was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cause {
    /// Doing what it is for.
    Active,
    /// Pipeline start, fill and drain of a command.
    FillDrain,
    /// Waiting for data a DMA channel loads.
    Operand,
    /// Waiting for another engine's result.
    Dependency,
    /// Waiting for a buffer that is being written out.
    Output,
    /// Waiting for other cores: at a barrier, or for their posts of a cluster semaphore.
    Imbalance,
    /// A transfer in progress that memory serves slower than the channel could take.
    Dram,
    /// Waiting for the sequencer, which waits for command words.
    Command,
    /// The queue has nothing for it.
    Idle,
    /// Others used the scratchpad banks or accumulator ports it needs.
    BankConflict,
    /// Its supply or clock was gated and had to come back.
    PowerWake,
    /// The DMA channel itself is the bound: bytes it may have in flight, the decoder it shares.
    DmaBandwidth,
    /// Other cores' transfers occupy the ring between the cores.
    Fabric,
}

impl Cause {
    /// Every cause, in report order.
    pub const ALL: &'static [Self] = &[
        Self::Active,
        Self::FillDrain,
        Self::Operand,
        Self::Dependency,
        Self::Output,
        Self::Imbalance,
        Self::Dram,
        Self::Command,
        Self::Idle,
        Self::BankConflict,
        Self::PowerWake,
        Self::DmaBandwidth,
        Self::Fabric,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::FillDrain => "fill_drain",
            Self::Operand => "operand",
            Self::Dependency => "dependency",
            Self::Output => "output",
            Self::Imbalance => "imbalance",
            Self::Dram => "dram",
            Self::Command => "command_fetch",
            Self::Idle => "idle",
            Self::BankConflict => "bank_conflict",
            Self::PowerWake => "power_wake",
            Self::DmaBandwidth => "dma_bandwidth",
            Self::Fabric => "fabric",
        }
    }
}

/// Attributes the cycles of one engine.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    upto: u64,
    spent: [u64; Cause::ALL.len()],
}

impl Meter {
    /// A meter that starts at cycle `from`.
    #[must_use]
    pub fn starting(from: u64) -> Self {
        Self { upto: from, ..Self::default() }
    }

    /// Attributes everything up to cycle `to` that is not yet attributed.
    pub fn until(&mut self, to: u64, cause: Cause) {
        if to > self.upto {
            self.spent[cause as usize] += to - self.upto;
            self.upto = to;
        }
    }

    /// First cycle not yet attributed.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.upto
    }

    /// Cycles by cause, in the order of [`Cause::ALL`].
    #[must_use]
    pub const fn spent(&self) -> &[u64; Cause::ALL.len()] {
        &self.spent
    }

    /// Sum over causes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.spent.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_sum_to_the_cycles_that_passed() {
        let mut m = Meter::starting(10);
        m.until(14, Cause::Idle);
        m.until(12, Cause::Active);
        m.until(20, Cause::Operand);
        assert_eq!((m.total(), m.position()), (10, 20));
        assert_eq!(m.spent()[Cause::Active as usize], 0);
    }
}
