//! The plain oracle: one LPDDR channel and its controller, one CK at a time, straight from the rules.
//!
//! ```text
//! offer() ─► read buffer ┐   active ─► maintenance ─► read or write buffer ─► early ACT2
//!            write buffer ┘        one command per CK, oldest ready request first
//! ```
//!
//! Models: ACT1/ACT2, WCK sync, FR-FCFS without hit preference, write drain, all-bank refresh, urgent requests.
//! Does not model: several ranks, per-bank refresh, power-down, PHY latency.
//! Source: the controller rules of Ramulator 2.1's LPDDR5 model, JESD209-5B for the constraints.

use super::{BANKS, Commands, Controller, Done, GROUPS, Request, Timings, URGENT_RESERVE};

#[derive(Clone, Copy, Debug)]
struct Entry {
    request: Request,
    sequence: u64,
    accepted: u64,
    counted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bank {
    open: Option<u32>,
    last_act1: Option<u64>,
    last_pre: Option<u64>,
    last_read: Option<u64>,
    last_write: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
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

/// One channel, stepped every CK.
#[derive(Clone, Debug)]
pub struct TickChannel {
    t: Timings,
    c: Controller,
    now: u64,
    sequence: u64,
    banks: [Bank; BANKS],
    group_read: [Option<u64>; GROUPS],
    group_write: [Option<u64>; GROUPS],
    last_pre_any: Option<u64>,
    last_pre_all: Option<u64>,
    last_refresh: Option<u64>,
    /// ACT1 times, newest first.
    recent_act1: [Option<u64>; 4],
    wck_expiry: u64,
    pending_act2: Option<(usize, u64)>,
    pending_column: Option<(Queue, u64)>,
    maintenance: u32,
    write_mode: bool,
    reads: Vec<Entry>,
    writes: Vec<Entry>,
    active: Vec<Entry>,
    commands: Commands,
}

impl TickChannel {
    /// An idle channel with all banks closed at CK 0.
    #[must_use]
    pub fn new(t: Timings, c: Controller) -> Self {
        Self {
            t,
            c,
            now: 0,
            sequence: 0,
            banks: [Bank::default(); BANKS],
            group_read: [None; GROUPS],
            group_write: [None; GROUPS],
            last_pre_any: None,
            last_pre_all: None,
            last_refresh: None,
            recent_act1: [None; 4],
            wck_expiry: 0,
            pending_act2: None,
            pending_column: None,
            maintenance: 0,
            write_mode: false,
            reads: Vec::new(),
            writes: Vec::new(),
            active: Vec::new(),
            commands: Commands::default(),
        }
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
        } else {
            let reserve = if request.urgent { URGENT_RESERVE } else { 0 };
            self.reads.len() < (self.c.read_buffer + reserve) as usize
        }
    }

    /// Simulates one CK; bursts issued in it are appended to `done`.
    pub fn tick(&mut self, done: &mut Vec<Done>) {
        if self.c.refresh && (self.now + 1).is_multiple_of(self.t.refi) {
            self.maintenance += 1;
        }
        self.step(done);
        self.now += 1;
    }

    fn step(&mut self, done: &mut Vec<Done>) {
        if self.pending_act2.is_some_and(|(_, act1)| self.now >= act1 + self.t.aad) {
            self.pending_act2 = None;
            return;
        }
        if let Some((queue, sequence)) = self.pending_column.take() {
            self.issue_column(queue, sequence, done);
            return;
        }
        if let Some((sequence, _)) = self.best(Queue::Active) {
            self.start_column(Queue::Active, sequence, done);
            return;
        }
        if self.maintenance > 0 {
            if self.maintain() {
                return;
            }
        } else {
            self.choose_mode();
            let queue = if self.write_mode { Queue::Write } else { Queue::Read };
            if let Some((sequence, command)) = self.best(queue) {
                self.issue(queue, sequence, command, done);
                return;
            }
        }
        self.pending_act2 = None;
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

    fn queue(&mut self, queue: Queue) -> &mut Vec<Entry> {
        match queue {
            Queue::Active => &mut self.active,
            Queue::Read => &mut self.reads,
            Queue::Write => &mut self.writes,
        }
    }

    /// The oldest request whose next command is ready, urgent ones first.
    fn best(&self, queue: Queue) -> Option<(u64, Command)> {
        let entries = match queue {
            Queue::Active => &self.active,
            Queue::Read => &self.reads,
            Queue::Write => &self.writes,
        };
        entries
            .iter()
            .filter_map(|e| {
                self.next_command(e, queue)
                    .filter(|&c| self.ready(e, c))
                    .map(|c| (!e.request.urgent, e.sequence, c))
            })
            .min_by_key(|&(ordinary, sequence, _)| (ordinary, sequence))
            .map(|(_, sequence, command)| (sequence, command))
    }

    fn next_command(&self, e: &Entry, queue: Queue) -> Option<Command> {
        let bank = usize::from(e.request.place.bank);
        match self.banks[bank].open {
            None => self.pending_act2.is_none().then_some(Command::Act1),
            Some(row) if row == e.request.place.row => {
                let opening = self.pending_act2.is_some_and(|(b, _)| b == bank);
                (!opening).then_some(Command::Column)
            }
            Some(_) => {
                let held = self.active.iter().any(|a| a.request.place.bank == e.request.place.bank);
                (!held && queue != Queue::Active).then_some(Command::Pre)
            }
        }
    }

    fn after(&self, last: Option<u64>, gap: u64) -> bool {
        last.is_none_or(|l| self.now >= l + gap)
    }

    fn ready(&self, e: &Entry, command: Command) -> bool {
        let t = &self.t;
        let bank = &self.banks[usize::from(e.request.place.bank)];
        match command {
            Command::Column => {
                let group = e.request.place.group();
                self.after(bank.last_act1, t.rcd)
                    && (0..GROUPS).all(|g| {
                        let (same, read, write) = (g == group, self.group_read[g], self.group_write[g]);
                        let ccd = if same { t.ccd_l } else { t.ccd_s };
                        if e.request.write {
                            self.after(write, ccd) && self.after(read, t.read_to_write())
                        } else {
                            let turn = if same { t.write_to_read_same() } else { t.write_to_read_other() };
                            self.after(read, ccd) && self.after(write, turn)
                        }
                    })
            }
            Command::Act1 => {
                self.after(bank.last_act1, t.rc)
                    && self.after(bank.last_pre, t.rp_pb)
                    && self.after(self.last_pre_all, t.rp_ab)
                    && self.after(self.last_refresh, t.rfc_ab)
                    && self.after(self.recent_act1[0], t.rrd)
                    && self.after(self.recent_act1[3], t.faw)
            }
            Command::Pre => self.bank_may_close(bank) && self.after(self.last_pre_any, t.ppd),
        }
    }

    fn bank_may_close(&self, bank: &Bank) -> bool {
        self.after(bank.last_act1, self.t.ras)
            && self.after(bank.last_read, self.t.rtp)
            && self.after(bank.last_write, self.t.write_to_precharge())
    }

    /// PREab or REFab; false if neither may issue now.
    fn maintain(&mut self) -> bool {
        if self.banks.iter().any(|b| b.open.is_some()) {
            let legal = self.active.is_empty()
                && self.banks.iter().all(|b| self.bank_may_close(b))
                && self.after(self.last_pre_any, self.t.ppd);
            if legal {
                for b in &mut self.banks {
                    b.open = None;
                }
                self.last_pre_any = Some(self.now);
                self.last_pre_all = Some(self.now);
                self.commands.precharges_all += 1;
            }
            return legal;
        }
        let legal = self.banks.iter().all(|b| self.after(b.last_pre, self.t.rp_pb))
            && self.after(self.last_pre_all, self.t.rp_pb)
            && self.after(self.last_refresh, self.t.rfc_ab);
        if legal {
            self.last_refresh = Some(self.now);
            self.maintenance -= 1;
            self.commands.refreshes += 1;
        }
        legal
    }

    fn issue(&mut self, queue: Queue, sequence: u64, command: Command, done: &mut Vec<Done>) {
        let now = self.now;
        if command == Command::Column {
            self.start_column(queue, sequence, done);
            return;
        }
        let entries = self.queue(queue);
        let index = entries.iter().position(|e| e.sequence == sequence).expect("chosen from this buffer");
        let fresh = !entries[index].counted;
        entries[index].counted = true;
        let place = entries[index].request.place;
        let bank = usize::from(place.bank);
        if command == Command::Pre {
            self.banks[bank].open = None;
            self.banks[bank].last_pre = Some(now);
            self.last_pre_any = Some(now);
            self.commands.precharges += 1;
            self.commands.row_conflicts += u64::from(fresh);
        } else {
            let entry = entries.remove(index);
            self.active.push(entry);
            self.banks[bank].open = Some(place.row);
            self.banks[bank].last_act1 = Some(now);
            self.recent_act1.rotate_right(1);
            self.recent_act1[0] = Some(now);
            self.pending_act2 = Some((bank, now));
            self.commands.activates += 1;
            self.commands.row_misses += u64::from(fresh);
        }
    }

    /// RD or WR, or the CAS that must precede it while WCK is not running.
    fn start_column(&mut self, queue: Queue, sequence: u64, done: &mut Vec<Done>) {
        let entry = self.queue(queue).iter_mut().find(|e| e.sequence == sequence).expect("chosen from it");
        let fresh = !entry.counted;
        entry.counted = true;
        self.commands.row_hits += u64::from(fresh);
        if self.now >= self.wck_expiry {
            self.pending_column = Some((queue, sequence));
            self.commands.syncs += 1;
        } else {
            self.issue_column(queue, sequence, done);
        }
    }

    fn issue_column(&mut self, queue: Queue, sequence: u64, done: &mut Vec<Done>) {
        let entries = self.queue(queue);
        let index = entries.iter().position(|e| e.sequence == sequence).expect("still in its buffer");
        let entry = entries.remove(index);
        let Request { place, write, tag, .. } = entry.request;
        let now = self.now;
        let latency = if write { self.t.cwl } else { self.t.cl };
        self.wck_expiry = now + latency + self.t.bl_min + self.t.wck_postamble;
        if write {
            self.banks[usize::from(place.bank)].last_write = Some(now);
            self.group_write[place.group()] = Some(now);
            self.commands.writes += 1;
        } else {
            self.banks[usize::from(place.bank)].last_read = Some(now);
            self.group_read[place.group()] = Some(now);
            self.commands.reads += 1;
        }
        let at = if write { now } else { now + self.t.read_latency() };
        done.push(Done { tag, write, accepted: entry.accepted, done: at });
    }
}
