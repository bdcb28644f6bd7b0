//! `exec`: any RV64 bare-metal program on the modelled harts, with the host interface of the RISC-V tests.
//!
//! ```text
//!  ELF -> DRAM    harts <-> board (shared cache, CLINT, PLIC, console)
//!                   |
//!                tohost / fromhost: exit code, console bytes, the `write` and `exit` calls
//! ```
//!
//! Models: HTIF device 0 (exit, system-call proxy) and device 1 (console output).
//! Does not model: console input and the other proxied system calls (they answer -ENOSYS); a device tree.
//! Source: the HTIF protocol as `riscv-isa-sim` and the environments of `riscv-tests` use it.

mod board;
mod elf;

use crate::cpu::{
    CAUSES, ClassCounts, Commit, CommitRegister, CoreConfig, CoreConfigError, Hart, HartStats, InOrderConfig,
    MemoryFault, RegionError, Stop,
};
use board::Board;
use serde::{Deserialize, Serialize};
use sim_kernel::{Addr, Hertz, Time};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// DRAM of the board.
pub const DRAM_BYTES: u64 = 2 << 30;
/// How far a hart may run ahead of global time.
const QUANTUM: Time = Time::from_ns(1000);
/// Most harts the board has.
pub const MAX_HARTS: usize = 64;
/// Longest buffer a single proxied `write` may name.
const MAX_WRITE_BYTES: u64 = 16 << 20;

/// Which harts to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecCore {
    /// One instruction a cycle, 1 GHz.
    Functional,
    /// A520-class in-order cores at 1.8 GHz (the little cores of the XRING O1).
    Little,
}

/// What to run and how far.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// Core kind.
    pub core: ExecCore,
    /// Number of harts; all start at the entry, with their number in `a0`.
    pub harts: usize,
    /// Instructions of all harts together before the run is given up.
    pub max_instructions: u64,
}

/// One hart's part of the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExecHart {
    /// Number.
    pub id: usize,
    /// Retired instructions.
    pub instructions: u64,
    /// Cycles of its clock.
    pub cycles: u64,
    /// Instructions per cycle.
    pub ipc: f64,
    /// Cycles by cause; they sum to `cycles`.
    pub causes: BTreeMap<&'static str, u64>,
    /// Instructions by class; they sum to `instructions`.
    pub classes: ClassCounts,
    /// Exceptions taken.
    pub exceptions: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Wrong predictions.
    pub mispredicts: u64,
    /// L1 instruction misses.
    pub l1i_misses: u64,
    /// L1 data misses.
    pub l1d_misses: u64,
    /// L2 misses.
    pub l2_misses: u64,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExecResult {
    /// What the guest said; 0 is a pass.
    pub exit_code: i64,
    /// Instructions of all harts.
    pub instructions: u64,
    /// Cycles of the hart that ran longest.
    pub cycles: u64,
    /// Instructions of all harts per cycle.
    pub ipc: f64,
    /// Each hart.
    pub harts: Vec<ExecHart>,
    /// What the guest printed.
    #[serde(skip)]
    pub console: Vec<u8>,
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The file cannot be run.
    #[error("cannot load the ELF: {0}")]
    Elf(String),
    /// An option is out of range.
    #[error("--{option} {value}: expected {expected}")]
    Option {
        /// Which.
        option: &'static str,
        /// Value given.
        value: u64,
        /// What would do.
        expected: String,
    },
    /// The core configuration is impossible.
    #[error("core: {0:?}")]
    Core(Vec<CoreConfigError>),
    /// The board's memory map is impossible.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The image does not fit the memory.
    #[error(transparent)]
    Memory(#[from] MemoryFault),
    /// The commit log cannot be written.
    #[error("cannot write the commit log: {0}")]
    Log(#[from] std::io::Error),
    /// The guest did not finish.
    #[error("guest fault: no exit after {instructions} instructions; {harts}")]
    Hung {
        /// Instructions retired.
        instructions: u64,
        /// Where every hart is.
        harts: String,
    },
    /// Every hart sleeps and nothing can wake one.
    #[error("guest fault: deadlock: {harts}")]
    Deadlock {
        /// Who waits for whom.
        harts: String,
    },
    /// A trap handler traps into itself.
    #[error(
        "guest fault: hart {hart}: the trap handler at {pc:#x} itself traps (mcause {cause}, mtval {tval:#x})"
    )]
    Lost {
        /// Which hart.
        hart: usize,
        /// The handler.
        pc: u64,
        /// `mcause`.
        cause: u64,
        /// `mtval`.
        tval: u64,
    },
}

impl ExecError {
    /// Whether the modelled software, not the user's input, is to blame.
    #[must_use]
    pub fn is_guest_fault(&self) -> bool {
        matches!(self, Self::Hung { .. } | Self::Deadlock { .. } | Self::Lost { .. })
    }
}

/// The machine: harts, board, and the host's end of HTIF.
struct Machine {
    harts: Vec<Hart>,
    /// When each hart goes on; `None` is asleep.
    ready: Vec<Option<Time>>,
    now: Time,
    board: Board,
    image: elf::Image,
    console: Vec<u8>,
}

/// Runs an ELF to its exit.
///
/// `log` gets one line for every committed instruction, in the format of Spike's commit log.
///
/// # Errors
/// If the input is bad or the guest does not come to an exit.
pub fn run(
    file: &[u8],
    options: &ExecOptions,
    log: Option<&mut dyn std::io::Write>,
) -> Result<ExecResult, ExecError> {
    if options.harts == 0 || options.harts > MAX_HARTS {
        let expected = format!("1 to {MAX_HARTS}");
        return Err(ExecError::Option { option: "harts", value: options.harts as u64, expected });
    }
    let mut board = Board::new(options.harts)?;
    let image = elf::load(file, &mut board.memory)?;
    if let Some(tohost) = image.tohost {
        board.memory.watch(tohost);
    }
    let (config, hertz) = match options.core {
        ExecCore::Functional => (CoreConfig::Functional, 1_000_000_000),
        ExecCore::Little => (CoreConfig::InOrder(InOrderConfig::little()), 1_800_000_000),
    };
    let mut harts = Vec::new();
    for id in 0..options.harts {
        let mut hart = Hart::new(id, &config, Hertz::new(hertz)).map_err(ExecError::Core)?;
        hart.reset(image.entry, id as u64, 0);
        if log.is_some() {
            hart.record_commits();
        }
        harts.push(hart);
    }
    let ready = vec![Some(Time::ZERO); options.harts];
    let mut machine = Machine { harts, ready, now: Time::ZERO, board, image, console: Vec::new() };
    let exit_code = machine.run(options.max_instructions, log)?;
    Ok(machine.result(exit_code))
}

impl Machine {
    fn run(&mut self, limit: u64, mut log: Option<&mut dyn std::io::Write>) -> Result<i64, ExecError> {
        let mut retired = 0u64;
        loop {
            let (at, id) = self.next().ok_or_else(|| self.deadlock())?;
            self.now = at;
            if retired >= limit {
                return Err(ExecError::Hung { instructions: retired, harts: self.whereabouts() });
            }
            // A timer that is due inside the slice must not be noticed late.
            let timer = self.board.clint.deadline(at, id).filter(|&t| t > at);
            let until = timer.map_or(at + QUANTUM, |t| t.min(at + QUANTUM));
            let hart = &mut self.harts[id];
            let before = hart.instructions();
            hart.set_instruction_limit(before + (limit - retired));
            let stop = hart.run(at, until, &mut self.board);
            retired += hart.instructions() - before;
            if let Some(log) = log.as_deref_mut() {
                for commit in hart.take_commits() {
                    log.write_all(commit_line(id, &commit).as_bytes())?;
                }
            }
            self.ready[id] = match stop {
                Stop::SharedAt(t) | Stop::Quantum(t) => Some(t),
                Stop::Watch(t) => {
                    self.ready[id] = Some(t);
                    if let Some(exit_code) = self.host_interface()? {
                        return Ok(exit_code);
                    }
                    Some(t)
                }
                Stop::Limit => Some(at),
                Stop::Wfi => None,
                Stop::Lost => {
                    let (pc, cause, tval) = self.harts[id].last_exception().unwrap_or_default();
                    return Err(ExecError::Lost { hart: id, pc, cause, tval });
                }
            };
            for (from, line) in std::mem::take(&mut self.board.snoops) {
                for other in self.harts.iter_mut().enumerate().filter(|(other, _)| *other != from) {
                    other.1.invalidate_line(line);
                }
            }
        }
    }

    /// The hart that goes on first, and when; sleeping harts by what can wake them.
    fn next(&mut self) -> Option<(Time, usize)> {
        let mut first: Option<(Time, usize)> = None;
        for id in 0..self.harts.len() {
            let at = match self.ready[id] {
                Some(at) => Some(at),
                None => self.wake_time(id),
            };
            if let Some(at) = at
                && first.is_none_or(|(best, _)| at < best)
            {
                first = Some((at, id));
            }
        }
        first
    }

    fn wake_time(&mut self, id: usize) -> Option<Time> {
        const MTIE: u64 = 1 << 7;
        let lines = crate::cpu::Bus::interrupt_lines(&mut self.board, self.now, id);
        let hart = &mut self.harts[id];
        hart.set_interrupt_lines(lines.software, lines.timer, lines.external);
        if hart.wakes() {
            return Some(self.now);
        }
        if hart.enabled_interrupts() & MTIE == 0 {
            return None;
        }
        self.board.clint.deadline(self.now, id)
    }

    fn whereabouts(&self) -> String {
        let mut text = String::new();
        for (id, hart) in self.harts.iter().enumerate() {
            let state = if hart.asleep() { "in wfi" } else { "running" };
            let comma = if id == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}hart {id} {state} at {:#x}", hart.pc());
        }
        text
    }

    fn deadlock(&self) -> ExecError {
        let mut text = String::new();
        for (id, hart) in self.harts.iter().enumerate() {
            let enabled = hart.enabled_interrupts();
            let mut wants = Vec::new();
            if enabled & (1 << 3) != 0 {
                wants.push("a software interrupt from another hart (all are asleep)");
            }
            if enabled & (1 << 7) != 0 {
                wants.push("a timer that is not set");
            }
            if enabled & (1 << 11) != 0 {
                wants.push("an external interrupt (no device will raise one)");
            }
            if wants.is_empty() {
                wants.push("nothing: it enabled no interrupt");
            }
            let comma = if id == 0 { "" } else { "; " };
            let _ = write!(
                text,
                "{comma}hart {id} in wfi before {:#x} waits for {}",
                hart.pc(),
                wants.join(" or ")
            );
        }
        ExecError::Deadlock { harts: text }
    }

    /// Answers what the guest wrote to `tohost`; an exit code ends the run.
    fn host_interface(&mut self) -> Result<Option<i64>, ExecError> {
        let Some(tohost) = self.image.tohost else { return Ok(None) };
        let word = self.board.memory.read::<8>(tohost)?;
        if word == 0 {
            return Ok(None);
        }
        let (device, command, payload) = (word >> 56, word >> 48 & 0xff, word & 0xffff_ffff_ffff);
        match (device, command) {
            (0, 0) if payload & 1 == 1 => return Ok(Some(i64::try_from(payload >> 1).unwrap_or(i64::MAX))),
            (0, 0) => {
                if let Some(exit_code) = self.system_call(payload)? {
                    return Ok(Some(exit_code));
                }
                self.answer(1)?;
            }
            (1, 1) => {
                self.console.extend(u8::try_from(payload & 0xff));
                self.answer(word & !0xffff_ffff_ffff)?;
            }
            // A console read: there is never input, so it is never answered.
            (1, 0) => self.board.memory.write_bytes(Addr::new(tohost), &[0; 8])?,
            _ => self.answer(word & !0xffff_ffff_ffff)?,
        }
        // The host's own writes are not the guest's.
        self.board.memory.take_watch_hit();
        Ok(None)
    }

    fn answer(&mut self, word: u64) -> Result<(), ExecError> {
        if let Some(tohost) = self.image.tohost {
            self.board.memory.write_bytes(Addr::new(tohost), &[0; 8])?;
        }
        if let Some(fromhost) = self.image.fromhost {
            self.board.memory.write_bytes(Addr::new(fromhost), &word.to_le_bytes())?;
        }
        Ok(())
    }

    /// A proxied system call: eight doublewords in memory, the result goes into the first.
    fn system_call(&mut self, at: u64) -> Result<Option<i64>, ExecError> {
        const WRITE: u64 = 64;
        const EXIT: u64 = 93;
        const EFAULT: u64 = 14;
        const EINVAL: u64 = 22;
        const ENOSYS: u64 = 38;
        let mut raw = [0; 32];
        if self.board.memory.read_bytes(Addr::new(at), &mut raw).is_err() {
            // Nowhere to put an answer either.
            return Ok(None);
        }
        let argument = |n: usize| u64::from_le_bytes(raw[8 * n..8 * n + 8].try_into().expect("eight bytes"));
        let result = match argument(0) {
            EXIT => return Ok(Some(i64::from_le_bytes(argument(1).to_le_bytes()))),
            WRITE if argument(3) > MAX_WRITE_BYTES => EINVAL.wrapping_neg(),
            WRITE => {
                let bytes = usize::try_from(argument(3)).expect("bounded above");
                let mut text = vec![0; bytes];
                match self.board.memory.read_bytes(Addr::new(argument(2)), &mut text) {
                    Ok(()) => {
                        self.console.extend(text);
                        argument(3)
                    }
                    Err(_) => EFAULT.wrapping_neg(),
                }
            }
            _ => ENOSYS.wrapping_neg(),
        };
        // The first read proved the place to be memory.
        self.board.memory.write_bytes(Addr::new(at), &result.to_le_bytes())?;
        Ok(None)
    }

    fn result(mut self, exit_code: i64) -> ExecResult {
        self.console.extend(self.board.uart.take_output());
        let harts: Vec<ExecHart> =
            self.harts.iter().enumerate().map(|(id, hart)| summary(id, hart.stats())).collect();
        let instructions = harts.iter().map(|h| h.instructions).sum();
        let cycles = harts.iter().map(|h| h.cycles).max().unwrap_or(0);
        let console = self.console;
        ExecResult { exit_code, instructions, cycles, ipc: ratio(instructions, cycles), harts, console }
    }
}

fn ratio(instructions: u64, cycles: u64) -> f64 {
    if cycles == 0 { 0.0 } else { instructions as f64 / cycles as f64 }
}

fn summary(id: usize, s: HartStats) -> ExecHart {
    let mut causes: BTreeMap<&'static str, u64> =
        CAUSES.iter().map(|&(cause, name)| (name, s.cause(cause))).collect();
    causes.insert("total", s.cycles);
    ExecHart {
        id,
        instructions: s.instructions,
        cycles: s.cycles,
        ipc: ratio(s.instructions, s.cycles),
        causes,
        classes: s.classes,
        exceptions: s.exceptions,
        interrupts: s.interrupts,
        mispredicts: s.mispredicts,
        l1i_misses: s.l1i_misses,
        l1d_misses: s.l1d_misses,
        l2_misses: s.l2_misses,
    }
}

/// One line of a commit log, in Spike's format; machine mode is privilege 3.
#[must_use]
pub fn commit_line(hart: usize, commit: &Commit) -> String {
    let mut line = format!("core {hart:>3}: 3 {:#018x} (", commit.pc);
    let _ = if commit.word & 3 == 3 {
        write!(line, "{:#010x})", commit.word)
    } else {
        write!(line, "{:#06x})", commit.word)
    };
    let _ = match commit.register {
        Some(CommitRegister::Int(r, value)) => write!(line, " x{r:<2} {value:#018x}"),
        Some(CommitRegister::Fp(r, value)) => write!(line, " f{r:<2} {value:#018x}"),
        None => Ok(()),
    };
    if let Some(address) = commit.address {
        if commit.stored.is_none() || commit.register.is_some() {
            let _ = write!(line, " mem {address:#018x}");
        }
        if let Some((value, bytes)) = commit.stored {
            let digits = 2 + 2 * usize::from(bytes);
            let _ = write!(line, " mem {address:#018x} {value:#0digits$x}");
        }
    }
    line.push('\n');
    line
}
