//! The event-skipping engine: the same rules as the oracle, on bit masks, jumping over CKs in which nothing can issue.
//!
//! ```text
//! ring of 64 age-ordered slots per buffer ─► one mask per bank (all, row hits) ─► OR over legal banks ─► oldest bit
//! calendar of 1024 CK ─► "column legal", "precharge legal", "activate legal" bits per bank
//! ```
//!
//! Models and does not model: exactly what tick.rs does; a property test compares the two to the cycle.
//! Source: our own; the rules' sources are in tick.rs.
#![allow(
    clippy::cast_possible_truncation,
    reason = "bank numbers, ring positions and calendar slots are masked to their width where they are made"
)]

use super::ring::{Ring, Slot};
use super::{BANKS, Commands, Controller, Done, GROUPS, Request, Timings, URGENT_RESERVE};

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
    column_ok: u16,
    pre_ok: u16,
    act_ok: u16,
    pre_at: [u64; BANKS],
    act_at: [u64; BANKS],
    read_at: [u64; GROUPS],
    write_at: [u64; GROUPS],
    act_any_at: u64,
    pre_any_at: u64,
    refresh_at: u64,
    act1_times: [u64; 4],
    act1_next: usize,
    act1_count: u64,
    wck_expiry: u64,
    opening: u16,
    opened_at: u64,
    pending_column: Option<(Queue, u8)>,
    maintenance: u32,
    next_refresh: u64,
    write_mode: bool,
    calendar: Box<[u64; CALENDAR]>,
    calendar_used: [u64; CALENDAR / 64],
    commands: Commands,
}

const COLUMN_SHIFT: u32 = 0;
const PRE_SHIFT: u32 = 16;
const ACT_SHIFT: u32 = 32;

impl BurstChannel {
    /// An idle channel with all banks closed at CK 0.
    #[must_use]
    pub fn new(t: Timings, c: Controller) -> Self {
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
            pre_ok: 0,
            act_ok: u16::MAX,
            pre_at: [0; BANKS],
            act_at: [0; BANKS],
            read_at: [0; GROUPS],
            write_at: [0; GROUPS],
            act_any_at: 0,
            pre_any_at: 0,
            refresh_at: 0,
            act1_times: [0; 4],
            act1_next: 0,
            act1_count: 0,
            wck_expiry: 0,
            opening: 0,
            opened_at: 0,
            pending_column: None,
            maintenance: 0,
            next_refresh: if c.refresh { t.refi - 1 } else { u64::MAX },
            write_mode: false,
            calendar: Box::new([0; CALENDAR]),
            calendar_used: [0; CALENDAR / 64],
            commands: Commands::default(),
        }
    }

    /// The CK about to be simulated.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Other constraints from the next CK on; those already running keep their ends.
    pub fn retime(&mut self, t: Timings) {
        self.t = t;
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
            self.reads.len() < self.c.read_buffer + if urgent { URGENT_RESERVE } else { 0 }
        }
    }

    /// Takes a request in this CK, before `tick`; false if its buffer is full.
    #[inline]
    pub fn offer(&mut self, request: Request, done: &mut Vec<Done>) -> bool {
        let bank = usize::from(request.place.bank);
        let room = self.has_room(request.write, request.urgent);
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
        let pinned = self.pending_sequence();
        if request.write {
            self.writes.push(slot, hit)
        } else {
            self.reads.push(slot, hit)
        }
        if let Some(sequence) = pinned.filter(|s| self.pending_sequence() != Some(*s)) {
            self.follow_pending(sequence);
        }
        self.next_event = self.now;
        true
    }

    /// Sequence number of the request whose column command comes next, if it waits where it is said to.
    #[inline]
    fn pending_sequence(&self) -> Option<u64> {
        let (queue, index) = self.pending_column?;
        let ring = match queue {
            Queue::Read => &self.reads,
            Queue::Write => &self.writes,
            Queue::Active => return None,
        };
        (ring.live >> index & 1 == 1).then(|| ring.slots[usize::from(index)].sequence)
    }

    /// A buffer that closed its holes moved the request whose column command comes next.
    #[cold]
    fn follow_pending(&mut self, sequence: u64) {
        let Some((queue, index)) = &mut self.pending_column else { return };
        let ring = if matches!(queue, Queue::Read) { &self.reads } else { &self.writes };
        let moved =
            (0..64u8).find(|i| ring.live >> i & 1 == 1 && ring.slots[usize::from(*i)].sequence == sequence);
        *index = moved.unwrap_or(*index);
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
        self.turn_calendar();
        if self.now == self.next_refresh {
            self.maintenance += 1;
            self.next_refresh += self.t.refi;
        }
        let issued = self.step(done);
        self.next_event = if issued { self.now + 1 } else { self.look_ahead() };
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
    fn turn_calendar(&mut self) {
        let slot = self.now as usize % CALENDAR;
        let due = std::mem::take(&mut self.calendar[slot]);
        self.calendar_used[slot / 64] &= !(1 << (slot % 64));
        self.column_ok |= (due >> COLUMN_SHIFT) as u16;
        self.pre_ok |= (due >> PRE_SHIFT) as u16;
        self.act_ok |= (due >> ACT_SHIFT) as u16;
    }

    /// Earliest CK after `now` at which a timing constraint ends or a refresh falls due.
    fn look_ahead(&self) -> u64 {
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
    fn legal_groups(&self, at: &[u64; GROUPS]) -> u16 {
        let mut banks = 0;
        for (g, &ck) in at.iter().enumerate() {
            banks |= u16::from(self.now >= ck) * (0xF << (4 * g));
        }
        banks
    }

    #[inline]
    fn step(&mut self, done: &mut Vec<Done>) -> bool {
        if self.opening != 0 && self.now >= self.opened_at + self.t.aad {
            self.opening = 0;
            return true;
        }
        if let Some((queue, index)) = self.pending_column.take() {
            self.issue_column(queue, usize::from(index), done);
            return true;
        }
        let columns = self.column_ok & !self.opening;
        let candidates = self.active & columns;
        if candidates != 0 {
            let (read, write) = (self.legal_groups(&self.read_at), self.legal_groups(&self.write_at));
            let ready = candidates & (read & !self.active_writes | write & self.active_writes);
            if let Some(bank) = self.oldest_active(ready) {
                self.start_column(Queue::Active, bank, done);
                return true;
            }
        }
        if self.maintenance > 0 {
            if self.maintain() {
                return true;
            }
        } else if self.serve_buffer(columns, done) {
            return true;
        }
        let early = self.opening != 0;
        self.opening = 0;
        early
    }

    fn oldest_active(&self, banks: u16) -> Option<usize> {
        let (mut rest, mut best) = (banks, None);
        while rest != 0 {
            let bank = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let s = &self.active_slots[bank];
            let key = (!s.request.urgent, s.sequence, bank);
            if best.is_none_or(|b| key < b) {
                best = Some(key);
            }
        }
        best.map(|(_, _, bank)| bank)
    }

    #[inline]
    fn serve_buffer(&mut self, columns: u16, done: &mut Vec<Done>) -> bool {
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
        let (ring, at) =
            if self.write_mode { (&self.writes, &self.write_at) } else { (&self.reads, &self.read_at) };
        if ring.live == 0 {
            return false;
        }
        let mut hits = 0u64;
        let mut rest = self.open & columns & ring.hit_banks;
        if rest != 0 {
            rest &= self.legal_groups(at);
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
            others |= ring.all[bank] & !ring.hits[bank];
        }
        let ready = hits | others;
        if ready == 0 {
            return false;
        }
        let urgent = ready & ring.urgent;
        let position = ring.oldest(if urgent != 0 { urgent } else { ready });
        let queue = if self.write_mode { Queue::Write } else { Queue::Read };
        if hits >> position & 1 == 1 {
            self.start_column(queue, position, done);
        } else if self.open >> ring.slots[position].request.place.bank & 1 == 1 {
            self.precharge(queue, position);
        } else {
            self.activate(queue, position);
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
    fn precharge(&mut self, queue: Queue, position: usize) {
        let ring = self.ring(queue);
        let fresh = ring.counted >> position & 1 == 0;
        ring.counted |= 1 << position;
        let bank = usize::from(ring.slots[position].request.place.bank);
        self.commands.row_conflicts += u64::from(fresh);
        self.commands.precharges += 1;
        self.close(bank, self.t.rp_pb);
        self.pre_any_at = self.now + self.t.ppd;
        self.refresh_at = self.refresh_at.max(self.now + self.t.rp_pb);
    }

    #[inline]
    fn close(&mut self, bank: usize, recovery: u64) {
        self.open &= !(1 << bank);
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
    fn activate(&mut self, queue: Queue, position: usize) {
        let (now, t) = (self.now, self.t);
        let ring = self.ring(queue);
        let fresh = ring.counted >> position & 1 == 0;
        let slot = ring.remove(position);
        self.commands.row_misses += u64::from(fresh);
        self.commands.activates += 1;
        let (bank, row) = (usize::from(slot.request.place.bank), slot.request.place.row);
        let bit = 1u16 << bank;
        self.active |= bit;
        self.active_writes = self.active_writes & !bit | u16::from(slot.request.write) << bank;
        self.active_slots[bank] = slot;
        self.open |= bit;
        self.rows[bank] = row;
        self.reads.opened(bank, row);
        self.writes.opened(bank, row);
        (self.column_ok, self.pre_ok, self.act_ok) =
            (self.column_ok & !bit, self.pre_ok & !bit, self.act_ok & !bit);
        let (pre_was, act_was) = (self.pre_at[bank], self.act_at[bank]);
        (self.pre_at[bank], self.act_at[bank]) = (now + t.ras, now + t.rc);
        self.schedule(now + t.rcd, bank, COLUMN_SHIFT);
        self.defer(pre_was, now + t.ras, bank, PRE_SHIFT);
        self.defer(act_was, now + t.rc, bank, ACT_SHIFT);
        self.act1_times[self.act1_next] = now;
        self.act1_next = (self.act1_next + 1) % 4;
        self.act1_count += 1;
        self.act_any_at = self.act_any_at.max(now + t.rrd);
        if self.act1_count >= 4 {
            self.act_any_at = self.act_any_at.max(self.act1_times[self.act1_next] + t.faw);
        }
        (self.opening, self.opened_at) = (bit, now);
    }

    /// PREab or REFab; false if neither may issue now.
    fn maintain(&mut self) -> bool {
        if self.open != 0 {
            let legal = self.active == 0 && self.open & !self.pre_ok == 0 && self.now >= self.pre_any_at;
            if legal {
                let mut rest = self.open;
                while rest != 0 {
                    let bank = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    self.close(bank, self.t.rp_pb);
                }
                self.act_any_at = self.act_any_at.max(self.now + self.t.rp_ab);
                self.pre_any_at = self.now + self.t.ppd;
                self.refresh_at = self.refresh_at.max(self.now + self.t.rp_pb);
                self.commands.precharges_all += 1;
            }
            return legal;
        }
        let legal = self.now >= self.refresh_at;
        if legal {
            self.act_any_at = self.act_any_at.max(self.now + self.t.rfc_ab);
            self.refresh_at = self.now + self.t.rfc_ab;
            self.maintenance -= 1;
            self.commands.refreshes += 1;
        }
        legal
    }

    /// RD or WR, or the CAS that must precede it while WCK is not running.
    #[inline]
    fn start_column(&mut self, queue: Queue, index: usize, done: &mut Vec<Done>) {
        if queue != Queue::Active {
            let ring = self.ring(queue);
            let fresh = ring.counted >> index & 1 == 0;
            ring.counted |= 1 << index;
            self.commands.row_hits += u64::from(fresh);
        }
        if self.now >= self.wck_expiry {
            self.pending_column = Some((queue, index as u8));
            self.commands.syncs += 1;
        } else {
            self.issue_column(queue, index, done);
        }
    }

    #[inline]
    fn issue_column(&mut self, queue: Queue, index: usize, done: &mut Vec<Done>) {
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
        self.wck_expiry = now + latency + t.bl_min + t.wck_postamble;
        let at = if write { now } else { now + t.read_latency() };
        let bank = usize::from(place.bank);
        if now + to_pre > self.pre_at[bank] {
            let was = std::mem::replace(&mut self.pre_at[bank], now + to_pre);
            self.pre_ok &= !(1 << bank);
            self.defer(was, now + to_pre, bank, PRE_SHIFT);
        }
        self.commands.reads += u64::from(!write);
        self.commands.writes += u64::from(write);
        done.push(Done { tag, write, accepted: slot.accepted, done: at });
    }
}
