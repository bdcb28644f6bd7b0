//! The rarer duties of the event-skipping engine: refresh, row policies, meshing bursts, sleep.
//!
//! Models and does not model: as burst.rs. Source: as tick.rs.

use super::super::{BANKS, GROUPS, Refresh, RowPolicy, States};
use super::{ACT_SHIFT, BurstChannel};

/// Work of the maintenance queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upkeep {
    RefreshAll,
    RefreshBank(u8),
    Close(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    Awake,
    Down,
    SelfRefresh,
}

impl BurstChannel {
    /// CKs spent in each state, up to `ck`, which is not before the present.
    #[must_use]
    pub fn states(&self, ck: u64) -> States {
        let mut s = self.states;
        let last = ck.saturating_sub(self.state_since);
        match self.power {
            Power::Down => s.power_down += last,
            Power::SelfRefresh => s.self_refresh += last,
            Power::Awake if self.open != 0 => s.active += last,
            Power::Awake => s.precharged += last,
        }
        s
    }

    fn interval(&self) -> u64 {
        if self.c.refresh == Refresh::PerBank { self.t.refi_pb } else { self.t.refi }
    }

    #[cold]
    pub(super) fn refresh_falls_due(&mut self) {
        self.next_refresh += self.interval();
        self.owed += 1;
        if self.owed > self.c.most_owed() {
            for _ in 0..std::mem::take(&mut self.owed) {
                self.enqueue_refresh();
            }
        }
    }

    fn queue_upkeep(&mut self, work: Upkeep) {
        self.maintenance.push_back(work);
        self.upkeep += 1;
    }

    fn enqueue_refresh(&mut self) {
        if self.c.refresh == Refresh::PerBank {
            self.queue_upkeep(Upkeep::RefreshBank(self.refresh_bank as u8));
            self.refresh_bank = (self.refresh_bank + 1) % self.t.banks as usize;
        } else {
            self.queue_upkeep(Upkeep::RefreshAll);
        }
    }

    /// Before the command of a CK, if anything special is configured; false if the CK is spent.
    pub(super) fn attend(&mut self) -> bool {
        if self.owed > 0 && self.is_empty() && self.upkeep == 0 {
            self.owed -= 1;
            self.enqueue_refresh();
        }
        if self.c.power_down_after != u64::MAX && !self.stay_awake() {
            return false;
        }
        let mut due = self.capped & !self.closing & self.pre_ok;
        if due != 0 && self.now >= self.pre_any_at {
            self.closing |= due;
            while due != 0 {
                self.queue_upkeep(Upkeep::Close(due.trailing_zeros() as u8));
                due &= due - 1;
            }
        }
        true
    }

    fn enter(&mut self, power: Power) {
        self.states = self.states(self.now);
        self.state_since = self.now;
        self.power = power;
        self.slept_at = self.now;
    }

    fn stay_awake(&mut self) -> bool {
        let idle = self.is_empty() && self.upkeep == 0;
        let (now, t) = (self.now, self.t);
        let quiet = now - self.last_active;
        match self.power {
            Power::Awake => {
                if !idle || quiet < self.c.power_down_after {
                    return true;
                }
                if self.open != 0 {
                    return !self.close_all();
                }
                if now < self.sleep_at {
                    return true;
                }
                self.enter(Power::Down);
                self.commands.power_downs += 1;
            }
            Power::Down => {
                if !idle {
                    if now >= self.slept_at + t.cspd {
                        self.wake(t.xp);
                    }
                } else if quiet >= self.c.self_refresh_after && now >= self.deep_sleep_at {
                    self.enter(Power::SelfRefresh);
                    self.next_refresh = u64::MAX;
                    self.commands.self_refreshes += 1;
                }
            }
            Power::SelfRefresh => {
                if !idle && now >= self.slept_at + t.sr {
                    self.wake(t.xsr);
                    if self.c.refresh != Refresh::None {
                        self.next_refresh = now + self.interval();
                    }
                }
            }
        }
        false
    }

    /// The CK was spent on falling asleep, waking, or closing rows for it.
    pub(super) fn stirred(&self) -> bool {
        self.power == Power::Awake || self.slept_at == self.now
    }

    fn wake(&mut self, after: u64) {
        self.enter(Power::Awake);
        self.last_active = self.now;
        let at = self.now + after;
        self.act_any_at = self.act_any_at.max(at);
        self.refresh_at = self.refresh_at.max(at);
        self.bank_refresh_at = self.bank_refresh_at.max(at);
    }

    /// CKs at which sleep may begin, deepen or end.
    pub(super) fn sleep_events(&self) -> [u64; 6] {
        if self.c.power_down_after == u64::MAX {
            return [0; 6];
        }
        [
            self.last_active.saturating_add(self.c.power_down_after),
            self.last_active.saturating_add(self.c.self_refresh_after),
            self.sleep_at,
            self.deep_sleep_at,
            self.slept_at + self.t.cspd,
            self.slept_at + self.t.sr,
        ]
    }

    pub(super) fn note_column(&mut self, write: bool) {
        self.last_active = self.now;
        let t = &self.t;
        let done = 1 + if write { t.write_to_precharge() } else { t.read_latency() };
        self.sleep_at = self.sleep_at.max(self.now + done);
    }

    /// The head of the maintenance queue; false if its command may not issue now.
    pub(super) fn maintain(&mut self) -> bool {
        let work = *self.maintenance.front().expect("there is upkeep");
        let (now, t) = (self.now, self.t);
        match work {
            Upkeep::RefreshAll => {
                if self.open != 0 {
                    return self.active == 0 && self.close_all();
                }
                if now < self.refresh_at {
                    return false;
                }
                self.act_any_at = self.act_any_at.max(now + t.rfc_ab);
                self.refresh_at = now + t.rfc_ab;
                self.bank_refresh_at = self.bank_refresh_at.max(now + t.rfc_ab);
                self.deep_sleep_at = self.deep_sleep_at.max(now + t.rfc_ab);
                self.commands.refreshes += 1;
            }
            Upkeep::RefreshBank(bank) => {
                let bank = usize::from(bank);
                if self.open >> bank & 1 == 1 {
                    return self.close_for_upkeep(bank);
                }
                if now < self.bank_refresh_at || self.act_ok >> bank & 1 == 0 {
                    return false;
                }
                self.forbid_activation(bank, now + t.rfc_pb);
                self.act_any_at = self.act_any_at.max(now + t.pbr2act);
                self.bank_refresh_at = self.bank_refresh_at.max(now + t.pbr2pbr);
                self.refresh_at = self.refresh_at.max(now + t.rfc_pb);
                self.deep_sleep_at = self.deep_sleep_at.max(now + t.rfc_pb);
                self.commands.bank_refreshes += 1;
            }
            Upkeep::Close(bank) => {
                if !self.close_for_upkeep(usize::from(bank)) {
                    return false;
                }
            }
        }
        self.maintenance.pop_front();
        self.upkeep -= 1;
        true
    }

    fn forbid_activation(&mut self, bank: usize, until: u64) {
        if until > self.act_at[bank] {
            let was = std::mem::replace(&mut self.act_at[bank], until);
            self.act_ok &= !(1 << bank);
            self.defer(was, until, bank, ACT_SHIFT);
        }
    }

    fn close_for_upkeep(&mut self, bank: usize) -> bool {
        let free = self.pre_ok & !self.active;
        let legal = free >> bank & 1 == 1 && self.now >= self.pre_any_at;
        if legal {
            self.close_bank::<false>(bank);
        }
        legal
    }

    /// PREab; false if it may not issue now.
    fn close_all(&mut self) -> bool {
        if self.pre_ok != u16::MAX || self.now < self.pre_any_at {
            return false;
        }
        let mut rest = self.open;
        while rest != 0 {
            let bank = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            self.close::<false>(bank, self.t.rp_pb);
        }
        let (now, t) = (self.now, self.t);
        self.act_any_at = self.act_any_at.max(now + t.rp_ab);
        self.pre_any_at = now + t.ppd;
        self.refresh_at = self.refresh_at.max(now + t.rp_pb);
        self.bank_refresh_at = self.bank_refresh_at.max(now + t.rp_pb);
        self.deep_sleep_at = self.deep_sleep_at.max(now + t.rp_ab);
        if self.closes {
            (0..BANKS).for_each(|bank| self.forget_columns(bank));
        }
        self.commands.precharges_all += 1;
        true
    }

    pub(super) fn forget_columns(&mut self, bank: usize) {
        self.columns[bank] = 0;
        self.capped &= !(1 << bank);
        self.closing &= !(1 << bank);
    }

    /// Counts a column command of a closed-row controller; true if it closes the row.
    pub(super) fn closes_with(&mut self, bank: usize, closable: bool) -> bool {
        let RowPolicy::Closed { cap } = self.c.rows else { return false };
        if closable && self.columns[bank] >= cap && self.active >> bank & 1 == 0 {
            return true;
        }
        self.columns[bank] += 1;
        if self.columns[bank] >= cap {
            self.capped |= 1 << bank;
        }
        false
    }

    /// RDA or WRA: the row is closed from now on and may be opened `to_pre` and a precharge later.
    pub(super) fn close_with_column(&mut self, bank: usize, to_pre: u64) {
        let recovery = to_pre + self.t.rp_pb;
        self.close::<false>(bank, recovery);
        self.refresh_at = self.refresh_at.max(self.now + recovery);
        self.commands.auto_precharges += 1;
    }

    /// With adaptive rows, an idle command slot closes the first row that nobody wants and whose bank is eager.
    pub(super) fn close_early(&mut self) -> bool {
        if self.now < self.pre_any_at {
            return false;
        }
        let wanted = self.reads.hit_banks | self.writes.hit_banks;
        let mut rest = self.open & self.pre_ok & !self.active & !wanted;
        while rest != 0 {
            let bank = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if self.eager[bank] >= 2 {
                self.closed_early[bank] = Some(self.rows[bank]);
                self.close_bank::<false>(bank);
                return true;
            }
        }
        false
    }

    /// An activation shows whether closing the bank's last row early was right.
    pub(super) fn learn(&mut self, bank: usize, row: u32) {
        if let Some(last) = self.closed_early[bank].take() {
            let eager = self.eager[bank];
            self.eager[bank] = if last == row { eager.saturating_sub(1) } else { 3.min(eager + 1) };
        }
    }

    /// After a BL32 burst of `group`: one of another group may follow in its gap, unless the gap is taken already.
    pub(super) fn open_mesh(&mut self, group: usize, write: bool) {
        let (now, t) = (self.now, self.t);
        let meshed = now == self.mesh_at && self.mesh_write == write && now > 0;
        let (to_read, to_read_same, to_write, to_write_same) = if write {
            (t.write_to_read_other(), t.write_to_read_same(), 0, t.ccd_l)
        } else {
            (0, t.ccd_l, t.read_to_write(), t.read_to_write())
        };
        for g in 0..GROUPS {
            let same = g == group;
            let read = now + if same { to_read_same } else { to_read };
            let turn = now + if same { to_write_same } else { to_write };
            self.read_base[g] = self.read_base[g].max(read);
            self.write_base[g] = self.write_base[g].max(turn);
        }
        self.mesh_at = if meshed { 0 } else { now + t.interleave };
        (self.mesh_group, self.mesh_write) = (group, write);
    }
}
