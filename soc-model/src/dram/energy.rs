//! What DRAM commands and states cost, as data for the energy ledger.
//!
//! Models: per-command energies, standby and power-down power, PHY and controller energy per burst.
//! Does not model: voltage scaling of the device rails, temperature-dependent refresh power.
//! Source: Micron Y52P LPDDR5X 16 Gb x16 datasheet Rev H 03/2025, Table 18 currents (7500 MT/s column, maxima),
//! turned into energies per event in the manner of Micron TN-41-01 and scaled to typical parts by the factors
//! published with VAMPIRE (read 0.6, write and ACT 0.5, REF 0.83, standby 0.57).

use super::{Commands, MemoryStats, States};
use sim_kernel::Time;

/// How far a coefficient can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccuracyClass {
    /// Derived from datasheet figures; within a factor of about 1.3.
    B,
    /// An estimate; within a factor of about 2.
    C,
}

/// One row of the energy table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnergyCoefficient {
    /// Action, snake case.
    pub action: &'static str,
    /// Attojoules each.
    pub attojoules: u64,
    /// Where the number comes from.
    pub source: &'static str,
    /// How far it can be trusted.
    pub class: AccuracyClass,
}

/// Actions that cost energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DramAction {
    /// A 32-byte RD burst in the device, its pins included.
    ReadBurst,
    /// A 32-byte WR burst in the device.
    WriteBurst,
    /// Opening and closing a row.
    ActivatePrecharge,
    /// One REFab of one channel.
    RefreshAllBank,
    /// One REFpb.
    RefreshBank,
    /// A nanosecond of one channel's device in active standby.
    ActiveStandbyNs,
    /// A nanosecond of one channel's device with all banks precharged.
    PrechargedStandbyNs,
    /// A nanosecond of one channel's device in power-down.
    PowerDownNs,
    /// A nanosecond of one channel's device in self-refresh, its refreshes included.
    SelfRefreshNs,
    /// The SoC's PHY and controller for one 32-byte burst.
    PhyBurst,
}

const TYPICAL: &str =
    "Micron Y52P LPDDR5X 16 Gb datasheet Rev H Table 18, scaled to typical (VAMPIRE factors)";

impl DramAction {
    /// All actions, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::ReadBurst,
        Self::WriteBurst,
        Self::ActivatePrecharge,
        Self::RefreshAllBank,
        Self::RefreshBank,
        Self::ActiveStandbyNs,
        Self::PrechargedStandbyNs,
        Self::PowerDownNs,
        Self::SelfRefreshNs,
        Self::PhyBurst,
    ];

    /// The action's row. A burst is 256 bits; a milliwatt is 1,000,000 attojoules a nanosecond.
    #[must_use]
    pub const fn coefficient(self) -> EnergyCoefficient {
        const PJ: u64 = 1_000_000;
        let (action, attojoules, source, class) = match self {
            // IDD4R less standby on VDD2H, VDD1 and VDDQ: 3.75 pJ/bit at maxima, 2.4 typical.
            Self::ReadBurst => ("read_burst", 614 * PJ, TYPICAL, AccuracyClass::B),
            // IDD4W: 2.17 pJ/bit at maxima, 1.1 typical.
            Self::WriteBurst => ("write_burst", 282 * PJ, TYPICAL, AccuracyClass::B),
            // IDD0 over tRC: 1.11 nJ at maxima.
            Self::ActivatePrecharge => ("activate_precharge", 560 * PJ, TYPICAL, AccuracyClass::B),
            // IDD5 over tRFCab: 51 nJ at maxima.
            Self::RefreshAllBank => ("refresh_all_bank", 42_000 * PJ, TYPICAL, AccuracyClass::B),
            // No IDD5PB is public: a sixteenth of REFab.
            Self::RefreshBank => (
                "refresh_bank",
                2_625 * PJ,
                "estimate: a sixteenth of REFab, accuracy class C",
                AccuracyClass::C,
            ),
            // IDD3N, IDD2N, IDD2P: 47, 37 and 4 mW at maxima.
            Self::ActiveStandbyNs => ("active_standby_ns", 27 * PJ, TYPICAL, AccuracyClass::B),
            Self::PrechargedStandbyNs => ("precharged_standby_ns", 21 * PJ, TYPICAL, AccuracyClass::B),
            Self::PowerDownNs => ("power_down_ns", 23 * PJ / 10, TYPICAL, AccuracyClass::B),
            // No IDD6 is public: power-down and the refreshes of 85 C at half their rate.
            Self::SelfRefreshNs => (
                "self_refresh_ns",
                77 * PJ / 10,
                "estimate: power-down plus REFab at half the rate of 85 C, accuracy class C",
                AccuracyClass::C,
            ),
            // 2 pJ/bit, the middle of 1.5 to 2.5: no measured LPDDR5X PHY is public.
            Self::PhyBurst => {
                ("phy_controller_burst", 512 * PJ, "estimate: 2 pJ/bit, accuracy class C", AccuracyClass::C)
            }
        };
        EnergyCoefficient { action, attojoules, source, class }
    }
}

/// All rows.
#[must_use]
pub fn coefficients() -> [EnergyCoefficient; 10] {
    DramAction::ALL.map(DramAction::coefficient)
}

/// Counts of one channel replayed alone: its commands, and nanoseconds in each state. `halves`: 32-byte bursts a
/// column command moves.
#[must_use]
pub fn command_counts(
    c: &Commands,
    halves: u64,
    states: &States,
    ns: impl Fn(u64) -> u64,
) -> [(DramAction, u64); 10] {
    [
        (DramAction::ReadBurst, c.reads * halves),
        (DramAction::WriteBurst, c.writes * halves),
        (DramAction::ActivatePrecharge, c.activates),
        (DramAction::RefreshAllBank, c.refreshes),
        (DramAction::RefreshBank, c.bank_refreshes),
        (DramAction::ActiveStandbyNs, ns(states.active)),
        (DramAction::PrechargedStandbyNs, ns(states.precharged)),
        (DramAction::PowerDownNs, ns(states.power_down)),
        (DramAction::SelfRefreshNs, ns(states.self_refresh)),
        (DramAction::PhyBurst, (c.reads + c.writes) * halves),
    ]
}

/// Counts of a memory system: channels with work are in active standby, the others in power-down.
#[must_use]
pub fn system_counts(s: &MemoryStats) -> [(DramAction, u64); 7] {
    let busy: Time = s.busy.iter().copied().sum();
    let powered = s.elapsed.as_ns() * s.busy.len() as u64;
    [
        (DramAction::ReadBurst, s.read_bursts),
        (DramAction::WriteBurst, s.write_bursts),
        (DramAction::ActivatePrecharge, s.activates),
        (DramAction::RefreshAllBank, s.refreshes),
        (DramAction::ActiveStandbyNs, busy.as_ns()),
        (DramAction::PowerDownNs, powered.saturating_sub(busy.as_ns())),
        (DramAction::PhyBurst, s.read_bursts + s.write_bursts),
    ]
}

/// Total of counts in attojoules.
#[must_use]
pub fn attojoules(counts: &[(DramAction, u64)]) -> u128 {
    counts.iter().map(|&(a, n)| u128::from(a.coefficient().attojoules) * u128::from(n)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaming_costs_four_to_six_picojoules_a_bit() {
        // 2.4 device + 2.0 PHY; a row of 64 bursts adds 560 pJ / 16384 bit; standby at 12 GB/s 27 mW / 96 Gb/s.
        let bursts = 375_000_000;
        let c = Commands { reads: bursts, activates: bursts / 64, refreshes: 256_000, ..Commands::default() };
        let states = States { active: 1_000_000_000, ..States::default() };
        let per_bit = attojoules(&command_counts(&c, 1, &states, |ns| ns)) / u128::from(bursts * 256);
        assert!((4_000_000..6_000_000).contains(&per_bit), "{per_bit} aJ/bit");
    }
}
