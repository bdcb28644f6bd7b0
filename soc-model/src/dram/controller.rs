//! What a controller can be told: queues, drain, refresh, rows, order, sleep; read from a strict table.
//!
//! Models: the knobs and their ranges. Does not model: anything in time. Source: names and defaults of the rules are
//! those of Ramulator 2.1's LPDDR5 controller; adaptive rows, postponing, ageing and sleep are our own.

use super::map::nearest;
use serde::Deserialize;

/// Who is refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Nobody: for tests against closed forms.
    None,
    /// All banks every nREFI (REFab).
    AllBank,
    /// One bank after the other, one every nREFIpb (REFpb).
    PerBank,
}

/// How long rows stay open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowPolicy {
    /// Until another row of the bank is wanted or a refresh falls due.
    Open,
    /// After `cap` column commands the row closes: with the next one if there is one, or by a precharge.
    Closed {
        /// Column commands to a row before it closes.
        cap: u32,
    },
    /// A two-bit counter a bank learns whether rows left open are hit again; where not, unwanted rows close early.
    Adaptive,
}

/// Whose command goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// The oldest request whose next command is ready.
    OldestReady,
    /// The same, but no request closes a row that one at least as old in its buffer still hits.
    RowHitFirst,
}

/// How the data clock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wck {
    /// It stops after a burst; a CAS restarts it.
    NeedSync,
    /// It runs always.
    AlwaysOn,
}

/// The controller's queues and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Reads that can wait; at most 64.
    pub read_buffer: u32,
    /// Writes that can wait; at most 64.
    pub write_buffer: u32,
    /// Writing starts when more writes than this wait (or no read does).
    pub drain_above: u32,
    /// Writing ends when fewer writes than this wait and a read does.
    pub drain_until_below: u32,
    /// A read that has waited this many CK ends writing whatever the thresholds say; `u64::MAX` never does.
    pub read_patience: u64,
    /// Refresh commands that are sent.
    pub refresh: Refresh,
    /// REFab (or eight REFpb each) that may be put off while requests wait; the next one forces all of them.
    pub postpone: u32,
    /// Row policy.
    pub rows: RowPolicy,
    /// Order of requests.
    pub scheduler: Scheduler,
    /// Data clock.
    pub wck: Wck,
    /// A ready request that has waited this many CK goes before every class; `u64::MAX` never does.
    pub age_limit: u64,
    /// CKs without a request before power-down; `u64::MAX` never.
    pub power_down_after: u64,
    /// CKs without a request before power-down becomes self-refresh; `u64::MAX` never.
    pub self_refresh_after: u64,
}

/// Slots of the read buffer only requests above class 0 may take, as far as the engine's 64 slots reach.
pub const URGENT_RESERVE: u32 = 8;
/// Slots of a buffer.
pub const MOST_SLOTS: u32 = 64;
/// REFab that JEDEC lets a controller put off.
pub const MOST_POSTPONED: u32 = 8;
/// REFpb that stand for one REFab: nREFI / nREFIpb.
pub const BANK_REFRESHES: u32 = 8;

impl Controller {
    /// Buffers of 32, drain from 0.8 down to 0.2, no limit on waiting: Ramulator 2.1's defaults for LPDDR5.
    pub const DEFAULT: Self = Self {
        read_buffer: 32,
        write_buffer: 32,
        drain_above: 25,
        drain_until_below: 7,
        read_patience: u64::MAX,
        refresh: Refresh::AllBank,
        postpone: 0,
        rows: RowPolicy::Open,
        scheduler: Scheduler::OldestReady,
        wck: Wck::NeedSync,
        age_limit: u64::MAX,
        power_down_after: u64::MAX,
        self_refresh_after: u64::MAX,
    };

    /// The same with limits on waiting: without the first, writers that keep the buffer filled starve the last reads
    /// of a transfer for as long as they write; without the second, urgent lines starve everything else. Both limits
    /// are estimates, accuracy class C.
    pub const PHONE: Self = Self { read_patience: 512, age_limit: 2048, ..Self::DEFAULT };

    /// Reads that can wait if they are above class 0.
    #[must_use]
    pub const fn urgent_read_buffer(&self) -> u32 {
        let with_reserve = self.read_buffer + URGENT_RESERVE;
        if with_reserve < MOST_SLOTS { with_reserve } else { MOST_SLOTS }
    }

    /// Refreshes that may be owed without being forced.
    #[must_use]
    pub const fn most_owed(&self) -> u32 {
        match self.refresh {
            Refresh::PerBank => self.postpone * BANK_REFRESHES,
            Refresh::None | Refresh::AllBank => self.postpone,
        }
    }

    /// Sets the drain thresholds from fractions of the write buffer, in thousandths: writing starts above `high`
    /// and ends below `low`.
    pub const fn set_watermarks(&mut self, low: u32, high: u32) {
        self.drain_above = high * self.write_buffer / 1000;
        self.drain_until_below = (low * self.write_buffer).div_ceil(1000);
    }

    /// Everything that is out of range, as (key, value, what is accepted).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, u64, &'static str)> {
        let mut out = Vec::new();
        let mut check = |ok: bool, key, value: u64, expected| {
            if !ok {
                out.push((key, value, expected));
            }
        };
        for (key, slots) in [("read-buffer", self.read_buffer), ("write-buffer", self.write_buffer)] {
            check((1..=MOST_SLOTS).contains(&slots), key, u64::from(slots), "1 to 64");
        }
        let (low, high) = (u64::from(self.drain_until_below), u64::from(self.drain_above));
        check(low >= 1, "drain-until-below", low, "at least 1, or writing never ends");
        check(low <= high + 1, "drain-until-below", low, "at most one more than drain-above");
        check(high < u64::from(self.write_buffer), "drain-above", high, "less than write-buffer");
        check(self.postpone <= MOST_POSTPONED, "postpone-refresh", u64::from(self.postpone), "0 to 8");
        if let RowPolicy::Closed { cap } = self.rows {
            check((1..=64).contains(&cap), "row-cap", u64::from(cap), "1 to 64");
        }
        check(self.power_down_after >= 1, "power-down-after", self.power_down_after, "at least 1 CK");
        check(
            self.self_refresh_after >= self.power_down_after,
            "self-refresh-after",
            self.self_refresh_after,
            "at least power-down-after: self-refresh is entered from power-down",
        );
        check(self.age_limit >= 1, "age-limit", self.age_limit, "at least 1 CK");
        out
    }
}

/// What is wrong with the name of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No rule of that name.
    #[error("no {what} is called `{name}`; the nearest is `{nearest}`")]
    Unknown {
        /// Kind of rule.
        what: &'static str,
        /// What was asked.
        name: String,
        /// The most similar name.
        nearest: String,
    },
    /// A number that cannot be read.
    #[error("`{text}` is not {expected}")]
    Number {
        /// What was written.
        text: String,
        /// What is accepted.
        expected: &'static str,
    },
}

fn choose<T: Copy>(what: &'static str, name: &str, rules: &[(&'static str, T)]) -> Result<T, RuleError> {
    rules.iter().find(|(n, _)| *n == name).map(|r| r.1).ok_or_else(|| RuleError::Unknown {
        what,
        name: name.to_owned(),
        nearest: nearest(name, rules.iter().map(|r| r.0)),
    })
}

impl std::str::FromStr for Refresh {
    type Err = RuleError;
    fn from_str(name: &str) -> Result<Self, RuleError> {
        let rules = [("none", Self::None), ("all-bank", Self::AllBank), ("per-bank", Self::PerBank)];
        choose("refresh", name, &rules)
    }
}

impl std::str::FromStr for RowPolicy {
    type Err = RuleError;
    /// `open`, `adaptive`, `closed` (cap 4) or `closed:CAP`.
    fn from_str(name: &str) -> Result<Self, RuleError> {
        if let Some(cap) = name.strip_prefix("closed:") {
            let expected = "a cap of 1 to 64 column commands";
            let cap = cap.parse().ok().filter(|c| (1..=64).contains(c));
            return cap
                .map(|cap| Self::Closed { cap })
                .ok_or_else(|| RuleError::Number { text: name.to_owned(), expected });
        }
        let rules = [("open", Self::Open), ("closed", Self::Closed { cap: 4 }), ("adaptive", Self::Adaptive)];
        choose("row policy", name, &rules)
    }
}

impl std::str::FromStr for Scheduler {
    type Err = RuleError;
    fn from_str(name: &str) -> Result<Self, RuleError> {
        let rules = [("oldest-ready", Self::OldestReady), ("row-hit-first", Self::RowHitFirst)];
        choose("scheduler", name, &rules)
    }
}

impl std::str::FromStr for Wck {
    type Err = RuleError;
    fn from_str(name: &str) -> Result<Self, RuleError> {
        choose("WCK mode", name, &[("need-sync", Self::NeedSync), ("always-on", Self::AlwaysOn)])
    }
}

/// The `[controller]` table of a standard's file; what is absent is as in [`Controller::DEFAULT`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawController {
    read_buffer: Option<u32>,
    write_buffer: Option<u32>,
    watermarks_permille: Option<[u32; 2]>,
    read_patience: Option<u64>,
    refresh: Option<String>,
    postpone_refresh: Option<u32>,
    row_policy: Option<String>,
    scheduler: Option<String>,
    wck: Option<String>,
    age_limit: Option<u64>,
    power_down_after: Option<u64>,
    self_refresh_after: Option<u64>,
}

/// Keys of the `[controller]` table.
pub const CONTROLLER_KEYS: [&str; 12] = [
    "read-buffer",
    "write-buffer",
    "watermarks-permille",
    "read-patience",
    "refresh",
    "postpone-refresh",
    "row-policy",
    "scheduler",
    "wck",
    "age-limit",
    "power-down-after",
    "self-refresh-after",
];

/// Thresholds in thousandths of the write buffer when none are given.
pub const WATERMARKS: [u32; 2] = [200, 800];

impl RawController {
    /// The controller described, and everything that is wrong with it.
    #[must_use]
    pub fn resolve(&self) -> (Controller, Vec<String>) {
        fn rule<T: std::str::FromStr<Err = RuleError>>(
            text: Option<&String>,
            into: &mut T,
            problems: &mut Vec<String>,
        ) {
            match text.map(|t| t.parse()) {
                Some(Ok(value)) => *into = value,
                Some(Err(e)) => problems.push(format!("[controller]: {e}")),
                None => {}
            }
        }
        let (mut c, mut problems) = (Controller::DEFAULT, Vec::new());
        c.read_buffer = self.read_buffer.unwrap_or(c.read_buffer);
        c.write_buffer = self.write_buffer.unwrap_or(c.write_buffer);
        let [low, high] = self.watermarks_permille.unwrap_or(WATERMARKS);
        if low <= high && high < 1000 && c.write_buffer <= MOST_SLOTS {
            c.set_watermarks(low, high);
        } else if high >= 1000 || low > high {
            problems
                .push(format!("[controller]: watermarks-permille = [{low}, {high}] must rise below 1000"));
        }
        c.read_patience = self.read_patience.unwrap_or(c.read_patience);
        c.postpone = self.postpone_refresh.unwrap_or(c.postpone);
        c.age_limit = self.age_limit.unwrap_or(c.age_limit);
        c.power_down_after = self.power_down_after.unwrap_or(c.power_down_after);
        c.self_refresh_after = self.self_refresh_after.unwrap_or(c.self_refresh_after);
        rule(self.refresh.as_ref(), &mut c.refresh, &mut problems);
        rule(self.row_policy.as_ref(), &mut c.rows, &mut problems);
        rule(self.scheduler.as_ref(), &mut c.scheduler, &mut problems);
        rule(self.wck.as_ref(), &mut c.wck, &mut problems);
        let range = |(key, value, expected)| format!("[controller]: {key} = {value} must be {expected}");
        problems.extend(c.problems().into_iter().map(range));
        (c, problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_those_of_the_reference() {
        for (slots, low, high, below, above) in
            [(32, 200, 800, 7, 25), (16, 200, 800, 4, 12), (64, 200, 800, 13, 51), (32, 500, 900, 16, 28)]
        {
            let mut c = Controller { write_buffer: slots, ..Controller::DEFAULT };
            c.set_watermarks(low, high);
            assert_eq!((c.drain_until_below, c.drain_above), (below, above), "{slots} {low} {high}");
        }
    }

    #[test]
    fn rules_have_names_and_ranges() {
        assert_eq!("closed".parse(), Ok(RowPolicy::Closed { cap: 4 }));
        assert_eq!("closed:1".parse(), Ok(RowPolicy::Closed { cap: 1 }));
        assert!("closed:0".parse::<RowPolicy>().is_err());
        let e = "per-bnak".parse::<Refresh>().unwrap_err();
        assert_eq!(e.to_string(), "no refresh is called `per-bnak`; the nearest is `per-bank`");
        let bad = Controller {
            read_buffer: 65,
            drain_until_below: 0,
            postpone: 9,
            self_refresh_after: 3,
            rows: RowPolicy::Closed { cap: 0 },
            ..Controller::DEFAULT
        };
        let keys: Vec<&str> = bad.problems().into_iter().map(|p| p.0).collect();
        let expected =
            ["read-buffer", "drain-until-below", "postpone-refresh", "row-cap", "self-refresh-after"];
        assert_eq!(keys, expected);
        assert!(Controller::DEFAULT.problems().is_empty() && Controller::PHONE.problems().is_empty());
    }
}
