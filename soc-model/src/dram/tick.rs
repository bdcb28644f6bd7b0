//! The plain oracle: one LPDDR channel and its controller, one CK at a time, straight from the rules.
//!
//! ```text
//! offer() ─► read buffer ┐   active ─► maintenance ─► read or write buffer ─► early ACT2 ─► early close
//!            write buffer ┘        one command per CK, oldest ready request first
//! ```
//!
//! Models: ACT1/ACT2, WCK sync, FR-FCFS, row policies, write drain, refresh, classes, power-down and self-refresh.
//! Does not model: several ranks, PHY latency.
//! Source: the controller rules of Ramulator 2.1's LPDDR5 model; constraints.rs for what the device allows.

use super::constraints::{Command, Device};
use super::{
    BANKS, Commands, Controller, Done, Refresh, Request, RowPolicy, Scheduler, States, Timings, Wck,
};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
struct Entry {
    request: Request,
    sequence: u64,
    accepted: u64,
    counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Column,
    Act1,
    Pre,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Active,
    Read,
    Write,
}

/// Work of the maintenance queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upkeep {
    RefreshAll,
    RefreshBank(usize),
    Close(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    Awake,
    Down,
    SelfRefresh,
}

/// What the row policy knows about a bank.
#[derive(Clone, Copy, Debug, Default)]
struct Habit {
    /// Column commands since the row was closed last.
    columns: u32,
    /// A precharge for it is in the maintenance queue.
    closing: bool,
    /// Two-bit counter: from 2 on, rows nobody waits for are closed.
    eager: u8,
    /// Row the policy closed early last.
    closed_early: Option<u32>,
}

/// One channel, stepped every CK.
#[derive(Clone, Debug)]
pub struct TickChannel {
    t: Timings,
    c: Controller,
    device: Device,
    now: u64,
    sequence: u64,
    open: [Option<u32>; BANKS],
    habits: [Habit; BANKS],
    wck_expiry: u64,
    pending_act2: Option<(usize, u64)>,
    pending_column: Option<(Queue, u64)>,
    next_refresh: u64,
    refresh_bank: usize,
    owed: u32,
    maintenance: VecDeque<Upkeep>,
    power: Power,
    last_active: u64,
    write_mode: bool,
    reads: Vec<Entry>,
    writes: Vec<Entry>,
    active: Vec<Entry>,
    commands: Commands,
    states: States,
}

impl TickChannel {
    /// An idle channel with all banks closed at CK 0.
    #[must_use]
    pub fn new(t: Timings, c: Controller) -> Self {
        let mut channel = Self {
            t,
            c,
            device: Device::new(&t),
            now: 0,
            sequence: 0,
            open: [None; BANKS],
            habits: [Habit { eager: 1, ..Habit::default() }; BANKS],
            wck_expiry: 0,
            pending_act2: None,
            pending_column: None,
            next_refresh: u64::MAX,
            refresh_bank: 0,
            owed: 0,
            maintenance: VecDeque::new(),
            power: Power::Awake,
            last_active: 0,
            write_mode: false,
            reads: Vec::new(),
            writes: Vec::new(),
            active: Vec::new(),
            commands: Commands::default(),
            states: States::default(),
        };
        channel.next_refresh = channel.interval().map_or(u64::MAX, |i| i - 1);
        channel
    }

    /// The CK about to be simulated.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Commands issued so far.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// CKs spent in each state, up to `ck`, which is not before the present.
    #[must_use]
    pub fn states(&self, ck: u64) -> States {
        let mut s = self.states;
        self.count_state(&mut s, ck.saturating_sub(self.now));
        s
    }

    fn count_state(&self, s: &mut States, ck: u64) {
        match self.power {
            Power::Down => s.power_down += ck,
            Power::SelfRefresh => s.self_refresh += ck,
            Power::Awake if self.open.iter().any(Option::is_some) => s.active += ck,
            Power::Awake => s.precharged += ck,
        }
    }

    /// No request waits or is being served.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty() && self.active.is_empty()
    }

    /// Takes a request in this CK, before `tick`; false if its buffer is full.
    pub fn offer(&mut self, request: Request, done: &mut Vec<Done>) -> bool {
        let queued = |e: &Entry| e.request.place == request.place;
        let merged =
            self.writes.iter().any(queued) && (if request.write { true } else { self.room(request) });
        if merged {
            self.commands.forwarded += 1;
            let at = if request.write { self.now } else { self.now + 1 };
            done.push(Done { tag: request.tag, write: request.write, accepted: self.now, done: at });
            return true;
        }
        if !self.room(request) {
            return false;
        }
        let entry = Entry { request, sequence: self.sequence, accepted: self.now, counted: false };
        self.sequence += 1;
        self.last_active = self.now;
        if request.write {
            self.writes.push(entry)
        } else {
            self.reads.push(entry)
        }
        true
    }

    fn room(&self, request: Request) -> bool {
        if request.write {
            self.writes.len() < self.c.write_buffer as usize
        } else if request.class > 0 {
            self.reads.len() < self.c.urgent_read_buffer() as usize
        } else {
            self.reads.len() < self.c.read_buffer as usize
        }
    }

    /// Simulates one CK; bursts issued in it are appended to `done`.
    pub fn tick(&mut self, done: &mut Vec<Done>) {
        self.refresh_when_due();
        if self.stay_awake() {
            self.inject_closings();
            self.step(done);
        }
        let mut states = self.states;
        self.count_state(&mut states, 1);
        self.states = states;
        self.now += 1;
    }

    fn interval(&self) -> Option<u64> {
        match self.c.refresh {
            Refresh::None => None,
            Refresh::AllBank => Some(self.t.refi),
            Refresh::PerBank => Some(self.t.refi_pb),
        }
    }

    fn refresh_when_due(&mut self) {
        if self.now == self.next_refresh {
            self.next_refresh += self.interval().expect("a refresh is due");
            self.owed += 1;
        }
        if self.owed > self.c.most_owed() {
            for _ in 0..self.owed {
                self.enqueue_refresh();
            }
            self.owed = 0;
        } else if self.owed > 0 && self.is_empty() && self.maintenance.is_empty() {
            self.owed -= 1;
            self.enqueue_refresh();
        }
    }

    fn enqueue_refresh(&mut self) {
        if self.c.refresh == Refresh::PerBank {
            self.maintenance.push_back(Upkeep::RefreshBank(self.refresh_bank));
            self.refresh_bank = (self.refresh_bank + 1) % usize::try_from(self.t.banks).expect("few banks");
        } else {
            self.maintenance.push_back(Upkeep::RefreshAll);
        }
    }

    /// Sleeps and wakes; false if this CK's command slot is spent on it or the device sleeps.
    fn stay_awake(&mut self) -> bool {
        if self.c.power_down_after == u64::MAX {
            return true;
        }
        let idle = self.is_empty() && self.maintenance.is_empty();
        let quiet = self.now - self.last_active;
        match self.power {
            Power::Awake => {
                if !idle || quiet < self.c.power_down_after {
                    return true;
                }
                if self.open.iter().any(Option::is_some) {
                    if self.device.legal(Command::PreAll, 0, self.now) {
                        self.close_all();
                        return false;
                    }
                } else if self.device.legal(Command::PdEntry, 0, self.now) {
                    self.issue(Command::PdEntry, 0);
                    self.power = Power::Down;
                    self.commands.power_downs += 1;
                    return false;
                }
                true
            }
            Power::Down => {
                if !idle {
                    if self.device.legal(Command::PdExit, 0, self.now) {
                        self.issue(Command::PdExit, 0);
                        self.power = Power::Awake;
                        self.last_active = self.now;
                    }
                } else if quiet >= self.c.self_refresh_after
                    && self.device.legal(Command::SrEntry, 0, self.now)
                {
                    self.issue(Command::SrEntry, 0);
                    self.power = Power::SelfRefresh;
                    self.next_refresh = u64::MAX;
                    self.commands.self_refreshes += 1;
                }
                false
            }
            Power::SelfRefresh => {
                if !idle && self.device.legal(Command::SrExit, 0, self.now) {
                    self.issue(Command::SrExit, 0);
                    self.power = Power::Awake;
                    self.last_active = self.now;
                    self.next_refresh = self.interval().map_or(u64::MAX, |i| self.now + i);
                }
                false
            }
        }
    }

    /// Rows that have had their share of column commands are queued for a precharge.
    fn inject_closings(&mut self) {
        let RowPolicy::Closed { cap } = self.c.rows else { return };
        for bank in 0..BANKS {
            let habit = &mut self.habits[bank];
            if habit.columns >= cap && !habit.closing && self.device.legal(Command::Pre, bank, self.now) {
                habit.closing = true;
                self.maintenance.push_back(Upkeep::Close(bank));
            }
        }
    }

    fn step(&mut self, done: &mut Vec<Done>) {
        if self.pending_act2.is_some_and(|(_, act1)| self.now >= act1 + self.t.aad) {
            self.pending_act2 = None;
            return;
        }
        if let Some((queue, sequence)) = self.pending_column.take() {
            self.issue_column(queue, sequence, false, done);
            return;
        }
        if let Some((sequence, _)) = self.best(Queue::Active) {
            self.start_column(Queue::Active, sequence, done);
            return;
        }
        if let Some(&work) = self.maintenance.front() {
            if self.maintain(work) {
                return;
            }
        } else {
            self.choose_mode();
            let queue = if self.write_mode { Queue::Write } else { Queue::Read };
            if let Some((sequence, next)) = self.best(queue) {
                self.advance(queue, sequence, next, done);
                return;
            }
        }
        if self.pending_act2.take().is_none() {
            self.close_early();
        }
    }

    fn choose_mode(&mut self) {
        let writes = self.writes.len();
        let waited = self.reads.iter().map(|e| self.now - e.accepted).max();
        if waited.is_some_and(|w| w >= self.c.read_patience) {
            self.write_mode = false;
        } else if self.write_mode {
            if writes < self.c.drain_until_below as usize && !self.reads.is_empty() {
                self.write_mode = false;
            }
        } else if writes > self.c.drain_above as usize || self.reads.is_empty() {
            self.write_mode = true;
        }
    }

    fn queue(&self, queue: Queue) -> &Vec<Entry> {
        match queue {
            Queue::Active => &self.active,
            Queue::Read => &self.reads,
            Queue::Write => &self.writes,
        }
    }

    fn queue_mut(&mut self, queue: Queue) -> &mut Vec<Entry> {
        match queue {
            Queue::Active => &mut self.active,
            Queue::Read => &mut self.reads,
            Queue::Write => &mut self.writes,
        }
    }

    /// The request whose next command is ready and that goes first: one that is too old, then the highest class,
    /// then the oldest.
    fn best(&self, queue: Queue) -> Option<(u64, Next)> {
        self.queue(queue)
            .iter()
            .filter_map(|e| {
                let next = self.next_command(e, queue).filter(|&n| self.ready(e, n))?;
                let aged = self.now - e.accepted >= self.c.age_limit;
                Some((if aged { 0 } else { 4 - e.request.class.min(3) }, e, next))
            })
            // Of those accepted in one CK the first in the queue: the buffers are in order of arrival, the active
            // requests in order of activation.
            .min_by_key(|&(rank, e, _)| (rank, e.accepted))
            .map(|(_, e, next)| (e.sequence, next))
    }

    fn next_command(&self, e: &Entry, queue: Queue) -> Option<Next> {
        let bank = usize::from(e.request.place.bank);
        match self.open[bank] {
            None => self.pending_act2.is_none().then_some(Next::Act1),
            Some(row) if row == e.request.place.row => {
                let opening = self.pending_act2.is_some_and(|(b, _)| b == bank);
                (!opening).then_some(Next::Column)
            }
            Some(row) => {
                let held = self.is_held(bank)
                    || self.c.scheduler == Scheduler::RowHitFirst
                        && self.queue(queue).iter().any(|o| {
                            let place = o.request.place;
                            (usize::from(place.bank), place.row) == (bank, row) && o.accepted <= e.accepted
                        });
                (!held && queue != Queue::Active).then_some(Next::Pre)
            }
        }
    }

    /// A request has opened this bank and not been served.
    fn is_held(&self, bank: usize) -> bool {
        self.active.iter().any(|a| usize::from(a.request.place.bank) == bank)
    }

    fn ready(&self, e: &Entry, next: Next) -> bool {
        let command = match next {
            Next::Column if e.request.write => Command::Wr,
            Next::Column => Command::Rd,
            Next::Act1 => Command::Act1,
            Next::Pre => Command::Pre,
        };
        self.device.legal(command, usize::from(e.request.place.bank), self.now)
    }

    fn issue(&mut self, command: Command, bank: usize) {
        self.device.issue(command, bank, self.now);
    }

    /// The head of the maintenance queue; false if its command may not issue now.
    fn maintain(&mut self, work: Upkeep) -> bool {
        let now = self.now;
        match work {
            Upkeep::RefreshAll => {
                if self.open.iter().any(Option::is_some) {
                    let legal = self.active.is_empty() && self.device.legal(Command::PreAll, 0, now);
                    if legal {
                        self.close_all();
                    }
                    return legal;
                }
                if !self.device.legal(Command::Ref, 0, now) {
                    return false;
                }
                self.issue(Command::Ref, 0);
                self.commands.refreshes += 1;
            }
            Upkeep::RefreshBank(bank) => {
                if self.open[bank].is_some() {
                    return self.close_for_upkeep(bank);
                }
                if !self.device.legal(Command::RefBank, bank, now) {
                    return false;
                }
                self.issue(Command::RefBank, bank);
                self.commands.bank_refreshes += 1;
            }
            Upkeep::Close(bank) => {
                if !self.close_for_upkeep(bank) {
                    return false;
                }
            }
        }
        self.maintenance.pop_front();
        true
    }

    fn close_for_upkeep(&mut self, bank: usize) -> bool {
        let legal = !self.is_held(bank) && self.device.legal(Command::Pre, bank, self.now);
        if legal {
            self.close(bank);
        }
        legal
    }

    fn close_all(&mut self) {
        for bank in 0..BANKS {
            self.open[bank] = None;
            self.habits[bank].columns = 0;
            self.habits[bank].closing = false;
        }
        self.issue(Command::PreAll, 0);
        self.commands.precharges_all += 1;
    }

    fn close(&mut self, bank: usize) {
        self.issue(Command::Pre, bank);
        self.commands.precharges += 1;
        self.closed(bank);
    }

    fn closed(&mut self, bank: usize) {
        self.open[bank] = None;
        self.habits[bank].columns = 0;
        self.habits[bank].closing = false;
    }

    /// With adaptive rows, an idle command slot closes the first row that nobody wants and whose bank is eager.
    fn close_early(&mut self) {
        if self.c.rows != RowPolicy::Adaptive {
            return;
        }
        let bank = (0..BANKS).find(|&bank| {
            let wanted = |e: &Entry| {
                let place = e.request.place;
                usize::from(place.bank) == bank && Some(place.row) == self.open[bank]
            };
            self.open[bank].is_some()
                && self.habits[bank].eager >= 2
                && !self.is_held(bank)
                && !self.reads.iter().any(wanted)
                && !self.writes.iter().any(wanted)
                && self.device.legal(Command::Pre, bank, self.now)
        });
        if let Some(bank) = bank {
            self.habits[bank].closed_early = self.open[bank];
            self.close(bank);
        }
    }

    fn advance(&mut self, queue: Queue, sequence: u64, next: Next, done: &mut Vec<Done>) {
        if next == Next::Column {
            self.start_column(queue, sequence, done);
            return;
        }
        let now = self.now;
        let entries = self.queue_mut(queue);
        let index = entries.iter().position(|e| e.sequence == sequence).expect("chosen from this buffer");
        let fresh = !entries[index].counted;
        entries[index].counted = true;
        let place = entries[index].request.place;
        let bank = usize::from(place.bank);
        if next == Next::Pre {
            self.commands.row_conflicts += u64::from(fresh);
            self.habits[bank].eager = 3.min(self.habits[bank].eager + 1);
            self.close(bank);
        } else {
            let entry = entries.remove(index);
            self.active.push(entry);
            self.open[bank] = Some(place.row);
            self.issue(Command::Act1, bank);
            self.pending_act2 = Some((bank, now));
            let habit = &mut self.habits[bank];
            if let Some(row) = habit.closed_early.take() {
                habit.eager =
                    if row == place.row { habit.eager.saturating_sub(1) } else { 3.min(habit.eager + 1) };
            }
            self.commands.activates += 1;
            self.commands.row_misses += u64::from(fresh);
        }
    }

    /// RD or WR, or the CAS that must directly precede it while WCK is not running.
    fn start_column(&mut self, queue: Queue, sequence: u64, done: &mut Vec<Done>) {
        let sync = self.c.wck == Wck::NeedSync && self.now >= self.wck_expiry;
        if sync && self.pending_act2.is_some_and(|(_, act1)| self.now + 1 >= act1 + self.t.aad) {
            // The ACT2 would fall between the CAS and its column command.
            self.pending_act2 = None;
            return;
        }
        let entry =
            self.queue_mut(queue).iter_mut().find(|e| e.sequence == sequence).expect("chosen from it");
        let fresh = !entry.counted;
        entry.counted = true;
        self.commands.row_hits += u64::from(fresh);
        if sync {
            self.pending_column = Some((queue, sequence));
            self.commands.syncs += 1;
        } else {
            self.issue_column(queue, sequence, true, done);
        }
    }

    /// `closable`: the row may be closed with the command; after a CAS it may not.
    fn issue_column(&mut self, queue: Queue, sequence: u64, closable: bool, done: &mut Vec<Done>) {
        let entries = self.queue_mut(queue);
        let index = entries.iter().position(|e| e.sequence == sequence).expect("still in its buffer");
        let entry = entries.remove(index);
        let Request { place, write, tag, .. } = entry.request;
        let (now, bank) = (self.now, usize::from(place.bank));
        self.last_active = now;
        let latency = if write { self.t.cwl } else { self.t.cl };
        self.wck_expiry = now + latency + self.t.bl_min + self.t.wck_postamble;
        let full = matches!(self.c.rows, RowPolicy::Closed { cap } if self.habits[bank].columns >= cap);
        let closes = closable && full && !self.is_held(bank);
        self.issue(
            match (write, closes) {
                (false, false) => Command::Rd,
                (false, true) => Command::RdA,
                (true, false) => Command::Wr,
                (true, true) => Command::WrA,
            },
            bank,
        );
        if closes {
            self.commands.auto_precharges += 1;
            self.closed(bank);
        } else {
            self.habits[bank].columns += 1;
        }
        self.commands.reads += u64::from(!write);
        self.commands.writes += u64::from(write);
        let at = if write { now } else { now + self.t.read_latency() };
        done.push(Done { tag, write, accepted: entry.accepted, done: at });
    }
}
