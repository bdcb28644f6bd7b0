//! The event-skipping engine: the same rules as the oracle, on bit masks, jumping over CKs in which nothing can issue.
//!
//! ```text
//! ring of 64 age-ordered slots per buffer ─► one mask per bank (all, row hits) ─► OR over legal banks ─► oldest bit
//! calendar of 1024 CK ─► "read legal", "precharge legal", "activate legal", "write legal" bits per bank
//! upkeep.rs: refresh, row policies, sleep
//! ```
//!
//! Models and does not model: exactly what tick.rs does; a property test compares the two to the cycle.
//! Source: our own; the rules' sources are in tick.rs.
#![allow(
    clippy::cast_possible_truncation,
    reason = "bank numbers, ring positions and calendar slots are masked to their width where they are made"
)]

mod upkeep;

use super::ring::{Ring, Slot};
use super::{
    BANKS, Commands, Controller, Done, GROUPS, Refresh, Request, RowPolicy, Scheduler, States, Timings, Wck,
};
use std::collections::VecDeque;
use upkeep::{Power, Upkeep};

const CALENDAR: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Active,
    Read,
    Write,
}

/// One channel that can be asked when something may happen next.
#[derive(Clone, Debug)]
pub struct BurstChannel {
    t: Timings,
    c: Controller,
    now: u64,
    /// No command can issue before this CK unless a request is offered.
    next_event: u64,
    sequence: u64,
    reads: Ring,
    writes: Ring,
    active: u16,
    active_writes: u16,
    active_slots: [Slot; BANKS],
    open: u16,
    rows: [u32; BANKS],
    /// Banks whose nRCD has passed for reads, and for writes.
    column_ok: u16,
    write_ok: u16,
    pre_ok: u16,
    act_ok: u16,
    pre_at: [u64; BANKS],
    act_at: [u64; BANKS],
    read_at: [u64; GROUPS],
    write_at: [u64; GROUPS],
    act_any_at: u64,
    pre_any_at: u64,
    /// Earliest REFab, REFpb of any bank, power-down entry and self-refresh entry.
    refresh_at: u64,
    bank_refresh_at: u64,
    sleep_at: u64,
    deep_sleep_at: u64,
    act1_times: [u64; 4],
    act1_next: usize,
    act1_count: u64,
    wck_expiry: u64,
    opening: u16,
    opened_at: u64,
    pending_column: Option<(Queue, u8)>,
    maintenance: VecDeque<Upkeep>,
    /// Its length.
    upkeep: u32,
    next_refresh: u64,
    write_mode: bool,
    /// Something outside the default rules is configured: sleep, postponing, closing rows.
    special: bool,
    /// Nothing outside the default rules is.
    plain: bool,
    closes: bool,
    adaptive: bool,
    hit_first: bool,
    splits_rcd: bool,
    /// The one CK in which a burst of another group than `mesh_group` meshes with the last, its direction, and when
    /// all rules but the distance between groups allow a read or a write of a group.
    mesh_at: u64,
    mesh_group: usize,
    mesh_write: bool,
    read_base: [u64; GROUPS],
    write_base: [u64; GROUPS],
    refresh_bank: usize,
    owed: u32,
    power: Power,
    slept_at: u64,
    last_active: u64,
    /// Column commands of each row, rows that have had their share, and those whose precharge is queued.
    columns: [u32; BANKS],
    capped: u16,
    closing: u16,
    eager: [u8; BANKS],
    closed_early: [Option<u32>; BANKS],
    states: States,
    state_since: u64,
    calendar: Box<[u64; CALENDAR]>,
    calendar_used: [u64; CALENDAR / 64],
    commands: Commands,
}

const COLUMN_SHIFT: u32 = 0;
const PRE_SHIFT: u32 = 16;
const ACT_SHIFT: u32 = 32;
const WRITE_SHIFT: u32 = 48;

impl BurstChannel {
    /// An idle channel with all banks closed at CK 0.
    #[must_use]
    pub fn new(t: Timings, c: Controller) -> Self {
        let sleeps = c.power_down_after != u64::MAX;
        let closes = matches!(c.rows, RowPolicy::Closed { .. });
        let interval = match c.refresh {
            Refresh::None => None,
            Refresh::AllBank => Some(t.refi),
            Refresh::PerBank => Some(t.refi_pb),
        };
        Self {
            t,
            c,
            now: 0,
            next_event: 0,
            sequence: 0,
            reads: Ring::new(),
            writes: Ring::new(),
            active: 0,
            active_writes: 0,
            active_slots: [Slot::default(); BANKS],
            open: 0,
            rows: [0; BANKS],
            column_ok: 0,
            write_ok: 0,
            pre_ok: u16::MAX,
            act_ok: u16::MAX,
            pre_at: [0; BANKS],
            act_at: [0; BANKS],
            read_at: [0; GROUPS],
            write_at: [0; GROUPS],
            act_any_at: 0,
            pre_any_at: 0,
            refresh_at: 0,
            bank_refresh_at: 0,
            sleep_at: 0,
            deep_sleep_at: 0,
            act1_times: [0; 4],
            act1_next: 0,
            act1_count: 0,
            wck_expiry: if c.wck == Wck::AlwaysOn { u64::MAX } else { 0 },
            opening: 0,
            opened_at: 0,
            pending_column: None,
            maintenance: VecDeque::new(),
            upkeep: 0,
            next_refresh: interval.map_or(u64::MAX, |i| i - 1),
            write_mode: false,
            special: sleeps || closes || c.postpone > 0,
            plain: Self::is_plain(&t, &c),
            closes,
            adaptive: c.rows == RowPolicy::Adaptive,
            hit_first: c.scheduler == Scheduler::RowHitFirst,
            splits_rcd: t.rcd != t.rcd_w,
            mesh_at: 0,
            mesh_group: 0,
            mesh_write: false,
            read_base: [0; GROUPS],
            write_base: [0; GROUPS],
            refresh_bank: 0,
            owed: 0,
            power: Power::Awake,
            slept_at: 0,
            last_active: 0,
            columns: [0; BANKS],
            capped: 0,
            closing: 0,
            eager: [1; BANKS],
            closed_early: [None; BANKS],
            states: States::default(),
            state_since: 0,
            calendar: Box::new([0; CALENDAR]),
            calendar_used: [0; CALENDAR / 64],
            commands: Commands::default(),
        }
    }

    fn is_plain(t: &Timings, c: &Controller) -> bool {
        let plain = Controller {
            read_buffer: c.read_buffer,
            write_buffer: c.write_buffer,
            drain_above: c.drain_above,
            drain_until_below: c.drain_until_below,
            read_patience: c.read_patience,
            age_limit: c.age_limit,
            refresh: if c.refresh == Refresh::None { Refresh::None } else { Refresh::AllBank },
            ..Controller::DEFAULT
        };
        *c == plain && t.rcd == t.rcd_w && t.interleave == 0 && t.rc <= t.ras + t.rp_pb
    }

    /// The CK about to be simulated.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Other constraints from the next CK on; those already running keep their ends.
    pub fn retime(&mut self, t: Timings) {
        self.t = t;
        if !self.splits_rcd {
            // Not kept until now: rows under way take writes as soon as reads.
            self.write_ok = u16::MAX;
        }
        self.splits_rcd = t.rcd != t.rcd_w;
        self.plain = Self::is_plain(&t, &self.c);
        self.next_event = self.now;
    }

    /// Commands issued so far.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// No request waits or is being served.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reads.live == 0 && self.writes.live == 0 && self.active == 0
    }

    /// The earliest CK, not before `now`, at which anything can change unless a request is offered.
    #[must_use]
    pub fn next_event(&self) -> u64 {
        self.next_event.max(self.now)
    }

    /// Jumps to `ck`.
    ///
    /// # Panics
    /// If something could happen before it, or it has passed.
    pub fn skip_to(&mut self, ck: u64) {
        assert!(ck >= self.now && ck <= self.next_event(), "a skip may not pass an event");
        self.now = ck;
    }

    /// Whether a request of this kind finds room.
    #[must_use]
    #[inline]
    pub fn has_room(&self, write: bool, urgent: bool) -> bool {
        if write {
            self.writes.len() < self.c.write_buffer
        } else {
            self.reads.len() < if urgent { self.c.urgent_read_buffer() } else { self.c.read_buffer }
        }
    }

    /// Takes a request in this CK, before `tick`; false if its buffer is full.
    #[inline]
    pub fn offer(&mut self, request: Request, done: &mut Vec<Done>) -> bool {
        let bank = usize::from(request.place.bank);
        let room = self.has_room(request.write, request.class > 0);
        if !room && !request.write {
            return false;
        }
        if self.writes.banks >> bank & 1 == 1 && self.is_queued_write(request) {
            self.commands.forwarded += 1;
            let at = if request.write { self.now } else { self.now + 1 };
            done.push(Done { tag: request.tag, write: request.write, accepted: self.now, done: at });
            return true;
        }
        if !room {
            return false;
        }
        let hit = self.open >> bank & 1 == 1 && self.rows[bank] == request.place.row;
        let slot = Slot { request, sequence: self.sequence, accepted: self.now };
        self.sequence += 1;
        if self.special {
            self.last_active = self.now;
        }
        let queue = if request.write { Queue::Write } else { Queue::Read };
        let pinned = self.pending_column.as_mut().filter(|p| p.0 == queue).map(|p| &mut p.1);
        if request.write { &mut self.writes } else { &mut self.reads }.push(slot, hit, pinned);
        self.next_event = self.now;
        true
    }

    fn is_queued_write(&self, request: Request) -> bool {
        let mut rest = self.writes.all[usize::from(request.place.bank)];
        while rest != 0 {
            if self.writes.slots[rest.trailing_zeros() as usize].request.place == request.place {
                return true;
            }
            rest &= rest - 1;
        }
        false
    }

    /// Simulates one CK; bursts issued in it are appended to `done`.
    #[inline]
    pub fn tick(&mut self, done: &mut Vec<Done>) {
        if self.plain {
            self.simulate::<true>(done);
        } else {
            self.simulate::<false>(done);
        }
    }

    /// One CK; `PLAIN` engines have none of the options that cost time in every CK.
    #[inline]
    fn simulate<const PLAIN: bool>(&mut self, done: &mut Vec<Done>) {
        self.turn_calendar::<PLAIN>();
        if self.now == self.next_refresh {
            self.refresh_falls_due();
        }
        let issued =
            if PLAIN || !self.special || self.attend() { self.step::<PLAIN>(done) } else { self.stirred() };
        self.next_event = if issued { self.now + 1 } else { self.look_ahead::<PLAIN>() };
        self.now += 1;
    }

    #[inline]
    fn defer(&mut self, was: u64, at: u64, bank: usize, shift: u32) {
        self.calendar[was as usize % CALENDAR] &= !(1u64 << (bank as u32 + shift));
        self.schedule(at, bank, shift);
    }

    #[inline]
    fn schedule(&mut self, at: u64, bank: usize, shift: u32) {
        debug_assert!(at > self.now && at - self.now < CALENDAR as u64, "within the calendar");
        let slot = at as usize % CALENDAR;
        self.calendar[slot] |= 1u64 << (bank as u32 + shift);
        self.calendar_used[slot / 64] |= 1 << (slot % 64);
    }

    #[inline]
    fn turn_calendar<const PLAIN: bool>(&mut self) {
        let slot = self.now as usize % CALENDAR;
        let due = std::mem::take(&mut self.calendar[slot]);
        self.calendar_used[slot / 64] &= !(1 << (slot % 64));
        self.column_ok |= (due >> COLUMN_SHIFT) as u16;
        self.pre_ok |= (due >> PRE_SHIFT) as u16;
        self.act_ok |= (due >> ACT_SHIFT) as u16;
        if !PLAIN {
            self.write_ok |= (due >> WRITE_SHIFT) as u16;
        }
    }

    /// Earliest CK after `now` at which a timing constraint ends or a refresh falls due.
    fn look_ahead<const PLAIN: bool>(&self) -> u64 {
        let mut next = self.next_refresh;
        let mut consider = |at: u64| {
            if at > self.now {
                next = next.min(at);
            }
        };
        for g in 0..GROUPS {
            consider(self.read_at[g]);
            consider(self.write_at[g]);
        }
        if next == self.now + 1 {
            return next;
        }
        let mut consider = |at: u64| {
            if at > self.now {
                next = next.min(at);
            }
        };
        consider(self.act_any_at);
        consider(self.pre_any_at);
        consider(self.refresh_at);
        consider(self.impatient_at());
        if !PLAIN {
            consider(self.bank_refresh_at);
            consider(self.mesh_at);
            self.sleep_events().into_iter().for_each(&mut consider);
        }
        let start = (self.now as usize + 1) % CALENDAR;
        for i in 0..=CALENDAR / 64 {
            let word = (start / 64 + i) % (CALENDAR / 64);
            let mut used = self.calendar_used[word];
            if i == 0 {
                used &= u64::MAX << (start % 64);
            }
            if used != 0 {
                let slot = word * 64 + used.trailing_zeros() as usize;
                let ahead = (slot + CALENDAR - start) % CALENDAR;
                consider(self.now + 1 + ahead as u64);
                break;
            }
        }
        next
    }

    /// Banks in which a RD, or a WR, satisfies bus and bank-group timing now.
    #[inline]
    fn legal_groups<const PLAIN: bool>(&self, write: bool) -> u16 {
        let at = if write { &self.write_at } else { &self.read_at };
        let mut banks = 0;
        for (g, &ck) in at.iter().enumerate() {
            banks |= u16::from(self.now >= ck) * (0xF << (4 * g));
        }
        if !PLAIN && self.now == self.mesh_at && self.mesh_write == write && self.t.interleave > 0 {
            banks |= self.meshing_groups();
        }
        banks
    }

    /// Banks whose burst would mesh with the last one.
    fn meshing_groups(&self) -> u16 {
        let base = if self.mesh_write { &self.write_base } else { &self.read_base };
        let mut banks = 0;
        for (g, &ck) in base.iter().enumerate() {
            banks |= u16::from(g != self.mesh_group && self.now >= ck) * (0xF << (4 * g));
        }
        banks
    }

    /// Banks whose row has been open long enough for a RD, or a WR, and whose ACT2 has been sent.
    #[inline]
    fn opened_banks<const PLAIN: bool>(&self, write: bool) -> u16 {
        (if !PLAIN && write && self.splits_rcd { self.write_ok } else { self.column_ok }) & !self.opening
    }

    #[inline]
    fn step<const PLAIN: bool>(&mut self, done: &mut Vec<Done>) -> bool {
        if self.opening != 0 && self.now >= self.opened_at + self.t.aad {
            self.opening = 0;
            return true;
        }
        if let Some((queue, index)) = self.pending_column.take() {
            self.issue_column::<PLAIN>(queue, usize::from(index), false, done);
            return true;
        }
        let (reads, writes) = (self.opened_banks::<PLAIN>(false), self.opened_banks::<PLAIN>(true));
        let candidates = self.active & (reads & !self.active_writes | writes & self.active_writes);
        if candidates != 0 {
            let (read, write) = (self.legal_groups::<PLAIN>(false), self.legal_groups::<PLAIN>(true));
            let ready = candidates & (read & !self.active_writes | write & self.active_writes);
            if let Some(bank) = self.oldest_active(ready) {
                self.start_column::<PLAIN>(Queue::Active, bank, done);
                return true;
            }
        }
        if self.upkeep > 0 {
            if self.maintain() {
                return true;
            }
        } else if self.serve_buffer::<PLAIN>(done) {
            return true;
        }
        let early = self.opening != 0;
        self.opening = 0;
        early || !PLAIN && self.adaptive && self.close_early()
    }

    #[inline]
    fn oldest_active(&self, banks: u16) -> Option<usize> {
        if banks & banks.wrapping_sub(1) == 0 {
            return (banks != 0).then(|| banks.trailing_zeros() as usize);
        }
        let (mut rest, mut best) = (banks, None);
        while rest != 0 {
            let bank = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let s = &self.active_slots[bank];
            let aged = self.now - s.accepted >= self.c.age_limit;
            let key = (if aged { 0 } else { 4 - s.request.class.min(3) }, s.accepted, s.sequence, bank);
            if best.is_none_or(|b| key < b) {
                best = Some(key);
            }
        }
        best.map(|(_, _, _, bank)| bank)
    }

    #[inline]
    fn serve_buffer<const PLAIN: bool>(&mut self, done: &mut Vec<Done>) -> bool {
        let writes = self.writes.len();
        if self.impatient_at() <= self.now {
            self.write_mode = false;
        } else if self.write_mode {
            if writes < self.c.drain_until_below && self.reads.live != 0 {
                self.write_mode = false;
            }
        } else if writes > self.c.drain_above || self.reads.live == 0 {
            self.write_mode = true;
        }
        let ring = if self.write_mode { &self.writes } else { &self.reads };
        if ring.live == 0 {
            return false;
        }
        let mut hits = 0u64;
        let mut rest = self.open & self.opened_banks::<PLAIN>(self.write_mode) & ring.hit_banks;
        if rest != 0 {
            rest &= self.legal_groups::<PLAIN>(self.write_mode);
            while rest != 0 {
                hits |= ring.hits[rest.trailing_zeros() as usize];
                rest &= rest - 1;
            }
        }
        // Banks to close or to open: the two sets are disjoint, and a closed bank has no hits.
        let mut rest = 0;
        if self.now >= self.pre_any_at {
            rest |= self.open & self.pre_ok & !self.active;
        }
        if self.opening == 0 && self.now >= self.act_any_at {
            rest |= !self.open & self.act_ok;
        }
        rest &= ring.banks;
        let mut others = 0u64;
        while rest != 0 {
            let bank = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let misses = ring.all[bank] & !ring.hits[bank];
            others |= if !PLAIN && self.hit_first { ring.older_than_hits(bank, misses) } else { misses };
        }
        let ready = hits | others;
        if ready == 0 {
            return false;
        }
        let mut position = ring.oldest(ready);
        if ready & ring.urgent != 0 && self.now - ring.slots[position].accepted < self.c.age_limit {
            position = ring.oldest_of_highest_class(ready);
        }
        let queue = if self.write_mode { Queue::Write } else { Queue::Read };
        if hits >> position & 1 == 1 {
            self.start_column::<PLAIN>(queue, position, done);
        } else if self.open >> ring.slots[position].request.place.bank & 1 == 1 {
            self.precharge::<PLAIN>(queue, position);
        } else {
            self.activate::<PLAIN>(queue, position);
        }
        true
    }

    /// When the oldest read has waited too long.
    fn impatient_at(&self) -> u64 {
        if self.c.read_patience == u64::MAX || self.reads.live == 0 {
            return u64::MAX;
        }
        let oldest = self.reads.oldest(self.reads.live);
        self.reads.slots[oldest].accepted + self.c.read_patience
    }

    fn ring(&mut self, queue: Queue) -> &mut Ring {
        if queue == Queue::Write { &mut self.writes } else { &mut self.reads }
    }

    #[inline]
    fn precharge<const PLAIN: bool>(&mut self, queue: Queue, position: usize) {
        let ring = self.ring(queue);
        let fresh = ring.counted >> position & 1 == 0;
        ring.counted |= 1 << position;
        let bank = usize::from(ring.slots[position].request.place.bank);
        self.commands.row_conflicts += u64::from(fresh);
        if !PLAIN && self.adaptive {
            self.eager[bank] = 3.min(self.eager[bank] + 1);
        }
        self.close_bank::<PLAIN>(bank);
    }

    /// PREpb.
    #[inline]
    fn close_bank<const PLAIN: bool>(&mut self, bank: usize) {
        self.commands.precharges += 1;
        self.close::<PLAIN>(bank, self.t.rp_pb);
        self.pre_any_at = self.now + self.t.ppd;
        self.refresh_at = self.refresh_at.max(self.now + self.t.rp_pb);
    }

    #[inline]
    pub(super) fn close<const PLAIN: bool>(&mut self, bank: usize, recovery: u64) {
        let was_open = self.open;
        self.open &= !(1 << bank);
        if self.open == 0 && was_open != 0 {
            self.states.active += self.now - self.state_since;
            self.state_since = self.now;
        }
        if !PLAIN && self.closes {
            self.forget_columns(bank);
        }
        self.reads.closed(bank);
        self.writes.closed(bank);
        let at = self.now + recovery;
        if at > self.act_at[bank] {
            let was = std::mem::replace(&mut self.act_at[bank], at);
            self.act_ok &= !(1 << bank);
            self.defer(was, at, bank, ACT_SHIFT);
        }
    }

    #[inline]
    fn activate<const PLAIN: bool>(&mut self, queue: Queue, position: usize) {
        let Timings { ras, rc, rcd, rcd_w, rrd, faw, .. } = self.t;
        let now = self.now;
        let ring = self.ring(queue);
        let fresh = ring.counted >> position & 1 == 0;
        let slot = ring.remove(position);
        self.commands.row_misses += u64::from(fresh);
        self.commands.activates += 1;
        let (bank, row) = (usize::from(slot.request.place.bank), slot.request.place.row);
        let bit = 1u16 << bank;
        self.active |= bit;
        self.active_writes = self.active_writes & !bit | u16::from(slot.request.write) << bank;
        // Of those accepted in one CK the first activated goes first.
        self.active_slots[bank] = Slot { sequence: self.commands.activates, ..slot };
        if self.open == 0 {
            self.states.precharged += now - self.state_since;
            self.state_since = now;
        }
        if !PLAIN && self.adaptive {
            self.learn(bank, row);
        }
        self.open |= bit;
        self.rows[bank] = row;
        self.reads.opened(bank, row);
        self.writes.opened(bank, row);
        (self.column_ok, self.pre_ok, self.act_ok) =
            (self.column_ok & !bit, self.pre_ok & !bit, self.act_ok & !bit);
        let (pre_was, act_was) = (self.pre_at[bank], self.act_at[bank]);
        (self.pre_at[bank], self.act_at[bank]) = (now + ras, now + rc);
        self.schedule(now + rcd, bank, COLUMN_SHIFT);
        if !PLAIN && self.splits_rcd {
            self.write_ok &= !bit;
            self.schedule(now + rcd_w, bank, WRITE_SHIFT);
        }
        self.defer(pre_was, now + ras, bank, PRE_SHIFT);
        self.defer(act_was, now + rc, bank, ACT_SHIFT);
        self.act1_times[self.act1_next] = now;
        self.act1_next = (self.act1_next + 1) % 4;
        self.act1_count += 1;
        self.act_any_at = self.act_any_at.max(now + rrd);
        if !PLAIN {
            // Otherwise nRAS and nRPpb say the same.
            self.refresh_at = self.refresh_at.max(now + rc);
        }
        if self.act1_count >= 4 {
            self.act_any_at = self.act_any_at.max(self.act1_times[self.act1_next] + faw);
        }
        (self.opening, self.opened_at) = (bit, now);
    }

    /// RD or WR, or the CAS that must precede it while WCK is not running.
    #[inline]
    fn start_column<const PLAIN: bool>(&mut self, queue: Queue, index: usize, done: &mut Vec<Done>) {
        let sync = self.now >= self.wck_expiry;
        if sync && self.opening != 0 && self.now + 1 >= self.opened_at + self.t.aad {
            // The ACT2 would fall between the CAS and its column command.
            self.opening = 0;
            return;
        }
        if queue != Queue::Active {
            let ring = self.ring(queue);
            let fresh = ring.counted >> index & 1 == 0;
            ring.counted |= 1 << index;
            self.commands.row_hits += u64::from(fresh);
        }
        if sync {
            self.pending_column = Some((queue, index as u8));
            self.commands.syncs += 1;
        } else {
            self.issue_column::<PLAIN>(queue, index, true, done);
        }
    }

    /// `closable`: the row may be closed with the command; after a CAS it may not.
    #[inline]
    fn issue_column<const PLAIN: bool>(
        &mut self,
        queue: Queue,
        index: usize,
        closable: bool,
        done: &mut Vec<Done>,
    ) {
        let slot = if queue == Queue::Active {
            self.active &= !(1 << index);
            self.active_slots[index]
        } else {
            self.ring(queue).remove(index)
        };
        let Request { place, write, tag, .. } = slot.request;
        let (now, t) = (self.now, &self.t);
        let group = place.group();
        let (latency, to_read, to_read_same, to_write, to_write_same, to_pre) = if write {
            let close = t.write_to_precharge();
            (t.cwl, t.write_to_read_other(), t.write_to_read_same(), t.ccd_s, t.ccd_l, close)
        } else {
            let turn = t.read_to_write();
            (t.cl, t.ccd_s, t.ccd_l, turn, turn, t.rtp)
        };
        for g in 0..GROUPS {
            let same = g == group;
            let read = now + if same { to_read_same } else { to_read };
            let turn = now + if same { to_write_same } else { to_write };
            self.read_at[g] = self.read_at[g].max(read);
            self.write_at[g] = self.write_at[g].max(turn);
        }
        if PLAIN || self.wck_expiry != u64::MAX {
            self.wck_expiry = now + latency + t.bl_min + t.wck_postamble;
        }
        let at = if write { now } else { now + t.read_latency() };
        let bank = usize::from(place.bank);
        if !PLAIN && t.interleave > 0 {
            self.open_mesh(group, write);
        }
        if !PLAIN && self.special {
            self.note_column(write);
        }
        if !PLAIN && self.closes && self.closes_with(bank, closable) {
            self.close_with_column(bank, to_pre);
        } else if now + to_pre > self.pre_at[bank] {
            let was = std::mem::replace(&mut self.pre_at[bank], now + to_pre);
            self.pre_ok &= !(1 << bank);
            self.defer(was, now + to_pre, bank, PRE_SHIFT);
        }
        self.commands.reads += u64::from(!write);
        self.commands.writes += u64::from(write);
        done.push(Done { tag, write, accepted: slot.accepted, done: at });
    }
}
