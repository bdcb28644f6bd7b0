//! A standard as a table: which command may follow which, where, after how many CK; and a device that keeps to it.
//!
//! ```text
//! Timings (rows of a preset) ─► constraints(): from, to, scope, cycles, rows ─► Device: issue() and legal()
//! ```
//!
//! Models: minimum distances between commands of one channel. Does not model: states of banks, which are the
//! controller's. Source: JESD209-5B as Ramulator 2.1's LPDDR5 lists it; the citation of each row is in its preset.

use super::{BANKS, GROUPS, Timings};

/// A command of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// First half of an activation; all of an activation's timing counts from it.
    Act1,
    /// Read.
    Rd,
    /// Write.
    Wr,
    /// Read, then close the row.
    RdA,
    /// Write, then close the row.
    WrA,
    /// Close a bank's row.
    Pre,
    /// Close all rows.
    PreAll,
    /// Refresh all banks.
    Ref,
    /// Refresh one bank.
    RefBank,
    /// Enter power-down.
    PdEntry,
    /// Leave power-down.
    PdExit,
    /// Enter self-refresh.
    SrEntry,
    /// Leave self-refresh.
    SrExit,
}

/// Number of commands.
pub const COMMANDS: usize = 13;

/// Where the second command lies, seen from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The same bank.
    Bank,
    /// The same bank group.
    SameGroup,
    /// Another bank group.
    OtherGroup,
    /// Anywhere in the channel.
    Channel,
}

/// A row of the table: `to` may follow `from` after `cycles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// First command.
    pub from: Command,
    /// Second command.
    pub to: Command,
    /// Where the second lies.
    pub scope: Scope,
    /// CKs at least.
    pub cycles: u64,
    /// Which `from` counts: the last, or the n-th last (nFAW).
    pub window: usize,
    /// The one shorter distance that is legal too: BL32 bursts of two bank groups mesh.
    pub mesh: Option<u64>,
    /// Rows of the preset the number is made of.
    pub rows: &'static [&'static str],
}

const fn row(
    from: Command,
    to: Command,
    scope: Scope,
    cycles: u64,
    rows: &'static [&'static str],
) -> Constraint {
    Constraint { from, to, scope, cycles, window: 1, mesh: None, rows }
}

/// All constraints of a channel with these timings.
#[must_use]
pub fn constraints(t: &Timings) -> Vec<Constraint> {
    let mut out = activation(t);
    out.extend(columns(t));
    out.extend(closing(t));
    out.extend(refreshing(t));
    out.extend(sleeping(t));
    out
}

fn activation(t: &Timings) -> Vec<Constraint> {
    use Command::{Act1, Pre, PreAll, Rd, Wr};
    use Scope::{Bank, Channel};
    vec![
        row(Act1, Rd, Bank, t.rcd, &["nRCD"]),
        row(Act1, Wr, Bank, t.rcd_w, &["nRCDw"]),
        row(Act1, Pre, Bank, t.ras, &["nRAS"]),
        row(Act1, PreAll, Channel, t.ras, &["nRAS"]),
        row(Act1, Act1, Bank, t.rc, &["nRC"]),
        row(Act1, Act1, Channel, t.rrd, &["nRRD"]),
        Constraint { window: 4, ..row(Act1, Act1, Channel, t.faw, &["nFAW"]) },
    ]
}

fn columns(t: &Timings) -> Vec<Constraint> {
    use Command::{Rd, RdA, Wr, WrA};
    use Scope::{Channel, OtherGroup, SameGroup};
    let mesh = (t.interleave > 0).then_some(t.interleave);
    let mut out = Vec::new();
    for (from, to) in [(Rd, Rd), (RdA, Rd), (Wr, Wr), (WrA, Wr)] {
        out.push(Constraint { mesh, ..row(from, to, OtherGroup, t.ccd_s, &["nCCD_S"]) });
        out.push(row(from, to, SameGroup, t.ccd_l, &["nCCD_L"]));
    }
    for from in [Rd, RdA] {
        out.push(row(from, Wr, Channel, t.read_to_write(), &["nCL", "nBL_min", "nCWL"]));
    }
    for from in [Wr, WrA] {
        let other = t.write_to_read_other();
        out.push(row(from, Rd, OtherGroup, other, &["nCWL", "nBL_min", "nWTR_S"]));
        out.push(row(from, Rd, SameGroup, t.write_to_read_same(), &["nCWL", "nBL_max", "nWTR_L"]));
    }
    out
}

fn closing(t: &Timings) -> Vec<Constraint> {
    use Command::{Act1, Pre, PreAll, Rd, RdA, Wr, WrA};
    use Scope::{Bank, Channel};
    const WRITE: &[&str] = &["nCWL", "nBL_min", "nWR"];
    let write = t.write_to_precharge();
    let mut out = vec![
        row(Rd, Pre, Bank, t.rtp, &["nRTP"]),
        row(Rd, PreAll, Channel, t.rtp, &["nRTP"]),
        row(Wr, Pre, Bank, write, WRITE),
        row(Wr, PreAll, Channel, write, WRITE),
        row(Pre, Act1, Bank, t.rp_pb, &["nRPpb"]),
        row(PreAll, Act1, Channel, t.rp_ab, &["nRPab"]),
        row(RdA, Act1, Bank, t.rtp + t.rp_pb, &["nRTP", "nRPpb"]),
        row(WrA, Act1, Bank, write + t.rp_pb, &["nCWL", "nBL_min", "nWR", "nRPpb"]),
    ];
    for from in [Pre, PreAll] {
        for to in [Pre, PreAll] {
            out.push(row(from, to, Channel, t.ppd, &["nPPD"]));
        }
    }
    out
}

fn refreshing(t: &Timings) -> Vec<Constraint> {
    use Command::{Act1, Pre, PreAll, RdA, Ref, RefBank, WrA};
    use Scope::{Bank, Channel};
    const WRITE: &[&str] = &["nCWL", "nBL_min", "nWR", "nRPpb"];
    let (read, write) = (t.rtp + t.rp_pb, t.write_to_precharge() + t.rp_pb);
    vec![
        // The reference waits nRPpb after PREab too.
        row(Pre, Ref, Channel, t.rp_pb, &["nRPpb"]),
        row(PreAll, Ref, Channel, t.rp_pb, &["nRPpb"]),
        row(Act1, Ref, Channel, t.rc, &["nRC"]),
        row(RdA, Ref, Channel, read, &["nRTP", "nRPpb"]),
        row(WrA, Ref, Channel, write, WRITE),
        row(Ref, Ref, Channel, t.rfc_ab, &["nRFCab"]),
        row(Ref, Act1, Channel, t.rfc_ab, &["nRFCab"]),
        row(Ref, RefBank, Channel, t.rfc_ab, &["nRFCab"]),
        row(Act1, RefBank, Bank, t.rc, &["nRC"]),
        row(Pre, RefBank, Bank, t.rp_pb, &["nRPpb"]),
        row(PreAll, RefBank, Channel, t.rp_pb, &["nRPpb"]),
        row(RdA, RefBank, Bank, read, &["nRTP", "nRPpb"]),
        row(WrA, RefBank, Bank, write, WRITE),
        row(RefBank, RefBank, Channel, t.pbr2pbr, &["npbR2pbR"]),
        row(RefBank, RefBank, Bank, t.rfc_pb, &["nRFCpb"]),
        row(RefBank, Ref, Channel, t.rfc_pb, &["nRFCpb"]),
        row(RefBank, Act1, Channel, t.pbr2act, &["npbR2act"]),
        row(RefBank, Act1, Bank, t.rfc_pb, &["nRFCpb"]),
    ]
}

fn sleeping(t: &Timings) -> Vec<Constraint> {
    use Command::{Act1, PdEntry, PdExit, PreAll, Rd, RdA, Ref, RefBank, SrEntry, SrExit, Wr, WrA};
    use Scope::Channel;
    const WRITE: &[&str] = &["nCWL", "nBL_min", "nWR"];
    let mut out = vec![
        row(PdEntry, PdExit, Channel, t.cspd, &["nCSPD"]),
        row(SrEntry, SrExit, Channel, t.sr, &["nSR"]),
        // All rows are closed before an entry, so nothing else can follow an exit.
        row(PreAll, SrEntry, Channel, t.rp_ab, &["nRPab"]),
        row(Ref, SrEntry, Channel, t.rfc_ab, &["nRFCab"]),
        row(RefBank, SrEntry, Channel, t.rfc_pb, &["nRFCpb"]),
    ];
    for to in [Act1, Ref, RefBank] {
        out.push(row(PdExit, to, Channel, t.xp, &["nXP"]));
        out.push(row(SrExit, to, Channel, t.xsr, &["nXSR"]));
    }
    for from in [Rd, RdA] {
        out.push(row(from, PdEntry, Channel, t.read_latency() + 1, &["nCL", "nBL_min"]));
    }
    for from in [Wr, WrA] {
        out.push(row(from, PdEntry, Channel, t.write_to_precharge() + 1, WRITE));
    }
    out
}

/// A channel's memory of past commands, against which the table is asked.
#[derive(Clone, Debug)]
pub struct Device {
    /// The table, by second command.
    by_second: [Vec<Constraint>; COMMANDS],
    /// CK after the last issue, by command and bank, 0 for never; then by group; then the last four anywhere.
    bank: [[u64; BANKS]; COMMANDS],
    group: [[u64; GROUPS]; COMMANDS],
    any: [[u64; 4]; COMMANDS],
}

impl Device {
    /// A device that has seen no command.
    #[must_use]
    pub fn new(t: &Timings) -> Self {
        let mut by_second: [Vec<Constraint>; COMMANDS] = std::array::from_fn(|_| Vec::new());
        for c in constraints(t) {
            by_second[c.to as usize].push(c);
        }
        let (bank, group, any) = ([[0; BANKS]; COMMANDS], [[0; GROUPS]; COMMANDS], [[0; 4]; COMMANDS]);
        Self { by_second, bank, group, any }
    }

    /// Notes a command; `bank` does not matter for those of the whole channel.
    pub fn issue(&mut self, command: Command, bank: usize, now: u64) {
        let c = command as usize;
        self.bank[c][bank] = now + 1;
        self.group[c][bank / 4] = now + 1;
        self.any[c].rotate_right(1);
        self.any[c][0] = now + 1;
    }

    /// Whether the table lets `command` issue now. RdA and WrA may issue when Rd and Wr may.
    #[must_use]
    pub fn legal(&self, command: Command, bank: usize, now: u64) -> bool {
        let second = match command {
            Command::RdA => Command::Rd,
            Command::WrA => Command::Wr,
            other => other,
        };
        self.by_second[second as usize].iter().all(|c| self.obeys(c, bank, now))
    }

    fn obeys(&self, c: &Constraint, bank: usize, now: u64) -> bool {
        let far = |last: u64| {
            last == 0 || now + 1 >= last + c.cycles || c.mesh.is_some_and(|m| now + 1 == last + m)
        };
        let (from, group) = (c.from as usize, bank / 4);
        match c.scope {
            Scope::Bank => far(self.bank[from][bank]),
            Scope::SameGroup => far(self.group[from][group]),
            Scope::OtherGroup => (0..GROUPS).filter(|&g| g != group).all(|g| far(self.group[from][g])),
            Scope::Channel => far(self.any[from][c.window - 1]),
        }
    }
}
